"""One task in its files: the store reads, commits and creates it here, under the task's locks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, NoReturn

from backends.json_files.document.text import text_over
from backends.json_files.document.writer import write_in_place
from backends.json_files.journal.intent import Intent
from backends.json_files.journal.journal import Journal, histories_of
from backends.json_files.legacy.lens.document import encode
from backends.json_files.task.foreign_edits import Foreign
from backends.json_files.task.recorded_task import FOREIGN
from backends.json_files.task.removed_files import missing_lines, removed_files
from backends.json_files.task.replays import find_replay
from backends.json_files.task.workspace_state import is_as_recorded
from backends.jsonl.reader import lengths
from registry_api.authoring import check_fresh
from registry_api.errors import (
    Conflict,
    OutcomeUnknown,
    RegistryError,
    TaskNotFound,
    Unavailable,
)
from registry_api.records import (
    Changeset,
    Commit,
    FeedCursor,
    Finding,
    Kind,
    ProgressEntry,
    Put,
    TaskState,
    ValidatedChangeset,
    json_text,
)
from registry_api.workspace import give_way, make_folder

__all__ = ["FOREIGN", "TaskFiles", "not_found", "shown"]

_FOLDERS = ("progress", "findings", "logs", "")
_BATCH = 500  # lines that are planned together


class TaskFiles(Foreign):
    """One task; thread-safe, and safe while other processes and legacy programs use the files.

    ``_quiet``: the journal's inode and the lengths of the logs when the journal last had all lines.
    """

    _quiet: tuple[int, bytes] | None = None

    def current(self) -> Journal:
        """Return the journal, first brought up to the document's current state if need be.

        Raises TaskNotFound if there is no task, CorruptDocument, Busy or Unavailable.
        """
        try:
            return self._current()
        except OSError as error:
            raise self._typed(error) from error

    def _typed(self, error: OSError) -> Exception:
        if isinstance(error, RegistryError):
            return error
        return Unavailable(
            f"{self._document}: {error.strerror or error}", next_step="Check the file"
        )

    def _current(self) -> Journal:
        if is_as_recorded() and not self._intent.exists():
            self.journal.refresh()
        elif not self.is_unchanged() or self._intent.exists():
            give_way(self._document)  # reading many tasks takes seconds on a slow disk
            with self._lock.held() as deadline:
                self._settled(deadline)
        if self.journal.is_empty:
            raise not_found(self.task_id)
        return self.journal

    def is_unchanged(self) -> bool:
        """Return whether document and journal are unchanged since they were last read."""
        try:
            return self._is_still(os.lstat(self._place))
        except (FileNotFoundError, NotADirectoryError):
            return False

    def histories(self, kind: Kind) -> Iterator[ProgressEntry | Finding]:
        """Yield the history records of one kind, streaming."""
        self.absorb_logs()
        return self.journal.histories(kind)

    def absorb_logs(self, *, current: bool = False) -> None:
        """Absorb what other programs wrote to the document and to the logs.

        ``current``: the document was absorbed just now.
        """
        journal = self.journal if current else self.current()
        quiet = journal.inode, lengths(self._shared.layout.folder(self.task_id))
        if quiet == self._quiet:
            return
        if self._logs.grown(journal):
            with self._lock.held() as deadline:
                self._settled(deadline, thorough=True)
        self._quiet = quiet

    def _settled(self, deadline: float, *, thorough: bool = False) -> None:
        """Settle the task under its side lock; a missing document is settled too."""
        try:
            with self._opened(deadline) as fd:
                self._settle(fd, thorough=thorough)
        except FileNotFoundError:
            self._settle_without_document(deadline)

    def _settle_without_document(self, deadline: float) -> None:
        """Finish an interrupted creation; drop any other intent, and one from before a switch."""
        self.journal.refresh()
        if not self._intent.exists():
            return
        intent = self._intent.read()
        if intent is None or self._is_journaled(intent):
            self._be_done()
        elif intent.creates and self.journal.is_empty and intent.epoch == self._shared.epoch():
            self._make_folders()
            with self._created(deadline) as fd:
                self._settle(fd)
        else:
            self._drop(intent)

    @contextmanager
    def _opened(self, deadline: float) -> Iterator[int]:
        """Lock the document; raise errors of the file system as typed ones."""
        try:
            with self._lock.document(deadline) as fd:
                yield fd
        except (FileNotFoundError, RegistryError):
            raise
        except OSError as error:
            raise Unavailable(
                f"{self._document}: {error.strerror or error}", next_step="Check the file"
            ) from error

    # -- writes of ours ----------------------------------------------------------------------

    def commit(self, change: ValidatedChangeset) -> tuple[Commit, bool]:
        """Commit a changeset; returns the commit and whether counts may have changed.

        Raises the errors of RegistryStore.commit.
        """
        try:
            return self._commit(change)
        except OSError as error:
            raise self._typed(error) from error

    def _commit(self, change: ValidatedChangeset) -> tuple[Commit, bool]:
        with self._lock.held() as deadline:
            if not self._document.exists():
                self._settled(deadline)  # an interrupted creation is finished
            new = self.journal.is_empty and not self._document.exists()
            if new and change.changeset.expected == 0:
                done = self._create(change, deadline)
                if done is not None:
                    return done, True
            try:
                with self._opened(deadline) as fd:
                    return self._commit_locked(fd, change)
            except FileNotFoundError:
                return self._commit_without_document(change), False

    def _commit_without_document(self, change: ValidatedChangeset) -> Commit:
        before = self._find_replay(change)
        if before is not None:
            return before
        if not self.journal.is_empty:
            raise Unavailable(
                f"the document of task {self.task_id} is missing",
                next_step="registry-backend reconcile writes it again",
            )
        if change.changeset.expected is None:
            raise not_found(self.task_id)
        raise Conflict(self.task_id, expected=change.changeset.expected, actual=0)

    def _find_replay(self, change: ValidatedChangeset) -> Commit | None:
        known = find_replay(self.journal, change)
        if known is None:
            return None
        return self._commit_of(change.changeset, known.revision, known.number, replayed=True)

    def _commit_of(
        self, changeset: Changeset, revision: int, number: int, *, replayed: bool = False
    ) -> Commit:
        return Commit(
            task_id=self.task_id,
            changeset_id=changeset.id,
            lineage=self.journal.lineage,
            revision=revision,
            cursor=FeedCursor(feed_id=self._shared.numbers.feed_id(), number=number),
            replayed=replayed,
        )

    def _commit_locked(self, fd: int, change: ValidatedChangeset) -> tuple[Commit, bool]:
        self._settle(fd)
        journal, changeset = self.journal, change.changeset
        replayed = self._find_replay(change)
        if replayed is not None:
            return replayed, False
        check_fresh(changeset, journal.expired_before, now=self._shared.now())
        lines = self._logs.plan(changeset, histories_of(changeset))
        if lines and self._logs.unread(journal, lines)[1]:
            self._absorb_logs()  # lines appended earlier come first
        if changeset.expected is not None and changeset.expected != journal.revision:
            raise Conflict(self.task_id, expected=changeset.expected, actual=journal.revision)
        before = journal.state
        assert before is not None
        after = self._after(before, changeset)
        old, written = b"", None
        if shown(before) != shown(after):
            _, document, old = self._document_of(fd)
            # Until it is written: a refusal must not leave it changed in the cache.
            self._shared.documents.drop(self.task_id)
            encode(before, after, document, times=self._shared.times)
            written = text_over(old, document)
        revision = journal.revision + 1  # lines that others append meanwhile are revisions after it
        number = self._write(fd, change, before=journal.hash, old=old, data=written)
        if written is not None:
            self._know(journal.hash, document, written)
        with suppress(OSError):  # the commit is done; the next one tries again
            journal.rebase(os.fstat(fd).st_size)
        moved = _statuses_moved(before, after)
        return self._commit_of(changeset, revision, number), moved

    def _after(self, before: TaskState, changeset: Changeset) -> TaskState:
        after, fresh = before.copy(), set[tuple[Kind, str]]()
        needed = bool(histories_of(changeset))
        taken = self.journal.history_ids() if needed else set[tuple[Kind, str]]()
        for op in changeset.ops:
            after.apply(op, known=lambda kind, key: (kind, key) in taken or (kind, key) in fresh)
            if isinstance(op, Put) and isinstance(op.record, ProgressEntry):
                fresh.add((Kind.PROGRESS, op.record.entry_id))
            elif isinstance(op, Put) and isinstance(op.record, Finding):
                fresh.add((Kind.FINDING, op.record.finding_id))
        return after

    # -- removed files -----------------------------------------------------------------------

    def removed(self) -> dict[str, int]:
        """See removed_files."""
        self.absorb_logs()
        return removed_files(self._shared.layout, self.journal, self._shared.times)

    def restore(self) -> int:
        """Write removed lines and documents again; returns how many of both were written."""
        try:
            with self._lock.held() as deadline:
                self._settled(deadline)
                written = 0
                if not self._document.exists() and not self.journal.is_empty:
                    self._make_folders()
                    with self._created(deadline) as fd:
                        self._rebuild(fd)
                    written += 1
                with self._opened(deadline) as fd:
                    self._settle(fd, thorough=True)
                    shared = self._shared
                    records = list(missing_lines(shared.layout, self.journal, shared.times))
                    for n in range(0, len(records), _BATCH):
                        self._logs.append(self._logs.plan(None, records[n : n + _BATCH]))
                    self._absorb_logs()
                return written + len(records)
        except OSError as error:
            raise self._typed(error) from error

    # -- creation ----------------------------------------------------------------------------

    def _create(self, change: ValidatedChangeset, deadline: float) -> Commit | None:
        """Create the task; None if another program created it at the same moment.

        The intent is durable before the first file appears: the next process finishes an
        interrupted creation, so that it never leaves an empty document.
        """
        check_fresh(change.changeset, None, now=self._shared.now())
        state = self._after(TaskState.created_by(change.changeset), change.changeset)
        document: dict[str, Any] = {}
        encode(TaskState(state.task), state, document, times=self._shared.times)
        data = json_text.dump(document, indent=True)
        intent = self._prepare(change, before="", old=b"", data=data)
        try:
            self._make_folders()
            with self._created(deadline) as fd:
                try:
                    self._logs.append(intent.lines)
                    write_in_place(fd, intent.patch, sync=self._shared.sync)
                except OSError:
                    self._document.unlink()  # ours, empty or torn; nobody else has used it yet
                    raise
                self._journal(intent, appended=True)
        except FileExistsError:
            self._intent.clear()
            return None
        except OSError as error:
            self._refuse_creation(intent, error)
        self._know(self.journal.hash, document, data)
        return self._commit_of(change.changeset, 1, intent.number)

    def _refuse_creation(self, intent: Intent, error: OSError) -> NoReturn:
        if self._document.exists():
            raise OutcomeUnknown(
                f"{self._document}: {error}; the write is kept as an intent",
                next_step="Commit the same changeset again once the disk works",
            ) from error
        self._drop(intent)
        for name in _FOLDERS:
            with suppress(OSError):
                (self._document.parent / name).rmdir()
        if isinstance(error, RegistryError):
            raise error
        raise Unavailable(
            f"{self._document}: {error.strerror or error}; nothing was changed",
            next_step="Free disk space or check the folder, then try again",
        ) from error

    def _make_folders(self) -> None:
        parent = self._document.parent
        if parent.is_symlink():
            raise Unavailable(
                f"{parent} is a link", next_step="Move it away; links are not followed"
            )
        for name in reversed(_FOLDERS):
            make_folder(parent / name, parents=True)
        self._shared.sync_folder(self._shared.layout.workspace)

    @contextmanager
    def _created(self, deadline: float) -> Iterator[int]:
        with self._lock.document(deadline, create=True) as fd:
            self._shared.sync_folder(self._document.parent)
            yield fd


def not_found(task_id: str) -> TaskNotFound:
    """Return the error for a task that is not there."""
    return TaskNotFound(f"there is no task {task_id}", next_step="list_tasks shows what there is")


def shown(state: TaskState) -> TaskState:
    """Return the part of a state that a document holds."""
    return replace(state, latest={})


def _statuses_moved(before: TaskState, after: TaskState) -> bool:
    """Return whether anything that the counts depend on differs."""
    if before.task.recorded_status is not after.task.recorded_status:
        return True
    tables: list[tuple[Any, Any]] = [
        (before.phases, after.phases),
        (before.agents, after.agents),
    ]
    for old, new in tables:
        if old.keys() != new.keys():
            return True
        if any(new[k] is not r and new[k].status is not r.status for k, r in old.items()):
            return True
    return False
