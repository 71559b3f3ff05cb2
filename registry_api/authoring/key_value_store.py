"""A complete store over any ordered key-value engine: its author writes get, scan, put, delete.

``key_layout.py`` defines the keys and values.
"""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from registry_api.authoring.in_memory_query import select_records, select_tasks
from registry_api.authoring.key_layout import (
    Batch,
    TaskLine,
    View,
    chain_in,
    change_from,
    digits,
    drop_change,
    drop_feed,
    drop_task,
    head_in,
    heads_in,
    key_of,
    known_in,
    meta_number,
    meta_text,
    put_chain,
    put_change,
    put_changed,
    put_meta,
    put_record,
    records_below,
    replayed,
    same_in,
    span_of,
    state_of,
    sure,
    task_lines,
)
from registry_api.authoring.key_value_archive import KeyValueArchives, entries
from registry_api.authoring.replication import check_next, own_changes
from registry_api.authoring.retention import (
    COMPACT_BATCH,
    COMPACT_LINES,
    KEEP,
    KEEP_CHANGES,
    TRIM_BATCH,
    FeedLine,
    check_fresh,
    compact_part,
    cursor_expired,
    forgotten_by,
)
from registry_api.capabilities import Compacted, LateWrite
from registry_api.errors import (
    Conflict,
    NotNext,
    NotSupported,
    OutcomeUnknown,
    ReadOnly,
    RegistryError,
    StoreClosed,
    TaskNotFound,
    Unavailable,
)
from registry_api.records.chain import next_chain
from registry_api.records.changeset import (
    Change,
    Changeset,
    Commit,
    FeedCursor,
    Limits,
    Put,
    commit_of,
    validate_changeset,
)
from registry_api.records.codec import dump
from registry_api.records.models import KINDS, History, Kind, Record, record_key
from registry_api.records.query import (
    ALL,
    ALL_RECORDS,
    Page,
    RecordQuery,
    Refs,
    TaskQuery,
    check_limit,
    check_query,
)
from registry_api.records.snapshot import Head, RegistryCounts, TaskSnapshot, TaskSummary
from registry_api.records.status import AgentStatus, TaskStatus
from registry_api.records.task_state import TaskState, exists
from registry_api.roles import ROLE, RoleStamp, check_commit, check_replication
from registry_api.store import Capability, StoreInfo
from registry_api.workspace.store_location import public

__all__ = ["Batch", "Engine", "KeyValueStore", "View"]

_AT_ONCE = 1000  # keys in one batch of a removal or a reinstatement


