"""One task in its files, assembled from its parts: what the store and the migration source use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from backends.json_files.journal.journal import Journal
from backends.json_files.journal.lines import History
from backends.json_files.journal.state import Stand
from backends.json_files.lazy import lazy
from backends.json_files.task.commit import Commits, not_found
from backends.json_files.task.foreign_edits import ForeignEdits
from backends.json_files.task.foreign_lines import ForeignLines
from backends.json_files.task.freezer import Freezer
from backends.json_files.task.frozen import Frozen
from backends.json_files.task.frozen_document import FrozenDocument
from backends.json_files.task.late_writes import LateWrites
from backends.json_files.task.live import Live
from backends.json_files.task.recovery import Recovery
from backends.json_files.task.removed_files import removed_files
from backends.json_files.task.replacement import Replacement
from backends.json_files.task.replica import TaskReplica
from backends.json_files.task.restoration import Restoration
from backends.json_files.task.task_files import TaskFiles
from backends.json_files.task.workspace_state import Shared
from backends.json_files.task.write_ahead import WriteAhead
from registry_api.errors import Busy, CorruptDocument, TaskNotFound, Unavailable
from registry_api.records import Change, Commit, Head, Kind, TaskSnapshot, ValidatedChangeset

__all__ = ["Task"]


class Task:
    """One task; thread-safe, and safe while other processes and legacy programs use the files."""

    def __init__(self, shared: Shared, task_id: str) -> None:
        self.task_id = task_id
        self._shared = shared
        self._files = TaskFiles(shared, task_id)
        self.journal = self._files.journal
        self.is_unchanged = self._files.document.is_unchanged

    @property
    def _state(self) -> Live | Frozen:
        """Live or frozen: an operation asks once."""
        return self._frozen if self._shared.frozen() else self._live

    # -- reading -----------------------------------------------------------------------------

    def current(self) -> Journal:
        """Return the journal, first brought up to the document's current state if need be.

        Raises TaskNotFound if there is no task, CorruptDocument, Busy or Unavailable.
        """
        self._refresh(self._state)
        return self.journal

    def stand(self) -> Stand:
        """Return the state as last read, and its revision; raises Unavailable if it is gone."""
        stand = self.journal.present()
        if stand is None:  # another thread has just found that the journal is gone
            raise Unavailable(f"{self.journal.path} was replaced", next_step="Try again")
        return stand

    def _refresh(self, state: Live | Frozen) -> None:
        try:
            state.refresh()
        except OSError as error:
            raise self._files.typed(error) from error
        if self.journal.is_empty:
            raise not_found(self.task_id)

    def head(self) -> Head:
        """Return the head, settled; Head() if there is no readable registry. Raises Busy."""
        try:
            self.current()
        except Busy:
            raise
        except (TaskNotFound, CorruptDocument, Unavailable):
            if self.journal.is_empty:
                return Head()
            raise
        return self.journal.head()

    def head_in_gate(self) -> Head:
        """As ``head``, but the intent of a killed writer is left if the document is unchanged.

        This must be fast and makes no parts: writers wait while the gate is held.
        """
        return self.journal.head() if self.is_unchanged() else self.head()

    def absorb_logs(self, *, current: bool = False) -> None:
        """Absorb what other programs wrote to the document and to the logs.

        ``current``: the document was absorbed just now.
        """
        state = self._state
        if not current:
            self._refresh(state)
        state.absorb_logs()

    def histories(self, kind: Kind) -> Iterator[History]:
        """Yield the history records of one kind, streaming."""
        self.absorb_logs()
        return self.journal.histories(kind)

    # -- writing -----------------------------------------------------------------------------

    def commit(self, change: ValidatedChangeset) -> tuple[Commit, bool]:
        """Commit a changeset; returns the commit and whether counts may have changed.

        Raises the errors of RegistryStore.commit.
        """
        try:
            return self._commits.commit(change)
        except OSError as error:
            raise self._files.typed(error) from error

    def removed(self) -> dict[str, int]:
        """Return, per file in the task's folder, how many records are missing from it."""
        self.absorb_logs()
        return removed_files(self._shared.layout, self.journal, self._shared.times)

    def restore(self) -> int:
        """Write removed lines and documents again; returns how many of both were written."""
        try:
            return self._restoration.restore()
        except OSError as error:
            raise self._files.typed(error) from error

    def evict(self) -> None:
        """Drop what can be reloaded, unless another thread works on the task."""
        if self._files.evict():
            for name in _PARTS:
                self.__dict__.pop(name, None)

    def close(self) -> None:
        """Close the descriptors."""
        self._files.close()

    # -- as a replica ------------------------------------------------------------------------

    def follows(self, changes: Sequence[Change]) -> list[Change]:
        """Return the changes that are not applied yet, in order; raises NotNext at a gap."""
        return self._replica.follows(changes)

    def apply_all(self, changes: Sequence[Change]) -> None:
        """Apply changes of this task in one write; raises NotNext, Busy or Unavailable."""
        self._replica.apply_all(changes, self._state)

    def replace_with(
        self, snapshot: TaskSnapshot, histories: Iterable[History], feed: tuple[Change, ...]
    ) -> None:
        """See Replica.replace; raises Busy or Unavailable."""
        self._replica.replace(snapshot, histories, feed, self._state)

    # -- its parts ---------------------------------------------------------------------------

    @lazy
    def _lines(self) -> ForeignLines:
        return ForeignLines(self._files)

    @lazy
    def _write_ahead(self) -> WriteAhead:
        return WriteAhead(self._files, self._lines)

    @lazy
    def _replacement(self) -> Replacement:
        return Replacement(self._files, self._write_ahead)

    @lazy
    def _recovery(self) -> Recovery:
        return Recovery(self._files, self._write_ahead, self._replacement)

    @lazy
    def _edits(self) -> ForeignEdits:
        return ForeignEdits(self._files, self._lines, self._write_ahead, self._recovery)

    @lazy
    def _live(self) -> Live:
        return Live(self._files, self._edits, self._recovery, self._write_ahead)

    def _settle(self, deadline: float) -> None:
        self._live.settle(deadline)

    @lazy
    def _frozen(self) -> Frozen:
        return Frozen(self._files)

    @lazy
    def _commits(self) -> Commits:
        return Commits(self._files, self._live, self._edits, self._lines, self._write_ahead)

    @lazy
    def _restoration(self) -> Restoration:
        return Restoration(self._files, self._live, self._edits, self._lines)

    @lazy
    def late_writes(self) -> LateWrites:
        """What other programs write to the document while it is frozen."""
        return LateWrites(self._files, self._recovery, self._frozen.finish)

    @lazy
    def _replica(self) -> TaskReplica:
        return TaskReplica(self._files, self._write_ahead, self._replacement, self.late_writes)

    @lazy
    def freezer(self) -> Freezer:
        """What freezes the document; it keeps what it saw, and is never dropped."""
        return Freezer(self._files, head=self.head, settle=self._settle)

    @lazy
    def frozen_document(self) -> FrozenDocument:
        """The document while it is frozen."""
        return FrozenDocument(self._files)


# All but the freezer are dropped when the task is evicted.
_PARTS = [n for n, v in vars(Task).items() if isinstance(v, lazy) and n != "freezer"]
