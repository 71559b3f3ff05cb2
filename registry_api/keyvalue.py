"""The whole contract over any ordered key-value engine: its author writes get, scan, put, delete.

Keys are parts joined by U+0000, which no id holds, so that one scan finds what belongs together::

    task   <task>                  where it stands, its summary and counts
    record <kind> <task> <key>     its records, histories among them
    latest <task> <agent>          the newest report of ours
    change <number>                the feed, in its order; 16 hexadecimal digits
    turn   <task> <number>         the numbers of one task
    id     <task> <changeset>      the number under which an id is known
    stamp  <name>                  texts of a move
    meta   feed | number | floor   the feed's id, its last number, the highest one forgotten
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from types import MappingProxyType
from typing import Any, Protocol

import orjson

from registry_api.changeset import (
    Change,
    Changeset,
    Commit,
    FeedCursor,
    Limits,
    Put,
    accepted,
    changeset_from,
    dump_changeset,
)
from registry_api.codec import decode_record, dump, encode_record, unstamp
from registry_api.errors import (
    Conflict,
    IdempotencyMismatch,
    NotNext,
    OutcomeUnknown,
    ReadOnly,
    RegistryError,
    StoreClosed,
    TaskNotFound,
    Unavailable,
)
from registry_api.models import KINDS, Finding, Kind, ProgressEntry, Record, record_key
from registry_api.query import (
    ALL,
    ALL_RECORDS,
    Page,
    RecordQuery,
    Refs,
    TaskQuery,
    check_limit,
    check_query,
)
from registry_api.retention import (
    KEEP,
    KEEP_CHANGES,
    TRIM_BATCH,
    check_fresh,
    cursor_expired,
    forgotten_by,
)
from registry_api.select import select_records, select_tasks
from registry_api.snapshot import Head, RegistryCounts, TaskSnapshot, TaskSummary
from registry_api.state import TaskState
from registry_api.status import AgentStatus, TaskStatus
from registry_api.store import Capability, StoreInfo

__all__ = ["Batch", "Engine", "KeyValueStore", "View"]

_HISTORY = (Kind.PROGRESS, Kind.FINDING)
_STATE = tuple(kind for kind in Kind if kind not in {*_HISTORY, Kind.TASK})


class View(Protocol):
    """One consistent state of the engine, whatever is written meanwhile."""

    def get(self, key: bytes) -> bytes | None:
        """Return what was put, or None. Keys are at most 300 bytes."""

    def scan(self, first: bytes, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) for ``first`` <= key < ``last``, in the order of the keys' bytes."""


class Batch(View, Protocol):
    """A view that sees what is put and deleted in it."""

    def put(self, key: bytes, value: bytes) -> None:
        """Set a key; values of the largest changeset are 16 MiB."""

    def delete(self, key: bytes) -> None:
        """Remove a key, if it is there."""


class Engine(Protocol):
    """What an author brings. Threads share it; with MULTI_PROCESS, several processes do."""

    @property
    def failures(self) -> tuple[type[Exception], ...]:
        """What the engine raises when it fails: callers see Unavailable or OutcomeUnknown."""

    def read(self) -> AbstractContextManager[View]:
        """Open a view; it need not wait for writers."""

    def write(self) -> AbstractContextManager[Batch]:
        """Open a batch, one at a time of all threads and processes. At its end all of it is there,
        as lastingly as the capabilities say; after an exception nothing of it.
        """

    def close(self) -> None:
        """Release everything."""


def _key(*parts: str) -> bytes:
    return "\0".join(parts).encode(errors="surrogatepass")  # asked for: no id is like that


def _span(*parts: str) -> tuple[bytes, bytes]:
    """Return the bounds of all keys that begin with these parts."""
    prefix = _key(*parts)
    return prefix + b"\0", prefix + b"\1"


def _digits(number: int) -> str:
    return f"{number:016x}"


