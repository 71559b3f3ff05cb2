"""One task as a replica: brought up to another store's revision, for the rollback of a move.

The document is frozen meanwhile. So it is written as a copy of the other store's state, through an
intent as always, and never merged: a late write is kept in ``.registry/conflicts``
(``_put_aside``).
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from backends.files import open_inside
from backends.json_files.document.patch import Patch
from backends.json_files.document.stamp import stamp_of, stat_stamp
from backends.json_files.document.text import content_hash, read_document, text_over
from backends.json_files.document.writer import write_in_place
from backends.json_files.journal.intent import AppendedLine, Intent
from backends.json_files.journal.journal import Journal, histories_of
from backends.json_files.legacy.lens.document import encode
from backends.json_files.merge import merge
from backends.json_files.task.removed_files import History
from backends.json_files.task.task import TaskFiles, not_found, shown
from backends.json_files.task.task_lock import lock_document
from registry_api.authoring import forgotten_by
from registry_api.capabilities import LateWrite
from registry_api.errors import NotNext, RegistryError
from registry_api.records import (
    KINDS,
    Change,
    Changeset,
    Commit,
    Kind,
    TaskSnapshot,
    TaskState,
    changeset_from,
    dump_changeset,
    json_text,
    record_key,
)
from registry_api.workspace import patience

__all__ = ["Now", "ReplicaTask"]

Now = Callable[[str], TaskSnapshot | None]
READ_ONLY = ~0o222


class ReplicaTask(TaskFiles):
    """One task that can also be a replica of another store's task."""

    def _current(self) -> Journal:
        """While frozen, use the journal alone: the document is only checked for late writes."""
        if not self._shared.frozen():
            return super()._current()
        self.journal.refresh()
        if self.journal.is_empty:
            raise not_found(self.task_id)
        return self.journal

    def absorb_logs(self, *, current: bool = False) -> None:
        """Do nothing while frozen: the other store absorbs what others append."""
        if not self._shared.frozen():
            super().absorb_logs(current=current)

    # -- applying changes --------------------------------------------------------------------

    def follows(self, changes: Sequence[Change]) -> list[Change]:
        """Return the changes that are not applied yet, in order; raises NotNext at a gap."""
        self.journal.refresh()
        revision = self.journal.revision
        news = list[Change]()
        for change in changes:
            if not self.journal.is_empty and change.lineage != self.journal.lineage:
                raise _not_next(change, self.journal)
            if change.revision <= revision:
                known = self.journal.known_ids().get(change.changeset.id)
                if not news and (known is None or known[2] != change.digest):
                    raise _not_next(change, self.journal)
                continue
            if change.revision != revision + 1:
                raise _not_next(change, self.journal)
            news.append(change)
            revision = change.revision
        return news

    def apply_all(self, changes: Sequence[Change]) -> None:
        """Apply changes of this task in one write; raises NotNext, Busy or Unavailable."""
        try:
            with self._replicating() as fd:
                news = self.follows(changes)
                if news:
                    self._carry(fd, news)
        except OSError as error:
            raise self._typed(error) from error

    def commit_of(self, change: Change, *, replayed: bool) -> Commit:
        """Return the commit of an applied change."""
        return Commit(
            task_id=self.task_id,
            changeset_id=change.changeset.id,
            lineage=change.lineage,
            revision=change.revision,
            cursor=change.cursor,
            replayed=replayed,
        )

    def _carry(self, fd: int, news: list[Change]) -> None:
        journal = self.journal
        first = journal.is_empty
        after = TaskState.created_by(news[0].changeset) if first else _copy(journal.state)
        for change in news:
            for op in change.changeset.ops:
                after.apply(op, known=lambda *_: False)
        old = read_document(fd)
        written, document = self._document_for(after, old)
        digest = journal.hash if written is None else content_hash(written)
        lines = self._missing([(c.changeset, r) for c in news for r in histories_of(c.changeset)])
        intent = Intent(
            number=news[-1].cursor.number,
            epoch=self._shared.epoch(),
            journal=b"".join(self._line(c, digest, shown=c is news[-1]) for c in news),
            before=content_hash(old) if old else "",
            after=digest,
            patch=Patch.whole(b"") if written is None else Patch.between(old, written),
            lines=lines,
            creates=not old,
        )
        self._intent.write(intent)
        self._logs.append(lines)
        self._put_document(fd, intent)
        self._journal(intent, appended=True)
        if written is not None:
            self._know(digest, document, written)
        with suppress(OSError):
            journal.rebase(os.fstat(fd).st_size)

    def _document_for(self, after: TaskState, old: bytes) -> tuple[bytes | None, dict[str, Any]]:
        """Return the document's text for a state, None if it need not change, and its value."""
        state, there = self.journal.state, self._try_decode(old)
        if there is not None and state is not None and shown(state) == shown(after):
            return None, {}
        self._shared.documents.drop(self.task_id)
        document: dict[str, Any] = {} if there is None else json_text.parse(old)
        before = TaskState(after.task) if there is None else there
        wanted = self._without_file_handovers(after, before)
        encode(before, wanted, document, times=self._shared.times)
        return text_over(old, document), document

    def _line(self, change: Change, digest: str, *, shown: bool) -> bytes:
        return self.journal.change_line(
            change.changeset,
            digest=change.digest,
            text=dump_changeset(change.changeset).decode(),
            number=change.cursor.number,
            hash_after=digest,
            logs={},
            lineage=change.lineage,
            trim_to=None,
            revision=change.revision,
            shown=shown,
        )

    def _missing(self, records: list[tuple[Changeset, History]]) -> tuple[AppendedLine, ...]:
        """Return the lines that are in no log: most were appended when they were committed."""
        there = self._logs.keys_behind(self.journal)
        out: list[AppendedLine] = []
        for changeset, record in records:
            if (KINDS[type(record)], record_key(record)) not in there:
                out += self._logs.plan(changeset, [record], after=tuple(out))
        return tuple(out)

    # -- replacing the whole task ------------------------------------------------------------

    def replace_with(
        self, snapshot: TaskSnapshot, histories: Iterable[History], feed: tuple[Change, ...]
    ) -> None:
        """See Replica.replace; raises Busy or Unavailable."""
        try:
            with self._replicating() as fd:
                here = self.journal
                if here.lineage == snapshot.lineage and here.revision > snapshot.revision:
                    return
                self._set(fd, snapshot, histories, feed)
        except OSError as error:
            raise self._typed(error) from error

    def _set(
        self,
        fd: int,
        snapshot: TaskSnapshot,
        histories: Iterable[History],
        feed: tuple[Change, ...],
    ) -> None:
        old, after = read_document(fd), TaskState.of(snapshot)
        written, document = self._document_for(after, old)
        digest = self.journal.hash if written is None else content_hash(written)
        fresh = Journal(
            self.journal.path, self.task_id, self._shared.sync, self._shared.sync_folder
        )
        fresh.lineage, fresh.revision = snapshot.lineage, snapshot.revision
        fresh.held, fresh.hash, fresh.updated_at = after, digest, snapshot.updated_at
        fresh.foreign_agents = self.journal.foreign_agents
        fresh.number = feed[-1].cursor.number if feed else self.journal.number
        fresh.floor, fresh.expired_before = forgotten_by(
            feed, last_number=fresh.number, updated_at=snapshot.updated_at
        )
        by_id = {
            (KINDS[type(r)], record_key(r)): c.changeset
            for c in feed
            for r in histories_of(c.changeset)
        }
        keys, apart = set[tuple[Kind, str]](), list[History]()
        missing: list[tuple[Changeset | None, History]] = []
        there = self._logs.keys_behind(
            Journal(fresh.path, self.task_id, fresh.sync, fresh.sync_folder)
        )
        for record in histories:
            key = KINDS[type(record)], record_key(record)
            keys.add(key)
            fresh.counts[key[0]] = fresh.counts.get(key[0], 0) + 1
            if key not in by_id:
                apart.append(record)
            if key not in there:
                missing.append((by_id.get(key), record))
        for changeset, record in missing:
            self._logs.append(self._logs.plan(changeset, [record]))
        fresh.read_upto = self._logs.known_upto(fresh, keys)
        aside = self.journal.path.with_suffix(".new")
        self._shared.write_file(aside, fresh.whole(apart, feed))
        intent = Intent(
            number=fresh.number,
            epoch=self._shared.epoch(),
            journal=b"",
            before=content_hash(old),
            after=digest,
            patch=Patch.whole(b"") if written is None else Patch.between(old, written),
        )
        if written is not None:
            self._intent.write(intent)
            self._put_document(fd, intent)
        self._swap_journal()
        if written is not None:
            self._know(digest, document, written)

    def _swap_journal(self) -> None:
        aside = self.journal.path.with_suffix(".new")
        if aside.exists():
            aside.rename(self.journal.path)
            self._shared.sync_folder(aside.parent)
        if self._intent.exists():
            self._intent.clear()
        self.journal.refresh()

    # -- recovery ----------------------------------------------------------------------------

    def _resolve(self, fd: int, data: bytes) -> None:
        intent = self._intent.read()
        if intent is None or intent.journal:
            super()._resolve(fd, data)
            return
        found = content_hash(data)
        if found != intent.after and (found == intent.before or not intent.is_torn(data)):
            self.journal.path.with_suffix(".new").unlink(missing_ok=True)
            self._intent.clear()
            return
        if intent.after != intent.before:
            whole = data if found == intent.after else intent.patch.applied(data)
            self._complete(fd, intent, data, whole)
        self._swap_journal()

    def _journal(self, intent: Intent, *, appended: bool = False) -> None:
        """Journal an intent; while frozen, only known log lines then count as read.

        The other store absorbs the lines that others appended.
        """
        if not self._shared.frozen():
            super()._journal(intent, appended=appended)
            return
        if not appended:
            self._logs.append(intent.lines, again=True)
        lines = intent.journal.splitlines(keepends=True)
        keys = set(self.journal.history_ids())
        for line in lines:
            changeset = changeset_from(json_text.parse_trusted(line)["cs"])
            keys |= {(KINDS[type(r)], record_key(r)) for r in histories_of(changeset)}
        offsets = json_text.dump(self._logs.known_upto(self.journal, keys))
        # After a kill between several lines, the first ones are there already.
        rest = b"".join(line for line in lines if not self._is_known(line))
        self.journal.append(rest.replace(b'"logs":{}', b'"logs":' + offsets, 1))
        self._intent.clear()

    # -- frozen ------------------------------------------------------------------------------

    @contextmanager
    def _replicating(self) -> Iterator[int]:
        """Lock the document for writing our copy, creating it if it is missing.

        A late write is first kept in ``.registry/conflicts``.
        """
        with self._lock.held() as deadline:
            self.journal.refresh()
            if not self._document.exists():
                self._make_folders()
                with self._created(deadline) as fd:
                    if self._intent.exists():
                        self._resolve(fd, b"")
                    yield fd
                self.set_writable(self._document, writable=not self._shared.frozen())
                return
            with self._opened(deadline) as fd:
                self._guard(fd, None)
                yield fd

    @staticmethod
    def set_writable(path: os.PathLike[str], *, writable: bool, mode: int | None = None) -> None:
        """Make a file read-only or writable for its owner, or give it its earlier ``mode`` again.

        Missing files and links are skipped, and so is a file that is writable already.
        """
        with suppress(FileNotFoundError):
            found = os.lstat(path).st_mode
            if not stat.S_ISREG(found):
                return
            if writable and found & 0o200 and not _left_open(found, mode):
                return
            wanted = found & READ_ONLY
            if writable:
                wanted = found | 0o200 if mode is None else mode
            if stat.S_IMODE(found) != stat.S_IMODE(wanted):
                os.chmod(path, stat.S_IMODE(wanted))  # noqa: PTH101  (through the descriptor's path)

    def look(self, now: Now, *, stranger: str | None = None) -> LateWrite | None:
        """Keep a late write to the frozen document, or a document created late; None: nothing.

        ``stranger``: the hash of a document from before the freeze that no task was read from.
        """
        stamp = stat_stamp(self._document)
        if stamp is None or self._is_proven(stamp):
            return None
        self.journal.refresh()
        with suppress(FileNotFoundError), self._held() as fd:
            stamp, found = stamp_of(fd), content_hash(read_document(fd))
            if self.journal.is_empty and (found == stranger or self._is_template(found)):
                return None
            # An interrupted rollback left it writable.
            is_open = os.fstat(fd).st_mode & ~READ_ONLY
            if not self.journal.is_empty and found == self.journal.hash and not is_open:
                self._proven = (stamp, found)
                return None
        with (
            suppress(FileNotFoundError),
            self._lock.held() as deadline,
            self._opened(deadline) as fd,
        ):
            found_late = self._guard(fd, now)
            os.fchmod(fd, stat.S_IMODE(os.fstat(fd).st_mode) & READ_ONLY)
            return found_late
        return None

    @contextmanager
    def _held(self) -> Iterator[int]:
        """Lock the document for reading it, as legacy programs do; raises Busy, OSError."""
        fd = open_inside(self._document)
        try:
            lock_document(fd, self._document, time.monotonic() + patience(self._shared.timeout))
            yield fd
        finally:
            os.close(fd)

    def _guard(self, fd: int, now: Now | None) -> LateWrite | None:
        """Under its locks: settle what a kill left, keep a late write, restore the frozen text."""
        self.journal.refresh()
        if self._intent.exists():
            self._resolve(fd, read_document(fd))
        stamp = stamp_of(fd)
        if self._is_proven(stamp):
            return None
        data = read_document(fd)
        found = content_hash(data)
        if not self.journal.is_empty and found == self.journal.hash:
            self._proven = (stamp, found)
            return None
        lost = self.journal.is_empty and self._is_template(found)
        late_write = None if lost else self._put_aside(data, found, now)
        if not self.journal.is_empty:
            self._restore_frozen(fd, data)
            self._proven = (stamp_of(fd), self.journal.hash)
        return late_write

    def _is_template(self, found: str) -> bool:
        """Return whether the document is as before the freeze, though its journal was lost."""
        try:
            return content_hash(self._base.read_bytes()) == found
        except OSError:
            return False

    def _put_aside(self, data: bytes, found: str, now: Now | None) -> LateWrite | None:
        """Keep a late write's bytes, once, with what it changed compared with the current state."""
        shared = self._shared
        name = f"{self.task_id}.straggler-{found[:12]}"
        path = shared.folder("conflicts") / f"{name}.json"
        if path.with_suffix(".report").exists() or not data:
            return None
        theirs, frozen = self._try_decode(data), self.journal.state
        current = now(self.task_id) if now is not None else None
        changes = _three_way(frozen, theirs, current)
        shared.replace_file(path, data)  # atomically; again while its report is missing
        report = {
            "task_id": self.task_id,
            "at": shared.now().isoformat(),
            "what": "written by another program after the cut-over",
            "revision": None if current is None else current.revision,
            "changes": list(changes),
        }
        shared.replace_file(path.with_suffix(".report"), json_text.dump(report, indent=True))
        return LateWrite(task_id=self.task_id, kept=str(path), changes=changes)

    def _restore_frozen(self, fd: int, data: bytes) -> None:
        try:
            frozen = self._base.read_bytes()
        except OSError:
            frozen = b""
        if content_hash(frozen) == self.journal.hash:
            write_in_place(fd, Patch.whole(frozen), sync=self._shared.sync)
        else:
            self._rebuild(fd)


