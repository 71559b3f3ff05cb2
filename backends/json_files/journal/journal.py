"""The journal of a task: its feed, its replay table and the hash of its document, in one file.

They share one file, so that a crash cannot make them disagree. A line is a JSON object:

``change``  a changeset as applied: ``r`` revision, ``n`` feed number, ``d`` digest, ``h`` hash of
            the document after it, ``logs`` how far the logs are read, ``cs`` the changeset
``same``    a foreign write that changed no record: only the document's hash
``base``    the whole state, so that a reader need not read the journal from its start
``history`` history records of a task that was replaced as a whole, which are not in its feed

So the journal holds every record. The logs are an export and an inbox; deleting them loses nothing.

Every line holds ``b``, the offset of the newest base line before it. A line is valid once its
newline is there; the next writer cuts off a line that a kill left incomplete. Lines are written
under the task's lock.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, cast

import orjson

from backends.json_files.document.writer import pwrite_all
from backends.json_files.merge import Key, touched
from registry_api.authoring import KEEP, KEEP_CHANGES
from registry_api.errors import CorruptDocument
from registry_api.records import (
    HISTORIES,
    KINDS,
    Change,
    Changeset,
    FeedCursor,
    Finding,
    Head,
    Kind,
    ProgressEntry,
    Put,
    TaskState,
    changeset_from,
    created_at,
    decode_record,
    dump,
    dump_changeset,
    encode_record,
    record_key,
    unstamp,
)
from registry_api.workspace import ForkSafeLock, open_owned

__all__ = ["FOREIGN", "History", "Journal", "Recent"]

History = ProgressEntry | Finding

FOREIGN = "foreign"  # the actor of a change that another program made

RECENT = timedelta(minutes=15)
_MOST_RECORDS = 500_000  # in all recent states together; they share the records themselves
_BASE_FACTOR = 4
_ATTEMPTS = 3
_MOST_PLACES = 10_000
_LONG_TAIL = 2**20  # after so many bytes appended by others, reading each line takes too long
_BASE = b'{"k":"base"'
_IDS_A_RECORD = 8  # so many ids take about the memory of one record
_IDS = re.compile(
    rb'^\{"k":"change","r":(\d+),"n":(\d+),"id":"([0-9a-f-]{36})","d":"([0-9a-f]{64})"'
)
# As encode_record writes them; inside a text the quotes would be escaped.
_HISTORY = re.compile(rb'"(progress|finding)",\{"task_id":"[^"]*","(?:entry|finding)_id":"([^"]+)"')
_MARKS = {kind: f'"{kind}",{{"task_id":'.encode() for kind in HISTORIES}
_KEEPING = (b'{"k":"change"', b'{"k":"history"')
_BATCH = 500  # records per history line


@dataclass(frozen=True, slots=True)
class Recent:
    """A recent state of the document.

    ``touched``: the records in which it may differ from the state before it.
    """

    revision: int
    at: datetime
    state: TaskState
    appends: bool
    touched: frozenset[Key]


class Stand(NamedTuple):
    """A task's state and its revision; immutable, and replaced as a whole."""

    lineage: str
    revision: int
    number: int
    updated_at: datetime
    state: TaskState


