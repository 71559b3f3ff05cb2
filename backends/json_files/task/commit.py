"""Commit a changeset to one task, or create the task with it."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any, NoReturn

from backends.json_files.document.text import text_over
from backends.json_files.document.writer import write_in_place
from backends.json_files.journal.intent import Intent
from backends.json_files.journal.lines import histories_of
from backends.json_files.task.document_file import in_document
from backends.json_files.task.foreign_edits import ForeignEdits
from backends.json_files.task.foreign_lines import ForeignLines
from backends.json_files.task.live import Live
from backends.json_files.task.replays import find_replay
from backends.json_files.task.task_files import FOLDERS, TaskFiles
from backends.json_files.task.write_ahead import WriteAhead
from registry_api.authoring import check_fresh
from registry_api.errors import (
    BackendMismatch,
    Conflict,
    OutcomeUnknown,
    RegistryError,
    TaskNotFound,
    Unavailable,
)
from registry_api.records import (
    KINDS,
    Changeset,
    Commit,
    FeedCursor,
    History,
    Kind,
    Put,
    TaskState,
    ValidatedChangeset,
    chain_of,
    json_text,
    record_key,
)

__all__ = ["Commits", "not_found"]


class Commits:
    """Commits to one task."""

    __slots__ = ("_edits", "_files", "_lines", "_live", "_write_ahead")

    def __init__(
        self,
        files: TaskFiles,
        live: Live,
        edits: ForeignEdits,
        lines: ForeignLines,
        write_ahead: WriteAhead,
    ) -> None:
        self._files = files
        self._live = live
        self._edits = edits
        self._lines = lines
        self._write_ahead = write_ahead

    def commit(self, change: ValidatedChangeset) -> tuple[Commit, bool]:
        """Commit a changeset; returns the commit and whether counts may have changed.

        Raises OSError, and the errors of RegistryStore.commit.
        """
        files = self._files
        with files.held() as deadline:
            successor = files.shared.successor()
            if successor:  # a program that opened the store around the gate
                raise BackendMismatch(
                    "the store json is fenced: the writer of record of the registry in "
                    f"{files.shared.layout.workspace} is {successor}",
                    next_step="Open that registry through its workspace",
                )
            if not files.document.path.exists():
                self._live.settle(deadline)  # an interrupted creation is finished
            new = files.journal.is_empty and not files.document.path.exists()
            if new and change.changeset.expected == 0:
                done = self._create(change, deadline)
                if done is not None:
                    return done, True
            try:
                with files.opened(deadline) as fd:
                    return self._commit_locked(fd, change)
            except FileNotFoundError:
                return self._commit_without_document(change), False

    def _commit_locked(self, fd: int, change: ValidatedChangeset) -> tuple[Commit, bool]:
        files, journal, changeset = self._files, self._files.journal, change.changeset
        # 1. Settle what a killed writer left and absorb what other programs wrote.
        self._edits.settle(fd)
        # 2. Answer a replay; refuse a changeset that is too old or expects another revision.
        replayed = self._find_replay(change)
        if replayed is not None:
            return replayed, False
        check_fresh(changeset, journal.expired_before, now=files.shared.now())
        lines = files.logs.plan(changeset, histories_of(changeset))
        if lines and files.logs.unread(journal, lines)[1]:
            self._lines.absorb()  # lines appended earlier come first
        if changeset.expected is not None and changeset.expected != journal.revision:
            raise Conflict(files.task_id, expected=changeset.expected, actual=journal.revision)
        # 3. Apply the ops, and format the document if they show in it.
        before = journal.state
        assert before is not None
        after = self._after(before, changeset)
        old, written, document = b"", None, None
        if in_document(before) != in_document(after):
            _, document, old = files.document.recorded(fd)
            # Until it is written: a refusal must not leave it changed in the cache.
            files.document.forget()
            files.document.encode(before, after, document)
            written = text_over(old, document)
        # 4. Write it: intent, log lines, document, journal line.
        revision = journal.revision + 1  # lines that others append meanwhile are revisions after it
        number = self._write_ahead.write(fd, change, before=journal.hash, old=old, data=written)
        if written is not None and document is not None:
            files.document.know(journal.hash, document, written)
        # 5. Keep the journal quick to read.
        with suppress(OSError):  # the commit is done; the next one tries again
            files.journal_writer.rebase(os.fstat(fd).st_size)
        return self._result(changeset, revision, number), _statuses_moved(before, after)

    def _commit_without_document(self, change: ValidatedChangeset) -> Commit:
        files, expected = self._files, change.changeset.expected
        before = self._find_replay(change)
        if before is not None:
            return before
        if not files.journal.is_empty:
            raise Unavailable(
                f"the document of task {files.task_id} is missing",
                next_step="registry-backend reconcile writes it again",
            )
        if expected is None:
            raise not_found(files.task_id)
        raise Conflict(files.task_id, expected=expected, actual=0)

    def _find_replay(self, change: ValidatedChangeset) -> Commit | None:
        known = find_replay(self._files.journal, change)
        if known is None:
            return None
        return self._result(change.changeset, known.revision, known.number, replayed=True)

    def _result(
        self, changeset: Changeset, revision: int, number: int, *, replayed: bool = False
    ) -> Commit:
        files, journal = self._files, self._files.journal
        return Commit(
            task_id=files.task_id,
            changeset_id=changeset.id,
            lineage=journal.lineage,
            revision=revision,
            cursor=FeedCursor(feed_id=files.shared.numbers.feed_id(), number=number),
            replayed=replayed,
            chain=chain_of(journal.chain, revision),
        )

    def _after(self, before: TaskState, changeset: Changeset) -> TaskState:
        after, fresh = before.copy(), set[tuple[Kind, str]]()
        needed = bool(histories_of(changeset))
        taken = self._files.journal.history_ids() if needed else set[tuple[Kind, str]]()
        for op in changeset.ops:
            after.apply(op, known=lambda kind, key: (kind, key) in taken or (kind, key) in fresh)
            if isinstance(op, Put) and isinstance(op.record, History):
                fresh.add((KINDS[type(op.record)], record_key(op.record)))
        return after

    # -- creation ----------------------------------------------------------------------------

    def _create(self, change: ValidatedChangeset, deadline: float) -> Commit | None:
        """Create the task; None if another program created it at the same moment.

        The intent is durable before the first file appears: the next process finishes an
        interrupted creation, so that it never leaves an empty document.
        """
        files, write_ahead = self._files, self._write_ahead
        check_fresh(change.changeset, None, now=files.shared.now())
        state = self._after(TaskState.created_by(change.changeset), change.changeset)
        document: dict[str, Any] = {}
        files.document.encode(TaskState(state.task), state, document)
        data = json_text.dump(document, indent=True)
        intent = write_ahead.prepare(change, before="", old=b"", data=data)
        try:
            files.make_folders()
            with files.created(deadline) as fd:
                try:
                    files.logs.append(intent.lines)
                    write_in_place(fd, intent.patch, sync=files.shared.sync)
                except OSError:
                    files.document.path.unlink()  # ours, empty or torn, and used by nobody yet
                    raise
                write_ahead.finish(intent, appended=True)
        except FileExistsError:
            files.intent.clear()
            return None
        except OSError as error:
            self._refuse_creation(intent, error)
        files.document.know(files.journal.hash, document, data)
        return self._result(change.changeset, 1, intent.number)

    def _refuse_creation(self, intent: Intent, error: OSError) -> NoReturn:
        path = self._files.document.path
        if path.exists():
            raise OutcomeUnknown(
                f"{path}: {error}; the write is kept as an intent",
                next_step="Commit the same changeset again once the disk works",
            ) from error
        self._write_ahead.drop(intent)
        for name in FOLDERS:
            with suppress(OSError):
                (path.parent / name).rmdir()
        if isinstance(error, RegistryError):
            raise error
        raise Unavailable(
            f"{path}: {error.strerror or error}; nothing was changed",
            next_step="Free disk space or check the folder, then try again",
        ) from error


def not_found(task_id: str) -> TaskNotFound:
    """Return the error for a task that is not there."""
    return TaskNotFound(f"there is no task {task_id}", next_step="list_tasks shows what there is")


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
