"""A task while the store is the writer of record: what other programs write is absorbed."""

from __future__ import annotations

from backends.json_files.task.foreign_edits import ForeignEdits
from backends.json_files.task.recovery import Recovery
from backends.json_files.task.task_files import TaskFiles
from backends.json_files.task.workspace_state import is_as_recorded
from backends.json_files.task.write_ahead import WriteAhead
from backends.jsonl.reader import lengths
from registry_api.workspace import give_way

__all__ = ["Live"]


class Live:
    """Brings the journal up to what is in the files; ``Frozen`` is the other state of a task."""

    __slots__ = ("_edits", "_files", "_recovery", "finish")

    is_frozen = False

    def __init__(
        self, files: TaskFiles, edits: ForeignEdits, recovery: Recovery, write_ahead: WriteAhead
    ) -> None:
        self._files = files
        self._edits = edits
        self._recovery = recovery
        self.finish = write_ahead.finish

    def refresh(self) -> None:
        """Bring the journal up to the document's current state.

        Raises CorruptDocument, Busy, Unavailable or OSError.
        """
        files = self._files
        if is_as_recorded() and not files.intent.exists():
            files.journal.refresh()
        elif not files.document.is_unchanged() or files.intent.exists():
            give_way(files.document.path)  # reading many tasks takes seconds on a slow disk
            with files.held() as deadline:
                self.settle(deadline)

    def absorb_logs(self) -> None:
        """Absorb what other programs appended to the logs; the journal is up to date otherwise."""
        files, journal = self._files, self._files.journal
        quiet = journal.inode, lengths(files.shared.layout.folder(files.task_id))
        if quiet == files.quiet:
            return
        if files.logs.grown(journal):
            with files.held() as deadline:
                self.settle(deadline, thorough=True)
        files.quiet = quiet

    def settle(self, deadline: float, *, thorough: bool = False) -> None:
        """Settle the task under its side lock; a missing document is settled too.

        ``thorough`` reads the logs even if the document did not change.
        """
        try:
            with self._files.opened(deadline) as fd:
                self._edits.settle(fd, thorough=thorough)
        except FileNotFoundError:
            self._settle_without_document(deadline)

    def _settle_without_document(self, deadline: float) -> None:
        """Finish an interrupted creation; drop any other intent."""
        files = self._files
        files.journal.refresh()
        if files.intent.exists() and self._recovery.settle_without_document():
            files.make_folders()
            with files.created(deadline) as fd:
                self._edits.settle(fd)