@dataclass(slots=True, kw_only=True)
class _Line:
    """Where a task stands, and all that registry-wide answers need of it."""

    lineage: str
    revision: int = 0
    number: int = 0
    floor: int = 0
    expired_before: datetime | None = None
    kept: int = 0  # lines of its feed
    summary: TaskSummary | None = None
    agents: Counter[str] = field(default_factory=Counter)
    records: Counter[str] = field(default_factory=Counter)

    @classmethod
    def read(cls, view: View, task_id: str) -> _Line | None:
        raw = view.get(_key("task", task_id))
        return None if raw is None else cls.decode(raw)

    @classmethod
    def decode(cls, raw: bytes) -> _Line:
        data: dict[str, Any] = orjson.loads(raw)
        summary, expired = data.pop("summary"), data.pop("expired_before")
        for name, of in (
            ("created_at", unstamp),
            ("updated_at", unstamp),
            ("status", TaskStatus),
            ("recorded_status", TaskStatus),
        ):
            summary[name] = of(summary[name])
        data["agents"], data["records"] = Counter(data["agents"]), Counter(data["records"])
        return cls(
            **data,
            summary=TaskSummary(**summary),
            expired_before=unstamp(expired) if expired else None,
        )

    def show(self, state: TaskState, updated_at: datetime) -> None:
        """Take in what is to be seen of a state."""
        self.summary = state.snapshot(self.lineage, self.revision, updated_at).summary()
        self.agents = Counter(str(a.status) for a in state.agents.values())
        for kind in _STATE:
            self.records[str(kind)] = sum(1 for _ in state.records(kind))


