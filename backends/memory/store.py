"""A registry in memory: the model that the other stores are compared with."""

from __future__ import annotations

import threading
import uuid
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType

from registry_api.authoring import (
    KEEP,
    KEEP_CHANGES,
    TRIM_BATCH,
    check_fresh,
    check_next,
    check_same_content,
    cursor_expired,
    forgotten_by,
    own_changes,
    select_records,
    select_tasks,
)
from registry_api.capabilities import Compacted
from registry_api.errors import (
    Conflict,
    ReadOnly,
    StoreClosed,
    TaskNotFound,
)
from registry_api.leases import Lease, MemoryLeases
from registry_api.plugins import RegisterStore, hookimpl
from registry_api.records import (
    ALL,
    ALL_RECORDS,
    HISTORIES,
    KINDS,
    Change,
    Changeset,
    Commit,
    FeedCursor,
    Head,
    History,
    Kind,
    Limits,
    Page,
    Put,
    Record,
    RecordQuery,
    Refs,
    RegistryCounts,
    TaskQuery,
    TaskSnapshot,
    TaskState,
    TaskSummary,
    check_limit,
    check_query,
    commit_of,
    next_chain,
    record_key,
    validate_changeset,
)
from registry_api.roles import ROLE, check_commit, check_replication
from registry_api.store import Capability, StoreInfo


@dataclass(slots=True)
class _Held:
    """A task: its state, its histories by (kind, id), its feed and how much of that was dropped."""

    lineage: str
    state: TaskState
    revision: int = 0
    updated_at: datetime | None = None
    histories: dict[tuple[Kind, str], History] = field(default_factory=dict)
    feed: list[Change] = field(default_factory=list)
    floor: int = 0
    expired_before: datetime | None = None
    chain: str = ""

    def snapshot(self, only: Refs | None = None) -> TaskSnapshot:
        assert self.updated_at is not None
        return self.state.snapshot(
            self.lineage, self.revision, self.updated_at, only=only, chain=self.chain
        )


@hookimpl
def registry_register_stores(register: RegisterStore) -> None:
    """Register the store ``memory``."""
    register("memory", lambda c: MemoryStore(now=c.now, read_only=c.read_only))