@dataclass(slots=True)
class Journal:
    """One task's journal, read up to ``size``; ``refresh`` reads what others appended."""

    path: Path
    task_id: str
    sync: Callable[[int], None]
    sync_folder: Callable[[Path], None]
    inode: int = -1
    size: int = 0
    base: int = -1
    base_number: int = 0  # the feed number at the newest base line
    lineage: str = ""
    revision: int = 0
    number: int = 0
    hash: str = ""
    is_synced: bool = False  # the text of ``hash`` is on disk; else a write syncs it first
    updated_at: datetime | None = None
    held: TaskState | None = None  # the current state; see ``state``
    stand: Stand | None = None  # for readers without the lock
    counts: dict[Kind, int] = field(default_factory=dict)
    read_upto: dict[str, int] | None = field(default_factory=dict)  # see ``logs``
    expired_before: datetime | None = None
    floor: int = 0
    oldest_kept: datetime | None = None
    _recent: deque[Recent] = field(default_factory=deque)
    _reaches_back: bool = False  # see ``recent``
    cut: datetime | None = None  # recent states up to here were dropped
    foreign_agents: set[str] = field(default_factory=set)
    ids: dict[uuid.UUID, tuple[int, int, str]] | None = None
    entry_ids: set[tuple[Kind, str]] | None = None
    lock: ForkSafeLock = field(default_factory=ForkSafeLock)
    _tail: int = 0
    _head: Head = field(default_factory=Head)
    _evicted: bool = False
    _unshown: set[Key] = field(default_factory=set)  # changed since the document last showed one
    _places: dict[int, int] = field(default_factory=dict)  # by feed number: end of its line

    @property
    def is_empty(self) -> bool:
        """Whether the journal, as far as it was read, holds no task."""
        return not self.lineage

    @property
    def state(self) -> TaskState | None:
        """The current state, None without a task; reloaded if it was evicted.

        Used under the task's lock, during which a task is never evicted.
        """
        if self._evicted:
            self._reload()
        return self.held

    @property
    def logs(self) -> dict[str, int]:
        """How far each generation of a log is read, in bytes."""
        while (found := self.read_upto) is None:
            self._reload()
        return found

    def present(self) -> Stand | None:
        """Return the task's state and revision, None without a task. Needs no lock."""
        stand = self.stand
        if stand is None and self._evicted:
            self._reload()
            stand = self.stand
        return stand

    def head(self) -> Head:
        """Return the task's head; the same object as long as it does not change."""
        stand, head = self.stand, self._head
        if stand is not None and (head.number, head.revision, head.lineage) != (
            stand.number,
            stand.revision,
            stand.lineage,
        ):
            head = Head(lineage=stand.lineage, revision=stand.revision, number=stand.number)
            self._head = head
        return head

    # -- eviction ----------------------------------------------------------------------------

    def weight(self) -> int:
        """Return roughly how many records it holds in memory."""
        state = self.held
        ids = len(self.ids or ()) + len(self.entry_ids or ())
        if state is None:
            return 1 + ids // _IDS_A_RECORD
        return len(state.agents) + len(state.phases) + len(state.verdicts) + ids // _IDS_A_RECORD

    def evict(self) -> None:
        """Drop what can be reloaded: nobody has used the task for a while."""
        if self.lock.acquire(timeout=0):
            try:
                self.ids, self.entry_ids = None, None
                self._places = {}
                if self.stand is not None:
                    self.head()
                    self._evicted = True
                    self.held, self.stand = None, None
                    self.read_upto = None
                    del self._recent, self.foreign_agents, self._unshown
            finally:
                self.lock.release()

    def _reload(self) -> None:
        with self.lock:
            if self._evicted:
                self._become(self._read_afresh())

    @property
    def recent(self) -> deque[Recent]:
        """The states of the last 15 minutes: a legacy program may have read any of them.

        Most callers never need them, so the journal is read from its newest base; the first use
        of this property reads it from an older base. Used under the task's lock.
        """
        with self.lock:
            if not self._reaches_back:
                self._become(self._read_afresh(reaches_back=True))
            return self._recent

    def _read_afresh(self, *, reaches_back: bool = False) -> Journal:
        fresh = Journal(
            self.path, self.task_id, self.sync, self.sync_folder, _reaches_back=reaches_back
        )
        with suppress(FileNotFoundError):
            found = self.path.stat()
            fresh.inode = found.st_ino
            same = (found.st_ino, found.st_size) == (self.inode, self.size)
            if same and self.base > 0 and not reaches_back:
                fresh.size = self.base
            fresh.read_on()
        return fresh

    def _become(self, fresh: Journal) -> None:
        """Take over what another Journal has read; readers see the old state or the new one."""
        for name in set(self.__slots__) - {"lock", "_head", "_evicted"}:
            setattr(self, name, getattr(fresh, name))
        if fresh.is_empty:
            self._head = Head()
        self._evicted = False

    def _skip_to_base(self) -> None:
        """Continue at the newest base, keeping the ids that are known.

        Others appended so much, as a rollback does, that reading each line would take too long.
        """
        size, ids, entry_ids = self.size, self.ids, self.entry_ids
        fresh = self._read_afresh()
        if fresh.inode == self.inode and entry_ids is not None:
            fresh.entry_ids = entry_ids | fresh.entries_behind(size)
        if fresh.inode == self.inode and ids is not None:
            fresh.ids = ids | fresh.ids_behind(size)
        self._become(fresh)

    # -- reading -----------------------------------------------------------------------------

    def refresh(self) -> None:
        """Read what was appended since; start again if the file was replaced.

        Takes a lock of its own, since callers may not hold the task's: a thread that follows the
        feed must not apply a line that the thread which has just written it applies as well.
        """
        with self.lock:
            self._refresh()

    def _refresh(self) -> None:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            if self.inode != -1:
                self._become(self._read_afresh())
            return
        replaced = found.st_ino != self.inode or found.st_size < self.size
        if replaced or (self._evicted and found.st_size > self.size):
            self._become(self._read_afresh())
        elif found.st_size > self.size + _LONG_TAIL:
            self._skip_to_base()
        elif found.st_size > self.size:
            self.read_on()

    def read_on(self) -> None:
        """Apply the lines after ``size``; raises CorruptDocument."""
        for attempt in range(_ATTEMPTS):
            try:
                self._read_on()
            except CorruptDocument:
                # Without the task's lock this may see a line that is just being written over an
                # incomplete one. A line that is really damaged stays so.
                if attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(0.002)
            else:
                return

    def _read_on(self) -> None:
        with self.path.open("rb") as file:
            if self.size == 0:
                try:
                    self.size = self._start(file)
                    self._reaches_back = self._reaches_back or self.size == 0
                except (ValueError, KeyError, TypeError) as error:
                    raise self._damaged(0, error) from None
            file.seek(self.size)
            for raw in file:
                # No line holds NUL: that is space reserved for a line being written.
                if not raw.endswith(b"\n") or b"\x00" in raw:
                    break
                self._read(raw, self.size)
                self.size += len(raw)

    def _start(self, file: Any) -> int:
        """Return the offset of the base line to start at: the newest, or one that is old enough."""
        file.seek(0, os.SEEK_END)
        end = file.tell()
        block = 4096
        while block < 2 * end:
            file.seek(max(0, end - block))
            lines = file.read().split(b"\n")
            # The last part follows the last newline: empty, or a line cut off by a kill.
            if len(lines) > 2 or (end <= block and len(lines) > 1):
                last = orjson.loads(lines[-2])
                own = end - len(lines[-1]) - len(lines[-2]) - 1
                newest = own if last["k"] == "base" else max(0, last["b"])
                file.seek(newest)
                if newest and file.read(len(_BASE)) != _BASE:
                    raise ValueError(f"no base line at byte {newest}, which the last line names")
                return self._base_before(file, newest, last) if self._reaches_back else newest
            block *= 4
        return 0

    def _base_before(self, file: Any, offset: int, last: dict[str, Any]) -> int:
        while offset > 0:
            file.seek(offset)
            line = orjson.loads(file.readline())
            if unstamp(last["at"]) - unstamp(line["at"]) > RECENT:
                break
            offset = max(0, line["b"])
        return offset

    def _read(self, raw: bytes, offset: int) -> None:
        try:
            line = orjson.loads(raw)
            self.take(line, offset=offset, length=len(raw))
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(offset, error) from None

    def _damaged(self, offset: int, error: Exception) -> CorruptDocument:
        return CorruptDocument(
            f"{self.path} at byte {offset}: {error}",
            next_step="Move it away: the task is then read again from its document",
            path=str(self.path),
        )

    def take(self, line: dict[str, Any], *, offset: int, length: int) -> None:
        """Apply one line to the state."""
        kind = line["k"]
        if kind == "history":
            return
        if kind == "base":
            self.base, self.base_number, self._tail = offset, line["n"], 0
            if self.held is not None:
                return
            self._take_base(line)
        elif kind == "change" and line["r"] <= self.revision:
            # The feed of a replaced task: it follows the base line, which already holds its state.
            self.number = max(self.number, line["n"])
        else:
            self._tail += length
            if line["h"] != self.hash:
                self.is_synced = kind == "change" and line["cs"]["actor"] != FOREIGN
            self.hash = line["h"]
            self.logs.update(line["logs"])
            if kind == "change":
                self._take_change(line)
        if self.held is not None and self.updated_at is not None:
            self.stand = Stand(self.lineage, self.revision, self.number, self.updated_at, self.held)

    def _take_base(self, line: dict[str, Any]) -> None:
        records = [decode_record(item) for item in line["state"]]
        task = next(r for r in records if KINDS[type(r)] is Kind.TASK)
        state = TaskState(task)  # type: ignore[arg-type]
        for record in records:
            state.apply(Put(record), known=lambda *_: False)
        state.latest = {}
        for item in line["latest"]:
            entry = decode_record(item)
            assert isinstance(entry, ProgressEntry)
            state.latest[entry.agent_id] = entry
        self.held = state
        self.lineage, self.revision, self.hash = line["l"], line["r"], line["h"]
        self.is_synced = line.get("w", False)
        self.number = line["n"]
        self.updated_at = unstamp(line["at"])
        self.counts = {Kind(k): n for k, n in line["counts"].items()}
        self.read_upto = dict(line["logs"])
        self.expired_before = unstamp(line["x"]) if line["x"] else None
        self.floor = line["f"]
        self.foreign_agents = set(line["fa"])
        self._remember(line["r"], self.updated_at, frozenset(), appends=False)

    def _take_change(self, line: dict[str, Any]) -> None:
        changeset = changeset_from(line["cs"])
        self.lineage, self.revision, self.number = line["l"], line["r"], line["n"]
        self.updated_at = changeset.at
        if line.get("x"):
            self.expired_before, self.floor = unstamp(line["x"]), line["f"]
        state = self.held.copy() if self.held else TaskState.created_by(changeset)
        for op in changeset.ops:
            state.apply(op, known=lambda *_: False)
            if isinstance(op, Put):
                kind = KINDS[type(op.record)]
                if kind in HISTORIES:
                    self.counts[kind] = self.counts.get(kind, 0) + 1
                    if self.entry_ids is not None:
                        self.entry_ids.add((kind, record_key(op.record)))
                elif kind is Kind.AGENT and changeset.actor == FOREIGN:
                    known = self.held.agents if self.held else {}
                    self.foreign_agents |= {record_key(op.record)} - known.keys()
        self.held = state
        if self.ids is not None:
            self.ids[changeset.id] = (line["r"], line["n"], line["d"])
        self._unshown |= touched(changeset)
        if not line.get("mid"):
            appends = changeset.expected is None
            self._remember(line["r"], changeset.at, frozenset(self._unshown), appends=appends)
            self._unshown = set()

    def _remember(
        self, revision: int, at: datetime, changed: frozenset[Key], *, appends: bool
    ) -> None:
        """Keep a state for ``recent``.

        Of a run of reports only the first and the last state are kept: reports are merged one by
        one anyway.
        """
        assert self.held is not None
        recent = self._recent
        if appends and recent and recent[-1].appends and len(recent) > 1 and recent[-2].appends:
            changed |= recent.pop().touched
        recent.append(Recent(revision, at, self.held, appends, changed))
        while len(recent) > 2 and at - recent[1].at > RECENT:
            recent.popleft()
        each = len(self.held.agents) + len(self.held.phases) + len(self.held.verdicts) + 10
        while len(recent) > max(64, _MOST_RECORDS // each):
            self.cut = recent.popleft().at

    def is_whole(self, now: datetime) -> bool:
        """Return whether ``recent``, read before, holds every state of the last 15 minutes."""
        return self.cut is None or now - self.cut > RECENT

    def known_ids(self) -> dict[uuid.UUID, tuple[int, int, str]]:
        """Return (revision, feed number, digest) by changeset id; read once per process."""
        ids = self.ids
        if ids is None:
            ids = self.ids = self.ids_behind(0)
        return ids

    def ids_behind(self, offset: int) -> dict[uuid.UUID, tuple[int, int, str]]:
        """Return the entries of ``known_ids`` for the lines after an offset."""
        ids = {}
        for raw, _ in self._lines(offset):
            found = _IDS.match(raw)
            if found and int(found[2]) > self.floor:
                key = uuid.UUID(found[3].decode())
                ids[key] = (int(found[1]), int(found[2]), found[4].decode())
        return ids

    def history_ids(self) -> set[tuple[Kind, str]]:
        """Return the ids of the task's progress entries and findings, read once per process."""
        if self.entry_ids is None:
            self.entry_ids = self.entries_behind(0)
        return self.entry_ids

    def entries_behind(self, offset: int) -> set[tuple[Kind, str]]:
        """Return the ids of ``history_ids`` in the lines after an offset."""
        return {
            (Kind(kind.decode()), key.decode())
            for raw, _ in self._lines(offset)
            if raw.startswith(_KEEPING)
            for kind, key in _HISTORY.findall(raw)
        }

    def histories(self, kind: Kind) -> Iterator[ProgressEntry | Finding]:
        """Yield the task's history records of one kind in the order of their commits, streaming."""
        mark = _MARKS[kind]
        for raw, _ in self._lines(0):
            if raw.startswith(_KEEPING) and mark in raw:
                line = orjson.loads(raw)
                puts = (
                    (op[1:] for op in line["cs"]["ops"] if op[0] == "put") if "cs" in line else ()
                )
                for item in (*line.get("records", ()), *puts):
                    if item[0] == kind:
                        yield cast(ProgressEntry | Finding, decode_record(item))

    def changes(self, feed_id: str, *, after: int, below: int) -> Iterator[Change]:
        """Yield the kept changes whose feed number is between the bounds, oldest first."""
        after = max(after, self.floor)
        start = self._places.get(after)
        if start is None:  # lines before a base have numbers up to the base's
            start = max(0, self.base) if after >= self.base_number > 0 else 0
        for raw, offset in self._lines(start):
            found = _IDS.match(raw)
            if found is None or not after < int(found[2]) < below:
                continue
            line = orjson.loads(raw)
            if len(self._places) > _MOST_PLACES:
                self._places.clear()
            self._places[line["n"]] = offset + len(raw)
            yield Change(
                cursor=FeedCursor(feed_id=feed_id, number=line["n"]),
                lineage=line["l"],
                revision=line["r"],
                changeset=changeset_from(line["cs"]),
                digest=line["d"],
            )

    def _lines(self, start: int) -> Iterator[tuple[bytes, int]]:
        offset = start
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                for raw in file:
                    if offset >= self.size:
                        return
                    yield raw, offset
                    offset += len(raw)
        except FileNotFoundError:
            return

    # -- writing -----------------------------------------------------------------------------

    def change_line(
        self,
        changeset: Changeset,
        *,
        digest: str,
        text: str,
        number: int,
        hash_after: str,
        logs: dict[str, int],
        lineage: str,
        trim_to: tuple[int, datetime] | None,
        revision: int | None = None,
        shown: bool = True,
    ) -> bytes:
        """Return the line of a change: of the next revision, unless ``revision`` is given.

        ``shown`` False: the document never held exactly this state, since several changes were
        written at once.
        """
        head = {
            "k": "change",
            "r": self.revision + 1 if revision is None else revision,
            "n": number,
            "id": str(changeset.id),
            "d": digest,
            "l": lineage,
            "h": hash_after,
            "at": changeset.at,
            "b": self.base,
            "logs": logs,
            "x": trim_to[1] if trim_to else None,
            "f": trim_to[0] if trim_to else 0,
            "cs": orjson.Fragment(text),
        }
        if not shown:
            head["mid"] = True
        return dump(head) + b"\n"

    def same_line(self, hash_after: str, at: datetime, *, logs: dict[str, int]) -> bytes:
        """Return the line of a foreign write that changed no record."""
        line = {"k": "same", "h": hash_after, "at": at, "b": self.base, "logs": logs}
        return dump(line) + b"\n"

    def _open(self) -> int:
        return open_owned(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)

    def make_room(self, size: int) -> None:
        """Reserve space for the next line, so that a full disk fails before the write.

        Readers ignore it: it has no newline.
        """
        fd = self._open()
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(fd, self.size, size)
        finally:
            os.close(fd)

    def give_room_back(self) -> None:
        """Cut off space that a killed or failed writer reserved and did not fill."""
        with suppress(FileNotFoundError):
            if os.stat(self.path).st_size > self.size:  # noqa: PTH116  (hot path)
                os.truncate(self.path, self.size)

    def append(self, data: bytes) -> None:
        """Append complete lines durably and apply them, overwriting what a kill left of one."""
        with self.lock:
            self._reload()
            self._append(data)

    def _append(self, data: bytes) -> None:
        fd = self._open()
        try:
            pwrite_all(fd, data, self.size)
            os.ftruncate(fd, self.size + len(data))
            self.sync(fd)
            self.inode = os.fstat(fd).st_ino
        finally:
            os.close(fd)
        if not self.size:
            self._reaches_back = True
            self.sync_folder(self.path.parent)
        for raw in data.splitlines(keepends=True):
            self.take(orjson.loads(raw), offset=self.size, length=len(raw))
            self.size += len(raw)

    def rebase(self, document_size: int) -> None:
        """Append a base line if the lines after the last one exceed four times the document."""
        if self._tail < _BASE_FACTOR * max(document_size, 4096):
            return
        self.append(self._base_line())

    def _base_line(self) -> bytes:
        state = self.held
        assert state is not None
        records = [
            encode_record(r) for kind in Kind if kind not in HISTORIES for r in state.records(kind)
        ]
        line = {
            "k": "base",
            "l": self.lineage,
            "r": self.revision,
            "n": self.number,
            "h": self.hash,
            "w": self.is_synced,
            "at": self.updated_at,
            "b": self.base,
            "state": records,
            "latest": [encode_record(e) for e in state.latest.values()],
            "counts": {str(kind): n for kind, n in self.counts.items()},
            "logs": self.logs,
            "x": self.expired_before,
            "f": self.floor,
            "fa": sorted(self.foreign_agents),
        }
        return dump(line) + b"\n"

    def whole(self, histories: list[ProgressEntry | Finding], feed: tuple[Change, ...]) -> bytes:
        """Return the text of a journal with this state and the feed that led to it.

        ``histories`` are the history records that are not in that feed.
        """
        self.base = -1
        base = self._base_line()
        self.base = 0
        batches = (histories[n : n + _BATCH] for n in range(0, len(histories), _BATCH))
        kept = [
            {
                "k": "history",
                "at": self.updated_at,
                "b": 0,
                "records": [encode_record(r) for r in batch],
            }
            for batch in batches
        ]
        return b"".join([base, *(dump(line) + b"\n" for line in kept)]) + b"".join(
            self.change_line(
                change.changeset,
                digest=change.digest,
                text=dump_changeset(change.changeset).decode(),
                number=change.cursor.number,
                hash_after=self.hash,
                logs={},
                lineage=change.lineage,
                trim_to=None,
                revision=change.revision,
            )
            for change in feed
        )

    def trimmed(self, now: datetime) -> tuple[int, datetime] | None:
        """Return (floor, latest id time) for the next change line if lines have expired, else None.

        The lines stay in the file; those up to the floor are no longer served.
        """
        oldest = now - KEEP
        # Above the limit a writer trims only once in a while, many lines at a time.
        surplus = 0 if self.revision % 256 else self.revision - KEEP_CHANGES
        if self.oldest_kept is not None and self.oldest_kept >= oldest and surplus <= 0:
            return None
        floor, expired = self.floor, self.expired_before
        newest = max((n for _, n, _ in self.known_ids().values()), default=0)
        for key, (revision, number, _) in sorted(self.known_ids().items(), key=lambda i: i[1][1]):
            created = created_at(key)
            if created is None:
                continue  # the id of a foreign change has no time: it expires with the next one
            self.oldest_kept = min(created, now)
            if number == newest or not (created < oldest or revision <= surplus):
                break
            floor = max(floor, number)
            expired = max(self.oldest_kept, expired or self.oldest_kept)
        if floor == self.floor or expired is None:
            return None
        for key in [k for k, (_, number, _) in self.known_ids().items() if number <= floor]:
            del self.known_ids()[key]
        return floor, expired


def highest_number(folder: Path) -> int:
    """Return the highest feed number in the journals of a folder."""
    return max((n for path in folder.glob("*.journal") for n in numbers_in(path)), default=0)


def numbers_in(path: Path) -> Iterator[int]:
    """Yield the feed numbers of a journal's changes."""
    with path.open("rb") as file:
        for raw in file:
            found = _IDS.match(raw)
            if found:
                yield int(found[2])


def histories_of(changeset: Changeset) -> list[ProgressEntry | Finding]:
    """Return the history records that a changeset appends."""
    return [
        op.record
        for op in changeset.ops
        if isinstance(op, Put) and isinstance(op.record, ProgressEntry | Finding)
    ]