def _left_open(found: int, mode: int | None) -> bool:
    """Return whether only the owner may write a file: a killed ``open_frozen`` left it so."""
    return mode is not None and stat.S_IMODE(found) & ~0o200 == mode & READ_ONLY


def _three_way(
    frozen: TaskState | None, theirs: TaskState | None, now: TaskSnapshot | None
) -> tuple[str, ...]:
    """Describe what a late write changed in the frozen text, and its conflicts with ``now``."""
    if theirs is None:
        return ("it does not parse as a registry",)
    if frozen is None:
        return (f"a new registry with {len(theirs.agents)} agent(s)",)
    found = merge(frozen, frozen, theirs, foreign_agents=set())
    against = merge(frozen, TaskState.of(now), theirs, foreign_agents=set()) if now else None
    lines = [f"changed {_named(op)}" for op in found.ops] + found.conflicts
    if against is not None:
        lines += [f"against the current state: {c}" for c in against.conflicts]
    return tuple(lines)


def _named(op: Any) -> str:
    record = getattr(op, "record", None)
    return (
        f"{op.kind} {op.key}" if record is None else f"{KINDS[type(record)]} {record_key(record)}"
    )


def _copy(state: TaskState | None) -> TaskState:
    assert state is not None
    return state.copy()


def _not_next(change: Change, journal: Journal) -> RegistryError:
    return NotNext(
        f"task {change.changeset.task_id} is at {(journal.lineage, journal.revision)}, the change "
        f"is {change.revision}",
        next_step="Replay the other store's feed from the replication position",
    )