class MemoryStore:
    """A thread-safe registry that ends with its process."""

    def __init__(self, *, now: Callable[[], datetime], read_only: bool = False) -> None:
        self._now = now
        self._read_only = read_only
        self._lock = threading.RLock()
        self._closed = False
        self._feed_id = str(uuid.uuid4())
        self._number = 0
        self._tasks: dict[str, _Held] = {}
        self._stamps: dict[str, str] = {}
        self._leases = MemoryLeases()
        self.info = StoreInfo(
            name="memory",
            capabilities=frozenset({Capability.MOVE_TARGET, Capability.LEASES}),
            limits=Limits(),
        )

    def load(self, task_id: str, *, only: Refs | None = None) -> TaskSnapshot:
        """See RegistryStore.load."""
        with self._locked():
            return self._held(task_id).snapshot(only)

    def head(self, task_id: str) -> Head:
        """See RegistryStore.head."""
        with self._locked():
            held = self._tasks.get(task_id)
            if held is None:
                return Head()
            number = held.feed[-1].cursor.number if held.feed else held.floor
            return Head(
                lineage=held.lineage, revision=held.revision, number=number, chain=held.chain
            )

    def commit(self, changeset: Changeset) -> Commit:
        """See RegistryStore.commit."""
        changeset, digest, _ = validate_changeset(changeset, self.info.limits)
        changeset = replace(changeset)  # a new object: the feed does not keep its text as well
        self._require_writable()
        with self._locked():
            check_commit(self._stamps.get(ROLE))
            held = self._tasks.get(changeset.task_id)
            if held is not None:
                before = _replay(held, changeset, digest)
                if before is not None:
                    return before
            check_fresh(changeset, held.expired_before if held else None, now=self._now())
            revision = held.revision if held else 0
            if changeset.expected is None and held is None:
                raise _not_found(changeset.task_id)
            if changeset.expected is not None and changeset.expected != revision:
                raise Conflict(changeset.task_id, expected=changeset.expected, actual=revision)
            return self._apply(
                Change(
                    cursor=FeedCursor(feed_id=self._feed_id, number=self._number + 1),
                    lineage=held.lineage if held else str(uuid.uuid4()),
                    revision=revision + 1,
                    changeset=changeset,
                    digest=digest,
                    chain=next_chain(held.chain if held else "", revision + 1, digest),
                )
            )

    def _apply(self, change: Change, *, again: bool = False) -> Commit:
        """Apply a change; ``again``: an append whose identical record exists counts as done."""
        changeset = change.changeset
        held = self._tasks.get(changeset.task_id)
        if held is None:
            held = _Held(change.lineage, TaskState.created_by(changeset))
        # Ops change a copy that is put in place last: a refusal half-way changes nothing.
        state, fresh = held.state.copy(), dict[tuple[Kind, str], History]()

        def known(kind: Kind, key: str) -> bool:
            return (kind, key) in held.histories or (kind, key) in fresh

        def same(record: Record) -> bool:
            return again and held.histories.get((KINDS[type(record)], record_key(record))) == record

        for op in changeset.ops:
            state.apply(op, known=known, same=same)
            if isinstance(op, Put) and isinstance(op.record, History):
                fresh[KINDS[type(op.record)], record_key(op.record)] = op.record
        held.state = state
        held.histories |= fresh
        held.revision, held.lineage, held.chain = change.revision, change.lineage, change.chain
        held.updated_at = changeset.at
        held.feed.append(change)
        self._tasks[changeset.task_id] = held
        self._number = max(self._number, change.cursor.number)
        self._trim(held, most=TRIM_BATCH)
        return commit_of(change)

    def _require_writable(self) -> None:
        if self._read_only:
            raise ReadOnly("the store was opened for reading only", next_step="Open it for writing")

    def compact(self, after: int = 0, *, dry_run: bool = False) -> Compacted:
        """See Compactable.compact; all of it at once."""
        if not dry_run:
            self._require_writable()
        with self._locked():
            if not dry_run:
                check_commit(self._stamps.get(ROLE))
            trim = self._expired if dry_run else self._trim
            lines = sum(trim(held, most=len(held.feed)) for held in self._tasks.values())
            return Compacted(lines=lines, after=None, newest=self._number)

    def _trim(self, held: _Held, *, most: int) -> int:
        """Drop feed lines that are too old or too many, never the newest; return how many."""
        expired = self._expired(held, most=most)
        for change in held.feed[:expired]:
            held.floor = max(held.floor, change.cursor.number)
            created = self._kept_from(change)
            held.expired_before = max(created, held.expired_before or created)
        del held.feed[:expired]
        return expired

    def _expired(self, held: _Held, *, most: int) -> int:
        oldest, surplus = self._now() - KEEP, len(held.feed) - KEEP_CHANGES
        for n, change in enumerate(held.feed[: min(most, len(held.feed) - 1)]):
            if self._kept_from(change) >= oldest and n >= surplus:
                return n
        return max(0, min(most, len(held.feed) - 1))

    def _kept_from(self, change: Change) -> datetime:
        return min(change.changeset.created() or change.changeset.at, self._now())

    def list_tasks(
        self, query: TaskQuery = ALL, *, after: str | None = None, limit: int = 100
    ) -> Page[TaskSummary]:
        """See RegistryStore.list_tasks."""
        with self._locked():
            summaries = [held.snapshot().summary() for held in self._tasks.values()]
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
        with self._locked():
            records = [r for held in self._tasks.values() for r in _records(held, kind)]
        return select_records(kind, records, query, after=after, limit=limit)

    def counts(self) -> RegistryCounts:
        """See RegistryStore.counts."""
        with self._locked():
            held = list(self._tasks.values())
            tasks = Counter(h.snapshot().status for h in held)
            agents = Counter(a.status for h in held for a in h.state.agents.values())
            records = Counter({kind: sum(len(_records(h, kind)) for h in held) for kind in Kind})
        return RegistryCounts(
            tasks=MappingProxyType(dict(tasks)),
            agents=MappingProxyType(dict(agents)),
            records=MappingProxyType({k: n for k, n in records.items() if n}),
        )

    def changes(
        self, after: FeedCursor | None = None, *, task_id: str | None = None, limit: int = 100
    ) -> tuple[Change, ...]:
        """See RegistryStore.changes."""
        check_limit(limit)
        with self._locked():
            held = list(self._tasks.values())
            if task_id is not None:
                held = [self._tasks[task_id]] if task_id in self._tasks else []
            # Tasks without new changes may still have lines below the floor. A read starts above
            # it, so that every cursor it returns can be resumed from.
            start = max((h.floor for h in held), default=0)
            if after is not None:
                if after.feed_id != self._feed_id:
                    raise cursor_expired("it belongs to another feed")
                if after.number < start:
                    raise cursor_expired("those changes were dropped")
                start = after.number
            found = [
                change
                for h in held
                for change in h.feed[bisect_right(h.feed, start, key=lambda c: c.cursor.number) :]
            ]
        found.sort(key=lambda c: c.cursor.number)
        return tuple(found[:limit])

    def close(self) -> None:
        """See RegistryStore.close."""
        self._closed = True

    # -- a move's target ---------------------------------------------------------------------

    def apply(self, change: Change) -> Commit:
        """See MoveTarget.apply."""
        with self._locked():
            check_replication(self._stamps.get(ROLE))
            held = self._tasks.get(change.changeset.task_id)
            if held is not None:
                before = _replay(held, change.changeset, change.digest)
                if before is not None:
                    return before
            check_next(
                change,
                lineage=held.lineage if held else "",
                revision=held.revision if held else 0,
                chain=held.chain if held else "",
            )
            if change.cursor.number <= self._number and self._feed_id != change.cursor.feed_id:
                raise own_changes()
            self._feed_id = change.cursor.feed_id
            return self._apply(change, again=True)

    def apply_all(self, changes: Sequence[Change]) -> None:
        """See MoveTarget.apply_all."""
        with self._locked():
            check_replication(self._stamps.get(ROLE))
            reached: dict[str, tuple[int, str]] = {}
            for change in changes:
                task_id = change.changeset.task_id
                held = self._tasks.get(task_id)
                at = (held.revision, held.chain) if held else (0, "")
                stands, chain = reached.get(task_id, at)
                other = held is not None and held.lineage != change.lineage
                if other or change.revision > stands:
                    lineage = held.lineage if held else ""
                    check_next(change, lineage=lineage, revision=stands, chain=chain)
                    stands, chain = change.revision, change.chain
                reached[task_id] = stands, chain
            for change in changes:
                self.apply(change)

    def replace(
        self,
        snapshot: TaskSnapshot,
        histories: Iterable[History],
        *,
        feed: tuple[Change, ...] = (),
    ) -> None:
        """See MoveTarget.replace."""
        streamed = {(KINDS[type(h)], record_key(h)): h for h in histories}
        with self._locked():
            check_replication(self._stamps.get(ROLE))
            held = self._tasks.get(snapshot.task.task_id)
            if (
                held is not None
                and held.lineage == snapshot.lineage
                and held.revision >= snapshot.revision
            ):
                return
            floor, expired = forgotten_by(
                feed, last_number=self._number, updated_at=snapshot.updated_at
            )
            self._tasks[snapshot.task.task_id] = _Held(
                snapshot.lineage,
                TaskState.of(snapshot),
                snapshot.revision,
                snapshot.updated_at,
                streamed,
                list(feed),
                max(floor, held.floor if held else 0),
                expired,
                snapshot.chain,
            )
            if feed:
                self._feed_id = feed[-1].cursor.feed_id
                self._number = max(self._number, feed[-1].cursor.number)

    def read_stamp(self, name: str) -> str | None:
        """See MoveTarget.read_stamp."""
        with self._locked():
            return self._stamps.get(name)

    def write_stamp(self, name: str, value: str) -> None:
        """See MoveTarget.write_stamp."""
        with self._locked():
            self._stamps[name] = value

    # -- leases ------------------------------------------------------------------------------

    def acquire_lease(self, name: str, holder: str, *, seconds: float) -> Lease | None:
        """See Leases.acquire_lease."""
        with self._locked():
            return self._leases.acquire_lease(name, holder, seconds=seconds)

    def release_lease(self, lease: Lease) -> bool:
        """See Leases.release_lease."""
        with self._locked():
            return self._leases.release_lease(lease)

    def lease_holder(self, name: str) -> Lease | None:
        """See Leases.lease_holder."""
        with self._locked():
            return self._leases.lease_holder(name)

    def _locked(self) -> threading.RLock:
        if self._closed:
            raise StoreClosed("the store is closed", next_step="Open it again")
        return self._lock

    def _held(self, task_id: str) -> _Held:
        try:
            return self._tasks[task_id]
        except KeyError:
            raise _not_found(task_id) from None


def _not_found(task_id: str) -> TaskNotFound:
    return TaskNotFound(f"there is no task {task_id}", next_step="list_tasks shows all tasks")


def _replay(held: _Held, changeset: Changeset, digest: str) -> Commit | None:
    for change in reversed(held.feed):
        if change.changeset.id == changeset.id:
            check_same_content(changeset, digest, change.digest)
            return replace(commit_of(change), replayed=True)
    return None


def _records(held: _Held, kind: Kind) -> list[Record]:
    if kind in HISTORIES:
        return [r for (k, _), r in held.histories.items() if k is kind]
    return list(held.state.records(kind))
