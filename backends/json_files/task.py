"""One task in its files: everything that happens under its locks.

A write: intent (durable) -> lines appended -> document in place -> journal line -> intent emptied.
Whoever comes next, holding the document's lock, finds one of five cases and settles it
(``_resolve``).
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, NoReturn

from backends.files import Problem
from backends.json_files.cache import Cached
from backends.json_files.handovers import read_handovers
from backends.json_files.inplace import is_torn_write, write_in_place
from backends.json_files.intent import Intent, IntentFile
from backends.json_files.journal import Journal, histories_of
from backends.json_files.layout import load_document
from backends.json_files.lens.document import decode, encode
from backends.json_files.logs import TaskLogs
from backends.json_files.merge import differing, merge, nearest, shows
from backends.json_files.patch import Patch
from backends.json_files.shared import Shared
from backends.json_files.stamp import Stamp, stamp_of, stat_stamp
from backends.json_files.task_lock import TaskLock
from registry_api import jsontext
from registry_api.changeset import (
    Accepted,
    Changeset,
    Commit,
    FeedCursor,
    Limits,
    Op,
    Put,
    accepted,
    changeset_from,
    new_changeset,
)
from registry_api.errors import (
    Conflict,
    CorruptDocument,
    IdempotencyMismatch,
    OutcomeUnknown,
    RegistryError,
    TaskNotFound,
    Unavailable,
)
from registry_api.models import Finding, Kind, ProgressEntry
from registry_api.retention import check_fresh
from registry_api.state import TaskState

__all__ = ["FOREIGN", "TaskFiles"]

FOREIGN = "foreign"
_PENDING = 15.0
_LATE_FLUSH = 0.2
_BATCH = 500
_FOLDERS = ("progress", "findings", "logs", "")
_NO_PATCH = Patch.whole(b"")
_NO_LOGS = b'"logs":{}'
_UNLIMITED = Limits(ops=10**9, changeset_bytes=2**40)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class TaskFiles:
    """One task; thread-safe, and safe beside other processes and older programs."""

    def __init__(self, shared: Shared, task_id: str) -> None:
        self.task_id = task_id
        self._shared = shared
        self._document = shared.layout.document(task_id)
        folder = shared.folder("json")
        self.journal = Journal(folder / f"{task_id}.journal", task_id, shared.sync)
        self._base = folder / f"{task_id}.base"
        self._intent = IntentFile(shared.folder("intents") / task_id, sync=shared.sync)
        self._lock = TaskLock(folder / f"{task_id}.lock", self._document, timeout=shared.timeout)
        self._logs = TaskLogs(shared, task_id)
        self._proven: tuple[Stamp, str] | None = None

    # -- reading -----------------------------------------------------------------------------

    def current(self) -> Journal:
        """Return the journal when it tells the document's present state, settling it if need be.

        Raises TaskNotFound where there is no task, CorruptDocument, Busy or Unavailable.
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
        if not self._is_current():
            with self._lock.held() as deadline:
                self._settled(deadline)
        if self.journal.state is None:
            raise _not_found(self.task_id)
        return self.journal

    def _is_current(self) -> bool:
        stamp = stat_stamp(self._document)
        if stamp is None or not self._is_proven(stamp):
            return False
        try:
            size = os.stat(self.journal.path).st_size  # noqa: PTH116  (hot path)
        except FileNotFoundError:
            return False
        return size == self.journal.size and not self._intent.exists()

    def histories(self, kind: Kind) -> Iterator[ProgressEntry | Finding]:
        """Yield the history records of one kind, streaming."""
        self.absorb_logs()
        return self._logs.read(kind, dict(self.journal.logs))

    def absorb_logs(self, *, current: bool = False) -> None:
        """Take in whatever other programs did to the document, unless that was just done, or the
        logs.
        """
        journal = self.journal if current else self.current()
        if self._logs.grown(journal):
            with self._lock.held() as deadline:
                self._settled(deadline, thorough=True)

    def _settled(self, deadline: float, *, thorough: bool = False) -> None:
        """Settle the task under its side lock; a missing document is settled too."""
        try:
            with self._opened(deadline) as fd:
                self._settle(fd, thorough=thorough)
        except FileNotFoundError:
            self._settle_without_document(deadline)

    def _settle_without_document(self, deadline: float) -> None:
        """No document: carry a creation through, or drop what a killed writer left."""
        self.journal.refresh()
        if not self._intent.exists():
            return
        intent = self._intent.read()
        if intent is None or self._is_journaled(intent):
            self._intent.clear()
        elif intent.creates and self.journal.state is None:
            self._make_folders()
            with self._created(deadline) as fd:
                self._settle(fd)
        else:
            self._drop(intent)

    @contextmanager
    def _opened(self, deadline: float) -> Iterator[int]:
        """Lock the document; errors of the file system become typed ones."""
        try:
            with self._lock.document(deadline) as fd:
                yield fd
        except (FileNotFoundError, RegistryError):
            raise
        except OSError as error:
            raise Unavailable(
                f"{self._document}: {error.strerror or error}", next_step="Check the file"
            ) from error

    # -- settling ----------------------------------------------------------------------------

    def _settle(self, fd: int, *, thorough: bool = False) -> None:
        """Resolve a pending intent and take in foreign writes: the journal then tells the state.

        ``thorough`` looks at the logs even where the document was not touched.
        """
        self.journal.refresh()
        if self._intent.exists():
            self._resolve(fd, _read(fd))
        if not self._is_proven(stamp_of(fd)):
            data = _read(fd)
            found = self._hash_of(data)
            if self.journal.state is None:
                self._adopt(data, found)
            elif found != self.journal.hash:
                self._absorb(fd, data, found)
                thorough = True
            self._prove(fd)
        if thorough:
            self._absorb_logs()

    def _hash_of(self, data: bytes) -> str:
        """Return the hash of a document's bytes; most often they are known, and comparing is faster
        than hashing.
        """
        cached = self._shared.documents.get(self.task_id)
        return cached.hash if cached is not None and cached.data == data else _hash(data)

    def _know(self, found: str, document: dict[str, Any], data: bytes) -> None:
        self._shared.documents.put(self.task_id, Cached(found, document, data))

    def _is_proven(self, stamp: Stamp) -> bool:
        if self._proven is None or self.journal.state is None:
            return False
        known, content = self._proven
        return known.proves(stamp) and content == self.journal.hash

    def _prove(self, fd: int) -> None:
        """Note that the file, as it is now, has the content the journal says."""
        self._proven = (stamp_of(fd), self.journal.hash)

    def _resolve(self, fd: int, data: bytes) -> None:
        """Settle what a killed writer left: finish it, drop it, or keep out of a foreign write."""
        intent = self._intent.read()
        if intent is None or self._is_journaled(intent):
            self._intent.clear()
            return
        found = _hash(data)
        if intent.epoch != self._shared.epoch():
            self._drop(intent)
        elif intent.after == found or (intent.creates and not data):
            self._finish(fd, intent, data, found)
        elif intent.before == found:
            self._drop(intent)
        else:
            self._resolve_foreign(fd, intent, data, found)

    def _resolve_foreign(self, fd: int, intent: Intent, data: bytes, found: str) -> None:
        """The file is neither what the killed writer found nor what it was to leave."""
        theirs = self._try_decode(data)
        if theirs is None:
            # Killed as soon as it had made room, ours left the old text and zeros behind it.
            ours = is_torn_write(data) or _hash(data.rstrip(b"\x00")) == intent.before
            if data and not ours:
                self._shared.keep("quarantine", f"{self.task_id}.json", data)
            self._finish(fd, intent, data, found)
        elif self._shows(intent, theirs):
            self._journal(intent)
        else:
            self._drop(intent)

    def _is_journaled(self, intent: Intent) -> bool:
        changeset = uuid.UUID(jsontext.parse_trusted(intent.journal)["id"])
        return changeset in self.journal.known_ids()

    def _finish(self, fd: int, intent: Intent, data: bytes, found: str) -> None:
        """Carry the write through: it is durable in the intent, and may have been seen.

        Where another program overwrote what the write would have left as it was, the document is
        made anew from the records.
        """
        whole = data if found == intent.after else intent.patch.applied(data)
        if _hash(whole) != intent.after:
            self._journal(intent)
            self._rebuild(fd)
            return
        if whole is not data:
            write_in_place(fd, Patch.whole(whole), sync=self._shared.sync)
        self._journal(intent)

    def _journal(self, intent: Intent, *, appended: bool = False) -> None:
        """Append the lines and the journal line, and be done with the intent."""
        if not appended:
            self._logs.append(intent.lines, again=True)
        offsets, whole = self._logs.offsets_after(self.journal, intent.lines)
        logs = b'"logs":' + jsontext.dump(offsets)
        self.journal.append(intent.journal.replace(_NO_LOGS, logs, 1))
        self._intent.clear()
        if not whole:
            self._absorb_logs()

    def _drop(self, intent: Intent) -> None:
        self._logs.remove(intent.lines)
        self._intent.clear()

    def _shows(self, intent: Intent, theirs: TaskState) -> bool:
        """Whether a foreign write was made on top of ours: then ours happened."""
        before = self.journal.state
        if before is None:
            return True
        changeset = changeset_from(jsontext.parse_trusted(intent.journal)["cs"])
        after = before.copy()
        for op in changeset.ops:
            after.apply(op, known=lambda *_: False)
        return shows(before, after, theirs)

    def _try_decode(self, data: bytes) -> TaskState | None:
        try:
            document = load_document(data, path=self._document, task_id=self.task_id)
        except CorruptDocument:
            return None
        return self._decode(document)

    def _decode(self, document: dict[str, Any]) -> TaskState:
        problems: list[Problem] = []
        return decode(
            document,
            task_id=self.task_id,
            times=self._shared.times,
            path=self._document,
            problems=problems,
        )

    # -- foreign writes ----------------------------------------------------------------------

    def _adopt(self, data: bytes, found: str) -> None:
        """Take a task in that was never seen before: its records, then its histories."""
        try:
            document = load_document(data, path=self._document, task_id=self.task_id)
        except CorruptDocument as error:
            age = time.time() - self._document.stat().st_mtime
            if age < _PENDING:
                raise Unavailable(
                    f"{error.message} (being written {age:.0f} s ago)", next_step="Try again soon"
                ) from None
            raise
        state = self._decode(document)
        folder = self._shared.layout.folder(self.task_id)
        for handover in read_handovers(folder, state, times=self._shared.times, problems=[]):
            state.handovers.setdefault(handover.handover_id, handover)
        ops: list[Op] = [
            Put(record)
            for kind in Kind
            if kind not in {Kind.PROGRESS, Kind.FINDING}
            for record in state.records(kind)
        ]
        self._shared.replace_file(self._base, data)
        self._commit_foreign(ops, expected=0, before="", after=found)
        self._know(found, document, data)
        self._absorb_logs()
        self._keep_adopted(state, found)

    def _keep_adopted(self, adopted: TaskState, found: str) -> None:
        """Let the document's status stand: lines of ours in a log are older than what it says."""
        state = self.journal.state
        assert state is not None
        ops: list[Op] = []
        for key, agent in adopted.agents.items():
            now = state.agents[key]
            if (now.status, now.progress) != (agent.status, agent.progress):
                seen = max((m for m in (now.last_update, agent.last_update) if m), default=None)
                ops.append(Put(replace(agent, last_update=seen)))
        if ops:
            self._commit_foreign(ops, expected=self.journal.revision, before=found, after=found)

    def _absorb(self, fd: int, data: bytes, found: str) -> None:
        """Take a foreign write of the document in."""
        data, found = self._whole(fd, data, found)
        ours = self.journal.state
        assert ours is not None
        try:
            document = load_document(data, path=self._document, task_id=self.task_id)
        except CorruptDocument:
            self._restore(fd, data)
            return
        theirs = self._decode(document)
        if not differing(ours, theirs):
            self.journal.append(self.journal.same_line(found, self._shared.now(), logs={}))
            self._shared.replace_file(self._base, data)
            self._know(found, document, data)
            return
        recent = [r.state for r in reversed(self.journal.recent)]
        base = nearest(theirs, recent or [ours])
        merged = merge(
            base,
            ours,
            theirs,
            foreign_agents=self.journal.foreign_agents,
            sure=self.journal.is_whole(self._shared.now()),
        )
        after = ours.copy()
        for op in merged.ops:
            after.apply(op, known=lambda *_: False)
        self._shared.replace_file(self._base, data)
        if merged.conflicts:
            self._keep_conflict(data, merged.conflicts)
        if not differing(after, theirs):
            before = self.journal.hash
            self._commit_foreign(
                merged.ops, expected=self.journal.revision, before=before, after=found
            )
            self._know(found, document, data)
            return
        encode(
            theirs, self._without_file_handovers(after, theirs), document, times=self._shared.times
        )
        written = jsontext.dump(document, indent=True)
        change = self._foreign_changeset(
            merged.ops or [Put(after.task)],
            expected=self.journal.revision,
            before=found,
            after=_hash(written),
        )
        self._write(fd, change, before=found, old=data, data=written)
        self._know(self.journal.hash, document, written)

    def _without_file_handovers(self, after: TaskState, theirs: TaskState) -> TaskState:
        """Leave out handovers that lie in files of their own: they belong in no document."""
        out = after.copy()
        stems = {p.stem for p in (self._document.parent / "handovers").glob("*.md")}
        for key in stems - theirs.handovers.keys():
            out.handovers.pop(key, None)
        return out

    def _whole(self, fd: int, data: bytes, found: str) -> tuple[bytes, str]:
        """Give a torn document a moment: some older programs unlock before their last flush."""
        deadline = time.monotonic() + _LATE_FLUSH
        while self._try_decode(data) is None and time.monotonic() < deadline:
            if time.time_ns() - os.fstat(fd).st_mtime_ns > _LATE_FLUSH * 1e9:
                break
            time.sleep(0.005)
            data = _read(fd)
            found = _hash(data)
        return data, found

    def _restore(self, fd: int, data: bytes) -> None:
        """Put back a document that another program tore: its bytes are kept, the state is ours."""
        self._shared.keep("quarantine", f"{self.task_id}.json", data)
        self._rebuild(fd)

    def _rebuild(self, fd: int) -> None:
        """Write the document anew from the records, over the last one that was seen whole."""
        state = self.journal.state
        assert state is not None
        try:
            base = self._base.read_bytes()
            document = load_document(base, path=self._base, task_id=self.task_id)
            before = self._decode(document)
        except (OSError, CorruptDocument):
            document, before = {}, TaskState(state.task)
        encode(
            before, self._without_file_handovers(state, before), document, times=self._shared.times
        )
        written = jsontext.dump(document, indent=True)
        write_in_place(fd, Patch.whole(written), sync=self._shared.sync)
        if _hash(written) != self.journal.hash:
            line = self.journal.same_line(_hash(written), self._shared.now(), logs={})
            self.journal.append(line)
        self._know(self.journal.hash, document, written)

    def _keep_conflict(self, data: bytes, conflicts: list[str]) -> None:
        name = f"{self.task_id}.{self.journal.revision}"
        self._shared.keep("conflicts", f"{name}.json", data)
        report = {
            "task_id": self.task_id,
            "revision": self.journal.revision,
            "at": self._shared.now().isoformat(),
            "conflicts": conflicts,
        }
        self._shared.keep("conflicts", f"{name}.report", jsontext.dump(report, indent=True))

    def _absorb_logs(self) -> None:
        """Take in the lines that other programs appended, as history and signs of life."""
        records, offsets = self._logs.unread(self.journal)
        if not offsets:
            return
        if not records:
            now = self._shared.now()
            self.journal.append(self.journal.same_line(self.journal.hash, now, logs=offsets))
        batches = [records[n : n + _BATCH] for n in range(0, len(records), _BATCH)]
        for place, batch in enumerate(batches):
            last = place == len(batches) - 1
            self._commit_foreign(
                [Put(r) for r in batch],
                expected=None,
                before=self.journal.hash,
                after=self.journal.hash,
                logs=offsets if last else {},
            )

    def _commit_foreign(
        self,
        ops: list[Op],
        *,
        expected: int | None,
        before: str,
        after: str,
        logs: dict[str, int] | None = None,
    ) -> None:
        """Journal a foreign change that is in the files already."""
        change = self._foreign_changeset(ops, expected=expected, before=before, after=after)
        numbers = self._shared.numbers
        with numbers.locked():
            number = numbers.draw()
            self._intent.reserve(number)
        line = self.journal.change_line(
            change.changeset,
            digest=change.digest,
            text=change.text,
            number=number,
            hash_after=after,
            logs=logs or {},
            lineage=self.journal.lineage or str(uuid.uuid4()),
            trim_to=None,
        )
        self.journal.append(line)
        self._intent.clear()

    def _foreign_changeset(
        self, ops: list[Op], *, expected: int | None, before: str, after: str
    ) -> Accepted:
        """Return the changeset of a foreign change; its id follows from what it did."""
        journal = self.journal
        seed = f"{journal.lineage} {self.task_id} {journal.revision + 1} {before} {after}"
        digest = bytearray(hashlib.sha256(seed.encode()).digest()[:16])
        digest[6] = digest[6] & 0x0F | 0x80
        digest[8] = digest[8] & 0x3F | 0x80
        changeset = new_changeset(
            self.task_id,
            ops,
            expected=expected,
            actor=FOREIGN,
            at=self._shared.now(),
            changeset_id=uuid.UUID(bytes=bytes(digest)),
        )
        return accepted(changeset, _UNLIMITED, derived=True)

    # -- writes of ours ----------------------------------------------------------------------

    def commit(self, change: Accepted) -> tuple[Commit, bool]:
        """Commit a changeset; returns the commit and whether counts may have changed.

        Raises what RegistryStore.commit does.
        """
        try:
            return self._commit(change)
        except OSError as error:
            raise self._typed(error) from error

    def _commit(self, change: Accepted) -> tuple[Commit, bool]:
        with self._lock.held() as deadline:
            if not self._document.exists():
                self._settled(deadline)  # a creation that was killed is carried through
            new = self.journal.state is None and not self._document.exists()
            if new and change.changeset.expected == 0:
                done = self._create(change, deadline)
                if done is not None:
                    return done, True
            try:
                with self._opened(deadline) as fd:
                    return self._commit_locked(fd, change)
            except FileNotFoundError:
                return self._commit_without_document(change), False

    def _commit_without_document(self, change: Accepted) -> Commit:
        before = self._replayed(change)
        if before is not None:
            return before
        if self.journal.state is not None:
            raise Unavailable(
                f"the document of task {self.task_id} has vanished",
                next_step="Put its folder back; what the registry knows of it is kept",
            )
        if change.changeset.expected is None:
            raise _not_found(self.task_id)
        raise Conflict(self.task_id, expected=change.changeset.expected, actual=0)

    def _replayed(self, change: Accepted) -> Commit | None:
        known = self.journal.known_ids().get(change.changeset.id)
        if known is None:
            return None
        revision, number, digest = known
        if digest != change.digest:
            raise IdempotencyMismatch(
                f"changeset {change.changeset.id} was committed with other content",
                next_step="Make a new changeset for a new change",
            )
        return self._commit_of(change.changeset, revision, number, replayed=True)

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

    def _commit_locked(self, fd: int, change: Accepted) -> tuple[Commit, bool]:
        self._settle(fd)
        journal, changeset = self.journal, change.changeset
        replayed = self._replayed(change)
        if replayed is not None:
            return replayed, False
        check_fresh(changeset, journal.expired_before, now=self._shared.now())
        lines = self._logs.plan(changeset, histories_of(changeset))
        if lines and self._logs.unread(journal, lines)[1]:
            self._absorb_logs()  # what was appended first comes first
        if changeset.expected is not None and changeset.expected != journal.revision:
            raise Conflict(self.task_id, expected=changeset.expected, actual=journal.revision)
        before = journal.state
        assert before is not None
        after = self._after(before, changeset)
        old, written = b"", None
        if _shown(before) != _shown(after):
            _, document, old = self._document_of(fd)
            # Until it is written: a refusal must not leave it changed.
            self._shared.documents.drop(self.task_id)
            encode(before, after, document, times=self._shared.times)
            written = jsontext.dump(document, indent=True)
        revision = journal.revision + 1  # lines that others append meanwhile are revisions after it
        number = self._write(fd, change, before=journal.hash, old=old, data=written)
        if written is not None:
            self._know(journal.hash, document, written)
        self._prove(fd)
        journal.rebase(os.fstat(fd).st_size)
        moved = _statuses_moved(before, after)
        return self._commit_of(changeset, revision, number), moved

    def _after(self, before: TaskState, changeset: Changeset) -> TaskState:
        after, fresh = before.copy(), set[tuple[Kind, str]]()
        needed = bool(histories_of(changeset))
        taken = self._logs.ids(self.journal) if needed else set[tuple[Kind, str]]()
        for op in changeset.ops:
            after.apply(op, known=lambda kind, key: (kind, key) in taken or (kind, key) in fresh)
            if isinstance(op, Put) and isinstance(op.record, ProgressEntry):
                fresh.add((Kind.PROGRESS, op.record.entry_id))
            elif isinstance(op, Put) and isinstance(op.record, Finding):
                fresh.add((Kind.FINDING, op.record.finding_id))
        return after

    def _document_of(self, fd: int) -> Cached:
        cached = self._shared.documents.get(self.task_id)
        if cached is not None and cached.hash == self.journal.hash:
            return cached
        data = _read(fd)
        return Cached(self.journal.hash, jsontext.parse_trusted(data), data)

    def _write(
        self, fd: int, change: Accepted, *, before: str, old: bytes, data: bytes | None
    ) -> int:
        """Write a change through the intent; ``data`` is the document after it, None: as it is,
        ``before`` and ``old`` are the hash and the bytes of the one before it.

        Returns its feed number. Raises Unavailable where nothing happened, OutcomeUnknown where it
        may have.
        """
        intent = self._prepare(change, before=before, old=old, data=data)
        try:
            self._logs.append(intent.lines)
        except OSError as error:
            self._give_up(intent, error)
        self._put_document(fd, intent)
        try:
            self._journal(intent, appended=True)
        except OSError as error:
            raise OutcomeUnknown(
                f"{self.journal.path}: {error}; the write is kept as an intent",
                next_step="Commit the same changeset again when the disk is well",
            ) from error
        return intent.number

    def _prepare(self, change: Accepted, *, before: str, old: bytes, data: bytes | None) -> Intent:
        """Make the intent durable, and room for the journal line; nothing else has begun."""
        journal, shared = self.journal, self._shared
        lines = self._logs.plan(change.changeset, histories_of(change.changeset))
        number = self._reserve()
        after = before if data is None else _hash(data)
        line = journal.change_line(
            change.changeset,
            digest=change.digest,
            text=change.text,
            number=number,
            hash_after=after,
            logs={},
            lineage=journal.lineage or str(uuid.uuid4()),
            trim_to=journal.trimmed(shared.now()),
        )
        intent = Intent(
            number=number,
            epoch=shared.epoch(),
            journal=line,
            before=before,
            after=after,
            patch=_NO_PATCH if data is None else Patch.between(old, data),
            lines=lines,
            creates=not before,
        )
        try:
            self._intent.write(intent)
            journal.make_room(len(line) + 64 * len(lines))
        except OSError as error:
            self._give_up(replace(intent, lines=()), error)
        return intent

    def _reserve(self) -> int:
        numbers = self._shared.numbers
        with numbers.locked():
            number = numbers.draw()
            self._intent.reserve(number)
        return number

    def _put_document(self, fd: int, intent: Intent) -> None:
        if intent.after == intent.before:
            return
        try:
            write_in_place(fd, intent.patch, sync=self._shared.sync)
        except OSError as error:
            if _hash(_read(fd)) == (intent.before or _hash(b"")):
                self._give_up(intent, error)
            raise OutcomeUnknown(
                f"{self._document}: {error.strerror}; the write is kept as an intent",
                next_step="Commit the same changeset again when the disk is well",
            ) from error

    def _give_up(self, intent: Intent, error: OSError) -> NoReturn:
        self._drop(intent)
        raise Unavailable(
            f"{self._document}: {error.strerror or error}; nothing was changed",
            next_step="Free space or check the disk, then try again",
        ) from error

    # -- creation ----------------------------------------------------------------------------

    def _create(self, change: Accepted, deadline: float) -> Commit | None:
        """Create the task; None where another program created it at the same moment.

        The intent is durable before the first name appears: a creation that is killed is carried
        through by whoever comes next, never left as an empty document.
        """
        check_fresh(change.changeset, None, now=self._shared.now())
        state = self._after(TaskState.created_by(change.changeset), change.changeset)
        document: dict[str, Any] = {}
        encode(TaskState(state.task), state, document, times=self._shared.times)
        data = jsontext.dump(document, indent=True)
        intent = self._prepare(change, before="", old=b"", data=data)
        try:
            self._make_folders()
            with self._created(deadline) as fd:
                try:
                    self._logs.append(intent.lines)
                    write_in_place(fd, intent.patch, sync=self._shared.sync)
                except OSError:
                    self._document.unlink()  # ours, empty or torn, and nobody else's yet
                    raise
                self._journal(intent, appended=True)
                self._prove(fd)
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
                next_step="Commit the same changeset again when the disk is well",
            ) from error
        self._drop(intent)
        for name in _FOLDERS:
            with suppress(OSError):
                (self._document.parent / name).rmdir()
        if isinstance(error, RegistryError):
            raise error
        raise Unavailable(
            f"{self._document}: {error.strerror or error}; nothing was changed",
            next_step="Free space or check the folder, then try again",
        ) from error

    def _make_folders(self) -> None:
        parent = self._document.parent
        if parent.is_symlink():
            raise Unavailable(
                f"{parent} is a link", next_step="Move it away; links are not followed"
            )
        for name in reversed(_FOLDERS):
            (parent / name).mkdir(parents=True, exist_ok=True)
        self._shared.sync_folder(self._shared.layout.workspace)

    @contextmanager
    def _created(self, deadline: float) -> Iterator[int]:
        with self._lock.document(deadline, create=True) as fd:
            self._shared.sync_folder(self._document.parent)
            yield fd

    def close(self) -> None:
        """Close the descriptors."""
        self._lock.close()


def _not_found(task_id: str) -> TaskNotFound:
    return TaskNotFound(f"there is no task {task_id}", next_step="list_tasks shows what there is")


def _read(fd: int) -> bytes:
    size = os.fstat(fd).st_size
    parts, offset = [], 0
    while offset < size:
        part = os.pread(fd, size - offset, offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
    return b"".join(parts)


def _shown(state: TaskState) -> TaskState:
    """What of a state a document holds."""
    return replace(state, latest={})


def _statuses_moved(before: TaskState, after: TaskState) -> bool:
    """Whether anything that counts are made of differs."""
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