class KeyValueStore:
    """A RegistryStore, and a MoveTarget where the capabilities say so, over an engine."""

    def __init__(
        self,
        engine: Engine,
        *,
        name: str,
        location: str = "",
        capabilities: frozenset[Capability] = frozenset(),
        now: Callable[[], datetime],
        read_only: bool = False,
    ) -> None:
        self._engine = engine
        self._now = now
        self._read_only = read_only
        self._closed = False
        self.info = StoreInfo(
            name=name, location=location, capabilities=capabilities, limits=Limits()
        )

    # -- reading -----------------------------------------------------------------------------

    def load(self, task_id: str, *, only: Refs | None = None) -> TaskSnapshot:
        """See RegistryStore.load."""
        with self._reading() as view:
            line = _Line.read(view, task_id)
            if line is None:
                raise _not_found(task_id)
            state = _state(view, task_id)
        assert line.summary is not None
        return state.snapshot(line.lineage, line.revision, line.summary.updated_at, only=only)

    def head(self, task_id: str) -> Head:
        """See RegistryStore.head."""
        with self._reading() as view:
            line = _Line.read(view, task_id)
        if line is None:
            return Head()
        return Head(lineage=line.lineage, revision=line.revision, number=line.number)

    def list_tasks(
        self, query: TaskQuery = ALL, *, after: str | None = None, limit: int = 100
    ) -> Page[TaskSummary]:
        """See RegistryStore.list_tasks."""
        with self._reading() as view:
            summaries = (line.summary for line in _lines(view) if line.summary is not None)
            return select_tasks(summaries, query, after=after, limit=limit)

    def list_records(
        self,
        kind: Kind,
        query: RecordQuery = ALL_RECORDS,
        *,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[Record]:
        """See RegistryStore.list_records."""
        query = check_query(kind, query)
        where = (str(kind),) if query.task_id is None else (str(kind), query.task_id)
        with self._reading() as view:
            records = _records(view, "record", *where)
            return select_records(kind, records, query, after=after, limit=limit)

    def counts(self) -> RegistryCounts:
        """See RegistryStore.counts."""
        tasks, agents = Counter[TaskStatus](), Counter[AgentStatus]()
        records = Counter[Kind]()
        with self._reading() as view:
            for line in _lines(view):
                assert line.summary is not None
                tasks[line.summary.status] += 1
                records[Kind.TASK] += 1
                agents.update({AgentStatus(s): n for s, n in line.agents.items()})
                records.update({Kind(k): n for k, n in line.records.items()})
        return RegistryCounts(
            tasks=MappingProxyType(dict(tasks)),
            agents=MappingProxyType({s: n for s, n in agents.items() if n}),
            records=MappingProxyType({k: n for k, n in records.items() if n}),
        )

    def changes(
        self, after: FeedCursor | None = None, *, task_id: str | None = None, limit: int = 100
    ) -> tuple[Change, ...]:
        """See RegistryStore.changes."""
        check_limit(limit)
        with self._reading() as view:
            feed = _text(view, "feed")
            # A walk begins above what was forgotten: the cursors it gives out can be resumed from.
            start = _number(view, "floor")
            if task_id is not None:
                line = _Line.read(view, task_id)
                start = line.floor if line else 0
            if after is not None:
                if after.feed_id != feed:
                    raise cursor_expired("it is of another feed")
                if after.number < start:
                    raise cursor_expired("they were trimmed")
                start = after.number
            if task_id is None:
                first, last = _key("change", _digits(start + 1)), _span("change")[1]
                found = [value for _, value in islice(view.scan(first, last), limit)]
            else:
                first, last = _key("turn", task_id, _digits(start + 1)), _span("turn", task_id)[1]
                numbers = [value.decode() for _, value in islice(view.scan(first, last), limit)]
                found = [_sure(view.get(_key("change", n))) for n in numbers]
        return tuple(_change_from(raw, feed) for raw in found)

    # -- writing -----------------------------------------------------------------------------

    def commit(self, changeset: Changeset) -> Commit:
        """See RegistryStore.commit."""
        changeset, digest, _ = accepted(changeset, self.info.limits)
        task_id = changeset.task_id
        with self._writing() as batch:
            line = _Line.read(batch, task_id)
            before = _replay(batch, changeset, digest)
            if before is not None:
                return before
            check_fresh(changeset, line.expired_before if line else None, now=self._now())
            revision = line.revision if line else 0
            if changeset.expected is None and line is None:
                raise _not_found(task_id)
            if changeset.expected is not None and changeset.expected != revision:
                raise Conflict(task_id, expected=changeset.expected, actual=revision)
            feed = _text(batch, "feed") or str(uuid.uuid4())
            change = Change(
                cursor=FeedCursor(feed_id=feed, number=_number(batch, "number") + 1),
                lineage=line.lineage if line else str(uuid.uuid4()),
                revision=revision + 1,
                changeset=changeset,
                digest=digest,
            )
            return self._apply(batch, line, change)

    def _apply(self, batch: Batch, line: _Line | None, change: Change) -> Commit:
        changeset = change.changeset
        task_id = changeset.task_id
        state = _state(batch, task_id) if line else TaskState.created_by(changeset)
        before = state.copy()
        line = line or _Line(lineage=change.lineage)

        def known(kind: Kind, key: str) -> bool:
            return batch.get(_key("record", kind, task_id, key)) is not None

        for op in changeset.ops:
            state.apply(op, known=known)
            if isinstance(op, Put) and isinstance(op.record, ProgressEntry | Finding):
                _put_record(batch, op.record)
                line.records[str(KINDS[type(op.record)])] += 1
        _put_changed(batch, before if line.revision else None, state)
        line.revision, line.number = change.revision, change.cursor.number
        line.show(state, changeset.at)
        line.kept += 1
        _put_change(batch, change)
        self._trim(batch, task_id, line)
        batch.put(_key("task", task_id), dump(line))
        return _commit_of(change)

    def _trim(self, batch: Batch, task_id: str, line: _Line) -> None:
        """Forget a few lines that are past keeping, never the newest."""
        oldest = self._now() - KEEP
        some = islice(batch.scan(*_span("turn", task_id)), min(TRIM_BATCH, line.kept - 1))
        for _, number in list(some):
            change = _change_from(_sure(batch.get(_key("change", number.decode()))), "")
            created = min(change.changeset.created() or change.changeset.at, self._now())
            if created >= oldest and line.kept <= KEEP_CHANGES:
                break
            _drop_change(batch, change)
            line.kept -= 1
            line.floor = change.cursor.number
            line.expired_before = max(created, line.expired_before or created)
        if line.floor > _number(batch, "floor"):
            _note(batch, "floor", str(line.floor))

    def close(self) -> None:
        """See RegistryStore.close."""
        if not self._closed:
            self._closed = True
            self._engine.close()

    # -- a move's target ---------------------------------------------------------------------

    def apply(self, change: Change) -> Commit:
        """See MoveTarget.apply."""
        with self._writing() as batch:
            return self._mirror(batch, change)

    def apply_all(self, changes: Sequence[Change]) -> None:
        """See MoveTarget.apply_all."""
        with self._writing() as batch:
            for change in changes:
                self._mirror(batch, change)

    def _mirror(self, batch: Batch, change: Change) -> Commit:
        task_id = change.changeset.task_id
        before = _replay(batch, change.changeset, change.digest)
        if before is not None:
            return before
        line = _Line.read(batch, task_id)
        at = (line.lineage, line.revision) if line else (change.lineage, 0)
        if at != (change.lineage, change.revision - 1):
            raise NotNext(
                f"task {task_id} is at {at}, the change is {change.revision}",
                next_step="Replay the source's feed from the mark",
            )
        feed = _text(batch, "feed")
        if change.cursor.number <= _number(batch, "number") and feed != change.cursor.feed_id:
            raise NotNext(
                f"feed number {change.cursor.number} is taken",
                next_step="Mirror into a store without changes of its own",
            )
        return self._apply(batch, line, change)

    def replace(
        self,
        snapshot: TaskSnapshot,
        histories: Iterable[ProgressEntry | Finding],
        *,
        feed: tuple[Change, ...] = (),
    ) -> None:
        """See MoveTarget.replace."""
        task_id = snapshot.task.task_id
        with self._writing() as batch:
            old = _Line.read(batch, task_id)
            if old and old.lineage == snapshot.lineage and old.revision >= snapshot.revision:
                return
            _drop_task(batch, task_id)
            line = _Line(lineage=snapshot.lineage, revision=snapshot.revision, kept=len(feed))
            state = TaskState.of(snapshot)
            _put_changed(batch, None, state)
            for record in histories:
                _put_record(batch, record)
                line.records[str(KINDS[type(record)])] += 1
            floor, line.expired_before = forgotten_by(
                feed, last_number=_number(batch, "number"), updated_at=snapshot.updated_at
            )
            line.floor = max(floor, old.floor if old else 0)
            line.number = feed[-1].cursor.number if feed else line.floor
            for change in feed:
                _put_change(batch, change)
            if line.floor > _number(batch, "floor"):
                _note(batch, "floor", str(line.floor))
            line.show(state, snapshot.updated_at)
            batch.put(_key("task", task_id), dump(line))

    def read_stamp(self, name: str) -> str | None:
        """See MoveTarget.read_stamp."""
        with self._reading() as view:
            raw = view.get(_key("stamp", name))
        return None if raw is None else raw.decode()

    def write_stamp(self, name: str, value: str) -> None:
        """See MoveTarget.write_stamp."""
        with self._writing() as batch:
            batch.put(_key("stamp", name), value.encode())

    # -- the engine --------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[View]:
        self._check_open()
        try:
            with self._engine.read() as view:
                yield view
        except RegistryError:
            raise
        except self._engine.failures as error:
            raise self._failed(error) from error

    @contextmanager
    def _writing(self) -> Iterator[Batch]:
        self._check_open()
        if self._read_only:
            raise ReadOnly("the store was opened for reading only", next_step="Open it for writing")
        ending = False
        try:
            with self._engine.write() as batch:
                yield batch
                ending = True
        except RegistryError:
            raise
        except self._engine.failures as error:
            if not ending:
                raise self._failed(error) from error
            raise OutcomeUnknown(
                f"{self.info.name}: {error}", next_step="Send the same changeset again"
            ) from error

    def _failed(self, error: Exception) -> Unavailable:
        return Unavailable(
            f"{self.info.name}: {type(error).__name__}: {error}",
            next_step=f"See whether {self.info.location or 'the engine'} can be used; try again",
        )

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosed("the store is closed", next_step="Open it again")


def _not_found(task_id: str) -> TaskNotFound:
    return TaskNotFound(f"there is no task {task_id}", next_step="list_tasks shows what there is")


def _sure(value: bytes | None) -> bytes:
    assert value is not None
    return value


def _text(view: View, name: str) -> str:
    return (view.get(_key("meta", name)) or b"").decode()


def _number(view: View, name: str) -> int:
    return int(_text(view, name) or 0)


def _note(batch: Batch, name: str, value: str) -> None:
    batch.put(_key("meta", name), value.encode())


def _lines(view: View) -> Iterator[_Line]:
    return (_Line.decode(raw) for _, raw in view.scan(*_span("task")))


def _records(view: View, *parts: str) -> Iterator[Any]:
    return (decode_record(orjson.loads(raw)) for _, raw in view.scan(*_span(*parts)))


def _state(view: View, task_id: str) -> TaskState:
    task: Any = decode_record(orjson.loads(_sure(view.get(_key("record", Kind.TASK, task_id)))))
    state = TaskState(task)
    for kind in _STATE:
        for record in _records(view, "record", kind, task_id):
            state.apply(Put(record), known=lambda *_: False)
    state.latest = {entry.agent_id: entry for entry in _records(view, "latest", task_id)}
    return state


def _put_record(batch: Batch, record: Record) -> None:
    kind = KINDS[type(record)]
    own = () if kind is Kind.TASK else (record_key(record),)
    batch.put(_key("record", kind, record.task_id, *own), dump(encode_record(record)))


def _put_changed(batch: Batch, before: TaskState | None, after: TaskState) -> None:
    """Write what differs between two states of a task; None: there was none."""
    task_id = after.task.task_id
    if before is None or before.task is not after.task:
        _put_record(batch, after.task)
    for kind in _STATE:
        old = {record_key(r): r for r in before.records(kind)} if before else {}
        new = {record_key(r): r for r in after.records(kind)}
        for key in old.keys() - new.keys():
            batch.delete(_key("record", kind, task_id, key))
        for key, record in new.items():
            if old.get(key) is not record:
                _put_record(batch, record)
    for agent_id, entry in after.latest.items():
        if before is None or before.latest.get(agent_id) is not entry:
            batch.put(_key("latest", task_id, agent_id), dump(encode_record(entry)))


def _put_change(batch: Batch, change: Change) -> None:
    task_id, number = change.changeset.task_id, _digits(change.cursor.number)
    head = {
        "n": change.cursor.number,
        "l": change.lineage,
        "r": change.revision,
        "d": change.digest,
        "cs": orjson.Fragment(dump_changeset(change.changeset)),
    }
    batch.put(_key("change", number), dump(head))
    batch.put(_key("turn", task_id, number), number.encode())
    batch.put(_key("id", task_id, str(change.changeset.id)), number.encode())
    _note(batch, "feed", change.cursor.feed_id)
    _note(batch, "number", str(max(change.cursor.number, _number(batch, "number"))))


def _drop_change(batch: Batch, change: Change) -> None:
    task_id, number = change.changeset.task_id, _digits(change.cursor.number)
    batch.delete(_key("change", number))
    batch.delete(_key("turn", task_id, number))
    batch.delete(_key("id", task_id, str(change.changeset.id)))


def _drop_task(batch: Batch, task_id: str) -> None:
    for _, number in list(batch.scan(*_span("turn", task_id))):
        _drop_change(batch, _change_from(_sure(batch.get(_key("change", number.decode()))), ""))
    spans = [_span("record", kind, task_id) for kind in Kind] + [_span("latest", task_id)]
    for span in spans:
        for key, _ in list(batch.scan(*span)):
            batch.delete(key)


def _change_from(raw: bytes, feed_id: str) -> Change:
    data = orjson.loads(raw)
    return Change(
        cursor=FeedCursor(feed_id=feed_id, number=data["n"]),
        lineage=data["l"],
        revision=data["r"],
        changeset=changeset_from(data["cs"]),
        digest=data["d"],
    )


def _replay(view: View, changeset: Changeset, digest: str) -> Commit | None:
    number = view.get(_key("id", changeset.task_id, str(changeset.id)))
    if number is None:
        return None
    change = _change_from(_sure(view.get(_key("change", number.decode()))), _text(view, "feed"))
    if change.digest != digest:
        raise IdempotencyMismatch(
            f"changeset {changeset.id} was committed with other content",
            next_step="Make a new changeset for a new change",
        )
    return replace(_commit_of(change), replayed=True)


def _commit_of(change: Change) -> Commit:
    return Commit(
        task_id=change.changeset.task_id,
        changeset_id=change.changeset.id,
        lineage=change.lineage,
        revision=change.revision,
        cursor=change.cursor,
    )
