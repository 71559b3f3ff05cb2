"""One task as a replica: brought up to another store's revision, for the rollback of a move.

The document is frozen meanwhile. So it is written as a copy of the other store's state, through an
intent as always, and never merged: a late write is kept in ``.registry/conflicts``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta

from backends.json_files.document.mode import set_writable
from backends.json_files.document.patch import Patch
from backends.json_files.document.text import content_hash, read_document
from backends.json_files.journal.intent import AppendedLine, Intent
from backends.json_files.journal.lines import History, histories_of
from backends.json_files.task.frozen import Frozen
from backends.json_files.task.late_writes import LateWrites
from backends.json_files.task.live import Live
from backends.json_files.task.replacement import Replacement
from backends.json_files.task.task_files import TaskFiles
from backends.json_files.task.workspace_state import is_as_recorded
from backends.json_files.task.write_ahead import WriteAhead
from registry_api.authoring import check_next
from registry_api.records import (
    KINDS,
    Change,
    Changeset,
    TaskSnapshot,
    TaskState,
    dump_changeset,
    record_key,
)

__all__ = ["TaskReplica"]

_UNDER_WAY = timedelta(seconds=10)  # a writer may still be about to append a younger record's line
_AWAITED = 0.25  # seconds that such a line is awaited at most
_NOT_AWAITED = 1.0  # seconds for which none is awaited after that


class TaskReplica:
    """Applies the changes of another store to one task."""

    __slots__ = ("_files", "_late_writes", "_replacement", "_write_ahead")

    def __init__(
        self,
        files: TaskFiles,
        write_ahead: WriteAhead,
        replacement: Replacement,
        late_writes: LateWrites,
    ) -> None:
        self._files = files
        self._write_ahead = write_ahead
        self._replacement = replacement
        self._late_writes = late_writes

    def follows(self, changes: Sequence[Change]) -> list[Change]:
        """Return the changes that are not applied yet, in order; raises NotNext at a gap."""
        journal = self._files.journal
        journal.refresh()
        revision, chain = journal.revision, journal.chain
        news = list[Change]()
        for change in changes:
            same = journal.is_empty or change.lineage == journal.lineage
            if same and change.revision <= revision and (news or self._is_applied(change)):
                continue
            check_next(change, lineage=journal.lineage, revision=revision, chain=chain)
            news.append(change)
            revision, chain = change.revision, change.chain
        return news

    def _is_applied(self, change: Change) -> bool:
        known = self._files.journal.known_ids().get(change.changeset.id)
        return known is not None and known[2] == change.digest

    def apply_all(self, changes: Sequence[Change], state: Live | Frozen) -> None:
        """Apply changes of this task in one write; raises NotNext, Busy or Unavailable."""
        try:
            with self._replicating(state) as fd:
                news = self.follows(changes)
                if news:
                    self._apply(fd, news, state)
        except OSError as error:
            raise self._files.typed(error) from error

    def replace(
        self,
        snapshot: TaskSnapshot,
        histories: Iterable[History],
        feed: tuple[Change, ...],
        state: Live | Frozen,
    ) -> None:
        """See Replica.replace; raises Busy or Unavailable."""
        try:
            with self._replicating(state) as fd:
                here = self._files.journal
                if here.lineage == snapshot.lineage and here.revision > snapshot.revision:
                    return
                self._replacement.replace(fd, snapshot, histories, feed)
        except OSError as error:
            raise self._files.typed(error) from error

    def _apply(self, fd: int, news: list[Change], state: Live | Frozen) -> None:
        files, journal = self._files, self._files.journal
        before = journal.state
        after = TaskState.created_by(news[0].changeset) if before is None else before.copy()
        for change in news:
            for op in change.changeset.ops:
                after.apply(op, known=lambda *_: False)
        old = read_document(fd)
        written, document = files.document.text_for(after, old)
        digest = journal.hash if written is None else content_hash(written)
        lines = self._missing([(c.changeset, r) for c in news for r in histories_of(c.changeset)])
        intent = Intent(
            number=news[-1].cursor.number,
            epoch=files.shared.epoch(),
            journal=b"".join(self._line(c, digest, shown=c is news[-1]) for c in news),
            before=content_hash(old) if old else "",
            after=digest,
            patch=Patch.whole(b"") if written is None else Patch.between(old, written),
            lines=lines,
            creates=not old,
        )
        files.intent.write(intent)
        files.logs.append(lines)
        self._write_ahead.put_document(fd, intent)
        state.finish(intent, appended=True)
        if written is not None:
            files.document.know(digest, document, written)
        with suppress(OSError):
            files.journal_writer.rebase(os.fstat(fd).st_size)

    def _line(self, change: Change, digest: str, *, shown: bool) -> bytes:
        return self._files.journal_writer.change_line(
            change.changeset,
            digest=change.digest,
            text=dump_changeset(change.changeset).decode(),
            number=change.cursor.number,
            hash_after=digest,
            logs={},
            lineage=change.lineage,
            trim_to=None,
            revision=change.revision,
            chain=change.chain,
            shown=shown,
        )

    def _missing(self, records: list[tuple[Changeset, History]]) -> tuple[AppendedLine, ...]:
        """Return the lines that are in no log: most were appended when they were committed."""
        missing = self._not_logged(records)
        if not is_as_recorded():  # else the gate is held, and nobody is about to write a line
            missing = self._awaited(missing)
        out: list[AppendedLine] = []
        for changeset, record in missing:
            out += self._files.logs.plan(changeset, [record], after=tuple(out))
        return tuple(out)

    def _awaited(self, missing: list[tuple[Changeset, History]]) -> list[tuple[Changeset, History]]:
        """Wait a moment for the lines of young changes; return those that are still missing.

        A writer commits, and then appends its line itself.
        """
        waits, began = self._files.shared.line_waits, time.monotonic()
        young = self._files.shared.now() - _UNDER_WAY
        while any(c.at > young for c, _ in missing) and time.monotonic() >= waits.not_before:
            if time.monotonic() > began + _AWAITED:
                # It died, or is on a host that keeps no logs here: do not wait for each change.
                waits.not_before = time.monotonic() + _NOT_AWAITED
                break
            time.sleep(0.002)
            missing = self._not_logged(missing)
        return missing

    def _not_logged(
        self, records: list[tuple[Changeset, History]]
    ) -> list[tuple[Changeset, History]]:
        there = self._files.logs.keys_behind(self._files.journal.logs)
        return [
            (changeset, record)
            for changeset, record in records
            if (KINDS[type(record)], record_key(record)) not in there
        ]

    @contextmanager
    def _replicating(self, state: Live | Frozen) -> Iterator[int]:
        """Lock the document for writing our copy, creating it if it is missing.

        A late write is first kept in ``.registry/conflicts``.
        """
        files = self._files
        with files.held() as deadline:
            files.journal.refresh()
            if not files.document.path.exists():
                files.make_folders()
                with files.created(deadline) as fd:
                    self._late_writes.settle_missing(fd, state.finish)
                    yield fd
                set_writable(files.document.path, writable=not state.is_frozen)
                return
            with files.opened(deadline) as fd:
                self._late_writes.guard(fd, None, state.finish)
                yield fd