class Engine(Protocol):
    """The engine of a store, shared by threads and, with MULTI_PROCESS, by several processes."""

    @property
    def failures(self) -> tuple[type[Exception], ...]:
        """The exceptions of a failing engine: callers get Unavailable or OutcomeUnknown instead."""

    def read(self) -> AbstractContextManager[View]:
        """Open a view; it need not wait for writers."""

    def write(self) -> AbstractContextManager[Batch]:
        """Open a batch; of all threads and processes only one has a batch open at a time.

        At its end all of it is stored, as durably as the capabilities say; after an exception,
        nothing of it.
        """

    def close(self) -> None:
        """Release everything."""


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
        archives: Path | None = None,
    ) -> None:
        """``archives``: the folder for archives, which a store with MIGRATION_SOURCE needs."""
        self.engine = engine
        self._archives = None if archives is None else KeyValueArchives(archives, name, now)
        self._now = now
        self._read_only = read_only
        self._closed = False
        self._closing = threading.Lock()
        self.info = StoreInfo(
            name=name, location=public(location), capabilities=capabilities, limits=Limits()
        )

    # -- reading -----------------------------------------------------------------------------

    def load(self, task_id: str, *, only: Refs | None = None) -> TaskSnapshot:
        """See RegistryStore.load."""
        with self._reading() as view:
            line = TaskLine.read(view, task_id)
            if line is None:
                raise _not_found(task_id)
            state, chain = state_of(view, task_id), chain_in(view, task_id, line)
        assert line.summary is not None
        at = line.summary.updated_at
        return state.snapshot(line.lineage, line.revision, at, only=only, chain=chain)

    def head(self, task_id: str) -> Head:
        """See RegistryStore.head."""
        with self._reading() as view:
            return head_in(view, task_id, TaskLine.read(view, task_id))

    def list_tasks(
        self, query: TaskQuery = ALL, *, after: str | None = None, limit: int = 100
    ) -> Page[TaskSummary]:
        """See RegistryStore.list_tasks."""
        with self._reading() as view:
            summaries = (line.summary for line in task_lines(view) if line.summary is not None)
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
            records = records_below(view, "record", *where)
            return select_records(kind, records, query, after=after, limit=limit)

    def counts(self) -> RegistryCounts:
        """See RegistryStore.counts."""
        tasks, agents = Counter[TaskStatus](), Counter[AgentStatus]()
        records = Counter[Kind]()
        with self._reading() as view:
            for line in task_lines(view):
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
            feed = meta_text(view, "feed")
            # Reading starts above the trimmed lines, so that its cursors can be resumed from.
            start = meta_number(view, "floor")
            if task_id is not None:
                line = TaskLine.read(view, task_id)
                start = line.floor if line else 0
            if after is not None:
                if after.feed_id != feed:
                    raise cursor_expired("it is of another feed")
                if after.number < start:
                    raise cursor_expired("they were trimmed")
                start = after.number
            if task_id is None:
                first, last = key_of("change", digits(start + 1)), span_of("change")[1]
                found = [value for _, value in islice(view.scan(first, last), limit)]
            else:
                first, last = (
                    key_of("turn", task_id, digits(start + 1)),
                    span_of("turn", task_id)[1],
                )
                numbers = [value.decode() for _, value in islice(view.scan(first, last), limit)]
                found = [sure(view.get(key_of("change", n))) for n in numbers]
        return tuple(change_from(raw, feed) for raw in found)

    # -- writing -----------------------------------------------------------------------------

    def commit(self, changeset: Changeset) -> Commit:
        """See RegistryStore.commit."""
        changeset, digest, _ = validate_changeset(changeset, self.info.limits)
        task_id = changeset.task_id
        with self._writing() as batch:
            check_commit(_role(batch))
            line = TaskLine.read(batch, task_id)
            before = replayed(batch, changeset, digest)
            if before is not None:
                return before
            check_fresh(changeset, line.expired_before if line else None, now=self._now())
            revision = line.revision if line else 0
            if changeset.expected is None and line is None:
                raise _not_found(task_id)
            if changeset.expected is not None and changeset.expected != revision:
                raise Conflict(task_id, expected=changeset.expected, actual=revision)
            feed = meta_text(batch, "feed") or str(uuid.uuid4())
            change = Change(
                cursor=FeedCursor(feed_id=feed, number=meta_number(batch, "number") + 1),
                lineage=line.lineage if line else str(uuid.uuid4()),
                revision=revision + 1,
                changeset=changeset,
                digest=digest,
                chain=next_chain(chain_in(batch, task_id, line), revision + 1, digest),
            )
            return self._apply(batch, line, change)

    def _apply(
        self,
        batch: Batch,
        line: TaskLine | None,
        change: Change,
        *,
        again: bool = False,
        states: dict[str, TaskState] | None = None,
    ) -> Commit:
        """Apply a change; with ``again``, an append whose exact record is stored counts as done.

        ``states`` holds the tasks' states within a batch of many changes: reading one takes as long
        as the task is large.
        """
        changeset = change.changeset
        task_id = changeset.task_id
        states = {} if states is None else states
        if task_id not in states:
            states[task_id] = state_of(batch, task_id) if line else TaskState.created_by(changeset)
        state = states[task_id]
        before = state.copy()
        line = line or TaskLine(lineage=change.lineage)

        for op in changeset.ops:
            state.apply(
                op,
                known=partial(known_in, batch, task_id),
                same=lambda record: again and same_in(batch, record),
            )
            if isinstance(op, Put) and isinstance(op.record, History):
                line.records[str(KINDS[type(op.record)])] += not (
                    again and same_in(batch, op.record)
                )
                put_record(batch, op.record)
        put_changed(batch, before if line.revision else None, state)
        line.revision, line.number = change.revision, change.cursor.number
        put_chain(batch, task_id, change.chain)
        line.show(state, changeset.at)
        line.kept += 1
        put_change(batch, change)
        self._trim(batch, task_id, line, most=TRIM_BATCH)
        batch.put(key_of("task", task_id), dump(line))
        return commit_of(change)

    def compact(self, after: int = 0, *, dry_run: bool = False) -> Compacted:
        """See Compactable.compact."""
        revisions = dict[str, int]()
        with self._reading() as view:
            newest = meta_number(view, "number")
            first, last = key_of("change", digits(after + 1)), span_of("change")[1]
            found = [
                change_from(raw, "") for _, raw in islice(view.scan(first, last), COMPACT_LINES)
            ]
            for task_id in {change.changeset.task_id for change in found}:
                line = TaskLine.read(view, task_id)
                revisions[task_id] = line.revision if line else 0
        lines = [
            FeedLine(
                change.cursor.number,
                change.changeset.task_id,
                self._kept_from(change),
                is_newest=change.revision >= revisions[change.changeset.task_id],
            )
            for change in found
        ]
        return compact_part(
            lines,
            self._drop_expired,
            oldest=self._now() - KEEP,
            newest=newest,
            dry_run=dry_run,
        )

    def _drop_expired(self, task_id: str) -> int:
        with self._writing() as batch:
            check_commit(_role(batch))
            line = TaskLine.read(batch, task_id)
            dropped = self._trim(batch, task_id, line, most=COMPACT_BATCH) if line else 0
            if line and dropped:
                batch.put(key_of("task", task_id), dump(line))
        return dropped

    def _kept_from(self, change: Change) -> datetime:
        return min(change.changeset.created() or change.changeset.at, self._now())

    def _trim(self, batch: Batch, task_id: str, line: TaskLine, *, most: int) -> int:
        """Remove feed lines that are too old or too many, never the newest; return how many."""
        oldest, dropped = self._now() - KEEP, 0
        some = islice(batch.scan(*span_of("turn", task_id)), min(most, line.kept - 1))
        for _, number in list(some):
            change = change_from(sure(batch.get(key_of("change", number.decode()))), "")
            created = self._kept_from(change)
            if created >= oldest and line.kept <= KEEP_CHANGES:
                break
            dropped += 1
            drop_change(batch, change)
            line.kept -= 1
            line.floor = max(line.floor, change.cursor.number)
            line.expired_before = max(created, line.expired_before or created)
        if line.floor > meta_number(batch, "floor"):
            put_meta(batch, "floor", str(line.floor))
        return dropped

    def close(self) -> None:
        """See RegistryStore.close."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        self.engine.close()

    # -- a move's target ---------------------------------------------------------------------

    def apply(self, change: Change) -> Commit:
        """See MoveTarget.apply."""
        with self._writing() as batch:
            check_replication(_role(batch))
            return self._apply_next(batch, change)

    def apply_all(self, changes: Sequence[Change]) -> None:
        """See MoveTarget.apply_all."""
        with self._writing() as batch:
            check_replication(_role(batch))
            states: dict[str, TaskState] = {}
            for change in changes:
                self._apply_next(batch, change, states)

    def _apply_next(
        self, batch: Batch, change: Change, states: dict[str, TaskState] | None = None
    ) -> Commit:
        task_id = change.changeset.task_id
        before = replayed(batch, change.changeset, change.digest)
        if before is not None:
            return before
        line = TaskLine.read(batch, task_id)
        here = head_in(batch, task_id, line)
        check_next(change, lineage=here.lineage, revision=here.revision, chain=here.chain)
        self._adopt_feed(batch, change.cursor.feed_id)
        if batch.get(key_of("change", digits(change.cursor.number))) is not None:
            raise NotNext(
                f"feed number {change.cursor.number} is taken",
                next_step="Bring the task up to date with replace",
            )
        line = TaskLine.read(batch, task_id)
        return self._apply(batch, line, change, again=True, states=states)

    def _adopt_feed(self, batch: Batch, feed_id: str) -> None:
        """Continue the source's feed.

        Lines of an earlier feed of the source are dropped: their numbers mean nothing in the new
        feed, and the source knows the changeset ids.
        """
        if meta_text(batch, "feed") == feed_id:
            return
        if meta_number(batch, "number") and not meta_text(batch, "mirrored"):
            raise own_changes()
        drop_feed(batch)
        for name, value in (
            ("feed", feed_id),
            ("mirrored", "yes"),
            ("number", "0"),
            ("floor", "0"),
        ):
            put_meta(batch, name, value)

    def replace(
        self,
        snapshot: TaskSnapshot,
        histories: Iterable[History],
        *,
        feed: tuple[Change, ...] = (),
    ) -> None:
        """See MoveTarget.replace."""
        task_id = snapshot.task.task_id
        with self._writing() as batch:
            check_replication(_role(batch))
            old = TaskLine.read(batch, task_id)
            if old and old.lineage == snapshot.lineage and old.revision >= snapshot.revision:
                return
            if feed:
                self._adopt_feed(batch, feed[-1].cursor.feed_id)
                old = TaskLine.read(batch, task_id)
            drop_task(batch, task_id)
            line = TaskLine(lineage=snapshot.lineage, revision=snapshot.revision, kept=len(feed))
            put_chain(batch, task_id, snapshot.chain)
            state = TaskState.of(snapshot)
            put_changed(batch, None, state)
            for record in histories:
                if known_in(batch, task_id, KINDS[type(record)], record_key(record)):
                    raise exists(record)
                put_record(batch, record)
                line.records[str(KINDS[type(record)])] += 1
            floor, line.expired_before = forgotten_by(
                feed, last_number=meta_number(batch, "number"), updated_at=snapshot.updated_at
            )
            line.floor = max(floor, old.floor if old else 0)
            line.number = feed[-1].cursor.number if feed else line.floor
            for change in feed:
                put_change(batch, change)
            if line.floor > meta_number(batch, "floor"):
                put_meta(batch, "floor", str(line.floor))
            line.show(state, snapshot.updated_at)
            batch.put(key_of("task", task_id), dump(line))

    def read_stamp(self, name: str) -> str | None:
        """See MoveTarget.read_stamp."""
        with self._reading() as view:
            return _stamp(view, name)

    def write_stamp(self, name: str, value: str) -> None:
        """See MoveTarget.write_stamp."""
        with self._writing() as batch:
            batch.put(key_of("stamp", name), value.encode())

    # -- a move's source ---------------------------------------------------------------------

    def moved(self, seen: Mapping[str, Head]) -> dict[str, Head]:
        """See MigrationSource.moved."""
        out: dict[str, Head] = {}
        with self._reading() as view:
            for task_id, head in heads_in(view):
                known = seen.get(task_id)
                if known is None or not known.is_level(head):
                    out[task_id] = head
        return out

    def fence(self, stamp: RoleStamp, seen: Mapping[str, Head]) -> dict[str, Head]:
        """See MigrationSource.fence."""
        self.write_stamp(ROLE, stamp.dump())
        return self.moved(seen)

    def unfence(self, stamp: RoleStamp) -> None:
        """See MigrationSource.unfence."""
        self.write_stamp(ROLE, stamp.dump())

    def archive(self, *, progress: Callable[[int, int], None] | None = None) -> str:
        """See MigrationSource.archive."""
        with self._reading() as view:
            return self._kept().write(view)

    def check_archive(self, archive: str) -> None:
        """See MigrationSource.check_archive."""
        self._kept().check(archive)

    def retire(
        self,
        archive: str,
        *,
        wait: float,
        patience: float,
        now: Callable[[str], TaskSnapshot | None],
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[LateWrite, ...]:
        """See MigrationSource.retire: every key but the stamps is deleted, a few at a time."""
        self.check_archive(archive)
        while True:
            with self._writing() as batch:
                some = [key for key, _ in islice(entries(batch), _AT_ONCE)]
                for key in some:
                    batch.delete(key)
            if len(some) < _AT_ONCE:
                return ()

    def retiring(self) -> int:
        """See MigrationSource.retiring: nothing is left for later."""
        return 0

    def reinstate(self, archive: str | None) -> None:
        """See MigrationSource.reinstate."""
        if archive is None:
            return
        found = self._kept().read(archive)
        while some := list(islice(found, _AT_ONCE)):
            with self._writing() as batch:
                for key, value in some:
                    batch.put(key, value)

    def _kept(self) -> KeyValueArchives:
        if self._archives is None:
            raise NotSupported(
                f"the store {self.info.name!r} was opened without a folder for archives",
                next_step="Stay in phase 3, or let its plugin pass archives=",
            )
        return self._archives

    # -- the engine --------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[View]:
        self._check_open()
        try:
            with self.engine.read() as view:
                yield view
        except RegistryError:
            raise
        except self.engine.failures as error:
            self._check_open()
            raise self._failed(error) from error

    @contextmanager
    def _writing(self) -> Iterator[Batch]:
        self._check_open()
        if self._read_only:
            raise ReadOnly("the store was opened for reading only", next_step="Open it for writing")
        ending = False
        try:
            with self.engine.write() as batch:
                yield batch
                ending = True
        except RegistryError:
            raise
        except self.engine.failures as error:
            if not ending:
                self._check_open()
                raise self._failed(error) from error
            raise OutcomeUnknown(
                f"{self.info.name}: {error}", next_step="Commit the same changeset again"
            ) from error

    def _failed(self, error: Exception) -> Unavailable:
        return Unavailable(
            f"{self.info.name}: {type(error).__name__}: {error}",
            next_step=f"Make sure {self.info.location or 'the engine'} works, then try again",
        )

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosed("the store is closed", next_step="Open it again")


def _stamp(view: View, name: str) -> str | None:
    raw = view.get(key_of("stamp", name))
    return None if raw is None else raw.decode()


def _role(view: View) -> str | None:
    return _stamp(view, ROLE)


def _not_found(task_id: str) -> TaskNotFound:
    return TaskNotFound(f"there is no task {task_id}", next_step="list_tasks shows the ids")
