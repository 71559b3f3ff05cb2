"""One store over two: in phases 0 to 2 the source decides and the target follows; from phase 3 on
only the target is used.

The target's (lineage, revision) of a task is its durable replication position. A target that fails
never fails a caller: its position stays behind, and it catches up with the next write, read or
reconcile.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

from backends.dual_write.best_effort import BackingOff, BackOff, BestEffort
from backends.dual_write.comparison import compare_snapshots
from backends.dual_write.open_stores import OpenStores
from backends.dual_write.replicator import Replicator
from backends.dual_write.role_stamps import Roles
from backends.dual_write.stamp import refuse_lost, stamp_target
from backends.dual_write.throttle import SharedPace, is_shared
from registry_api.capabilities import Compacted, ForeignWriters, MigrationSource, provides
from registry_api.client import all_tasks, compactable
from registry_api.errors import BackendMismatch, TaskNotFound
from registry_api.leases import FileLeases, Lease, Leases
from registry_api.migration import MigrationPhase, Mismatch, PhaseFile, PhaseRecord
from registry_api.records import (
    ALL,
    ALL_RECORDS,
    Change,
    Changeset,
    Commit,
    FeedCursor,
    Head,
    Kind,
    Page,
    Record,
    RecordQuery,
    Refs,
    RegistryCounts,
    TaskQuery,
    TaskSnapshot,
    TaskSummary,
    check_query,
    check_tasks,
    validate_changeset,
)
from registry_api.roles import Role
from registry_api.store import Capability, RegistryStore, StoreInfo

__all__ = ["DualWriteStore"]

T = TypeVar("T")

_REPLICATED = {MigrationPhase.PARALLEL_WRITE, MigrationPhase.READ_MIGRATION}

_OF_A_MOVE = {
    Capability.MULTI_PROCESS,
    Capability.PERSISTENT,
    Capability.DURABLE,
    Capability.LOGGED,
}


class DualWriteStore:
    """A source and a target behind one contract; every operation reads the phase again."""

    def __init__(
        self,
        stores: OpenStores,
        control: PhaseFile,
        roles: Roles,
        *,
        compare: float,
        on_mismatch: Callable[[list[Mismatch]], None],
        count: Callable[[str, int], None] | None = None,
        observe: Callable[[str, float, str], None] = lambda *_: None,
    ) -> None:
        self.stores = stores
        self.roles = roles
        self.followed = Counter[str]()  # event counts since the store was opened: procs.COUNTS
        self._publish = count
        self._observe = observe
        self._control = control
        self._compare = compare
        self._on_mismatch = on_mismatch
        self._replicator: tuple[str, Replicator] | None = None  # and the move that it is for
        self._lock = threading.Lock()
        self._back_off = BackOff()
        self._pace = SharedPace()
        self._noticed: PhaseRecord | None = None
        self._target_checked: PhaseRecord | None = None
        self._info: tuple[PhaseRecord, StoreInfo] | None = None

    @property
    def info(self) -> StoreInfo:
        """The writer of record's description; named ``dual`` where a move is under way, or where
        programs outside the contract edit the files of the source.
        """
        record = self._current()
        if self._info is None or self._info[0] is not record:
            logged, store = self._writer(record), self.stores.get(record.writer, record)
            info = store.info
            if record.move or provides(store, ForeignWriters):
                info = replace(info, name="dual", capabilities=info.capabilities & _OF_A_MOVE)
            capabilities = info.capabilities
            if not is_shared(store) or provides(store, Leases):
                capabilities |= {Capability.LEASES}
            if logged is not store:
                capabilities |= {Capability.LOGGED}
            self._info = record, replace(info, capabilities=capabilities)
        return self._info[1]

    # -- leases ------------------------------------------------------------------------------

    def _leases(self) -> Leases:
        """Return where the leases are now: in the writer of record where other hosts may use it,
        else in files of the workspace.
        """
        record = self._current()
        self._writer(record)
        store = self.stores.get(record.writer, record)
        if is_shared(store) and provides(store, Leases):
            return store
        return FileLeases(self._control.path.with_name("leases"))

    def acquire_lease(self, name: str, holder: str, *, seconds: float) -> Lease | None:
        """See Leases.acquire_lease."""
        return self._leases().acquire_lease(name, holder, seconds=seconds)

    def release_lease(self, lease: Lease) -> bool:
        """See Leases.release_lease."""
        return self._leases().release_lease(lease)

    def lease_holder(self, name: str) -> Lease | None:
        """See Leases.lease_holder."""
        return self._leases().lease_holder(name)

    def _count(self, what: str, n: int = 1) -> None:
        self.followed[what] += n
        if self._publish is not None:
            self._publish(what, n)

    @property
    def inner(self) -> RegistryStore | None:
        """Return the source: ``find_capability`` asks it about the legacy system and the logs.

        None where a move has removed it.
        """
        record = self._current()
        if _is_removed(record):
            return None
        return self.stores.logged(record.source, record)

    def record(self) -> PhaseRecord:
        """Return the move as it is recorded now."""
        return self._control.current()

    def _current(self) -> PhaseRecord:
        """Return the record, and close what it no longer names; called by every operation.

        An operation runs inside the gate: none still uses a store that a later record has left.
        """
        record = self._control.current()
        if record is not self._noticed:
            with self._lock:
                before = self._noticed
                if before is not None and _is_another_registry(before, record):
                    raise BackendMismatch(
                        f"this process uses {before.source}, but the move of its workspace is "
                        f"{record.source} -> {record.target}",
                        next_step="Give this process a workspace of its own",
                    )
                self._replicator = None  # it may hold a store that is closed now
                places = {record.target} if _is_removed(record) else {record.source, record.target}
                if before is not None and record.epoch > before.epoch + 1:
                    places = set()  # a store of that name may have been removed and made again
                self.stores.keep_only(places)
                self._noticed = record
        return record

    @property
    def source(self) -> RegistryStore:
        """The source of the recorded move."""
        record = self.record()
        return self.stores.get(record.source, record)

    def open_target(self, record: PhaseRecord) -> RegistryStore:
        """Return the record's target; refuse one that was lost, or belongs to another registry."""
        target = self.stores.get(record.target, record)
        refuse_lost(target, record)
        self.roles.refuse_stranger(target, record, record.target)
        return target

    def look_at(self, place: str) -> RegistryStore:
        """Open a store for reading only, apart from the others; its caller closes it."""
        return self.stores.look_at(place, self.record())

    def open_source(self, record: PhaseRecord) -> RegistryStore:
        """Return the record's source; refuse one that belongs to another registry."""
        source = self.stores.get(record.source, record)
        self.roles.refuse_stranger(source, record, record.source)
        return source

    def replicator(self) -> Replicator | None:
        """Return the replicator, None in phase 0.

        Raises what opening the target raises, and Unavailable while it is not tried again after a
        failure.
        """
        record = self.record()
        if record.phase is MigrationPhase.SOURCE_ONLY:
            return None
        return self._replicated(record)

    def _replicated(self, record: PhaseRecord) -> Replicator:
        follows = record.phase < MigrationPhase.WRITE_CUTOVER
        if follows and self._back_off.is_down:
            raise BackingOff(
                f"the target {record.target} failed a short while ago and is not tried again yet",
                next_step="registry-backend status",
            )
        with self._lock:
            if self._replicator is None or self._replicator[0] != record.move:
                target = self.open_target(record)
                self._replicator = record.move, Replicator(self.open_source(record), target)
                stamp_target(target, record)
                if follows and self.roles.of(target) is None:  # lost, and made again
                    self.roles.give(target, record, Role.REPLICA, writer=record.writer)
            return self._replicator[1]

    def drop_source(self) -> None:
        """Close the source, which was removed; it is opened again when it is needed."""
        with self._lock:
            self._replicator = None
            self.stores.drop(self.record().source)

    def logged_target(self) -> RegistryStore:
        """Return the target, wrapped so that it continues the logs that the source has kept."""
        record = self.record()
        self.open_target(record)
        return self.stores.logged(record.target, record)

    def _writer(self, record: PhaseRecord) -> RegistryStore:
        """Return the writer of record, with its logs."""
        if record.phase >= MigrationPhase.WRITE_CUTOVER:
            if self._target_checked is not record:
                self.open_target(record)
                self._target_checked = record
            return self.stores.logged(record.target, record)
        return self.stores.logged(record.source, record)

    def _reader(self, record: PhaseRecord) -> RegistryStore:
        """Return the writer of record without its logs, which only commits write."""
        if record.phase >= MigrationPhase.WRITE_CUTOVER:
            self._writer(record)
        return self.stores.reader(record.writer, record)

    def catch_up_for(self, seconds: float) -> None:
        """Let lagging tasks catch up for at most ``seconds``; the others do when they are used."""
        end = time.monotonic() + seconds
        with self._best_effort():
            replicator = self.replicator()
            if replicator is None or self.record().phase not in _REPLICATED:
                return
            for task_id, _ in self.heads():
                if time.monotonic() > end:
                    return
                self._count("healed", replicator.catch_up(task_id))

    def _best_effort(self) -> BestEffort:
        return BestEffort(self._back_off)

    def _reads_target(self) -> bool:
        return self.record().phase is MigrationPhase.READ_MIGRATION

    def keep_pace(self) -> None:
        """Wait before a commit while the switch of another host copies the store in use."""
        # Outside the gate: only what is open is asked, since a switch may leave it at any moment.
        # So the record that the last operation saw will do.
        record = self._noticed or self.record()
        store = self.stores.opened(record.writer)
        if store is not None:
            self._pace.keep(store)

    # -- writing -----------------------------------------------------------------------------

    def commit(self, changeset: Changeset) -> Commit:
        """See RegistryStore.commit: the source's commit decides, then the target follows."""
        record = self._current()
        commit = self._writer(record).commit(changeset)
        if record.phase not in _REPLICATED:
            return commit
        with self._best_effort():
            self._follow(changeset, commit)
            return commit
        self._count("lagging")  # the write is committed; the replication position shows the gap
        return commit

    def _follow(self, changeset: Changeset, commit: Commit) -> None:
        replicator = self.replicator()
        if replicator is None:
            return
        if commit.replayed:
            self._count("healed", replicator.catch_up(commit.task_id))
            return
        change = validate_changeset(changeset, self.source.info.limits)
        replicator.apply(
            Change(
                cursor=commit.cursor,
                lineage=commit.lineage,
                revision=commit.revision,
                changeset=change.changeset,
                digest=change.digest,
                chain=commit.chain,
            )
        )
        self._count("mirrored")

    # -- reading -----------------------------------------------------------------------------

    def load(self, task_id: str, *, only: Refs | None = None) -> TaskSnapshot:
        """See RegistryStore.load."""
        record = self._current()
        if record.phase is not MigrationPhase.READ_MIGRATION:
            snapshot = self._reader(record).load(task_id, only=only)
            if record.phase in _REPLICATED and self._is_sampled():
                self._compared("load", snapshot, lambda s: s.load(task_id, only=only), task_id)
            return snapshot
        source = self.stores.get(record.source, record)
        head = source.head(task_id)
        with self._best_effort():
            replicator = self._replicated(record)
            for _ in range(2):
                # Data and position are of one snapshot of the target: no write comes in between.
                try:
                    found = replicator.target.load(task_id, only=only)
                except TaskNotFound:
                    found = None
                level = found and found.is_level(head)
                if found and level and not replicator.prove(task_id):
                    if self._is_sampled():
                        self._compared("load", found, lambda s: s.load(task_id, only=only), task_id)
                    return found
                self._count("healed", replicator.catch_up(task_id))
                head = source.head(task_id)
        self._count("fallbacks")
        return source.load(task_id, only=only)

    # -- comparing a sample ------------------------------------------------------------------

    def _is_sampled(self) -> bool:
        return bool(self._compare) and random.random() < self._compare

    def _compared(
        self, op: str, answer: T, ask: Callable[[RegistryStore], T], task_id: str | None
    ) -> None:
        """Compare an answer with the other store's; a failure here never reaches the caller."""
        start = time.monotonic()
        with self._best_effort():
            replicator = self.replicator()
            if replicator is None:
                return
            other = ask(self.source if self._reads_target() else replicator.target)
            outcome = "matched"
            if other != answer:
                # Both are asked again. It is a difference only if both were at one position before
                # and after that; otherwise a write or a catch-up came in between.
                before = self._positions(replicator, task_id)
                still = ask(self.source), ask(replicator.target)
                level = all(mine == theirs for mine, theirs in before.values())
                level = level and before == self._positions(replicator, task_id)
                outcome = "mismatched" if level and still[0] != still[1] else "in_flight"
                if outcome == "mismatched":
                    self._on_mismatch(_named(op, task_id, *still))
            self._count("compared")
            if outcome != "matched":
                self._count(outcome)
            self._count(f"{op}.{outcome}")
            self._observe(f"compare.{op}", time.monotonic() - start, outcome)

    def _positions(
        self, replicator: Replicator, task_id: str | None
    ) -> dict[str, tuple[Head, Head]]:
        """Return the heads of each task asked for, in the source and in the target."""
        return {name: (head, replicator.target.head(name)) for name, head in self.heads(task_id)}

    def _list(self, op: str, task_id: str | None, ask: Callable[[RegistryStore], T]) -> T:
        """Ask the target if it is up to date for the tasks asked for, else the source."""
        record = self._current()
        reader = self._reader(record)
        if record.phase is MigrationPhase.READ_MIGRATION:
            with self._best_effort():
                replicator = self._replicated(record)
                if self._follows(replicator, task_id):
                    found = ask(replicator.target)
                    if self._is_sampled():
                        self._compared(op, found, ask, task_id)
                    return found
            self._count("fallbacks")
            return ask(reader)
        found = ask(reader)
        if record.phase in _REPLICATED and self._is_sampled():
            self._compared(op, found, ask, task_id)
        return found

    def _follows(self, replicator: Replicator, task_id: str | None) -> bool:
        """Return whether the target, after catching up, has the source's tasks and no others."""
        heads = list(self.heads(task_id))
        for name, head in heads:
            position = replicator.target.head(name)
            level = position.is_level(head)
            if not level or replicator.prove(name):
                self._count("healed", replicator.catch_up(name))
                position = replicator.target.head(name)
                if position.position < head.position:
                    return False
        return task_id is not None or replicator.target.counts().total_tasks == len(heads)

    def heads(self, task_id: str | None = None) -> Iterable[tuple[str, Head]]:
        """Return the heads of the source's tasks, after absorbing foreign edits."""
        if task_id is not None:
            return [(task_id, self.source.head(task_id))]
        source = self.source
        if provides(source, ForeignWriters):
            return source.absorb()
        if provides(source, MigrationSource):
            return source.moved({}).items()
        return [(t.task_id, source.head(t.task_id)) for t in all_tasks(source, TaskQuery())]

    def head(self, task_id: str) -> Head:
        """See RegistryStore.head."""
        return self._reader(self._current()).head(task_id)

    def list_tasks(
        self, query: TaskQuery = ALL, *, after: str | None = None, limit: int = 100
    ) -> Page[TaskSummary]:
        """See RegistryStore.list_tasks."""
        query = check_tasks(query)
        return self._list(
            "list_tasks", None, lambda s: s.list_tasks(query, after=after, limit=limit)
        )

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
        return self._list(
            "list_records",
            query.task_id,
            lambda s: s.list_records(kind, query, after=after, limit=limit),
        )

    def counts(self) -> RegistryCounts:
        """See RegistryStore.counts."""
        return self._list("counts", None, lambda s: s.counts())

    def changes(
        self, after: FeedCursor | None = None, *, task_id: str | None = None, limit: int = 100
    ) -> tuple[Change, ...]:
        """See RegistryStore.changes: the writer of record serves the feed."""
        return self._reader(self._current()).changes(after, task_id=task_id, limit=limit)

    def compact(self, after: int = 0, *, dry_run: bool = False) -> Compacted:
        """See Compactable.compact: of the writer of record; a replica follows with its writes."""
        record = self._current()
        self._writer(record)
        store = self.stores.get(record.writer, record)
        return compactable(store).compact(after, dry_run=dry_run)

    def close(self) -> None:
        """See RegistryStore.close."""
        self.stores.close()


def _is_another_registry(before: PhaseRecord, record: PhaseRecord) -> bool:
    """Return whether a first record is about another store than the one that was opened."""
    known = {record.source, *(move.source for move in record.completed)}
    return before.epoch == 0 and before.source not in known


def _is_removed(record: PhaseRecord) -> bool:
    """Return whether the move has removed its source: opening it would create another one.

    Files that other programs edit are looked at in phase 4 too.
    """
    return record.phase is MigrationPhase.CLEANUP and not record.foreign_writers


def _named(op: str, task_id: str | None, mine: object, other: object) -> list[Mismatch]:
    if isinstance(mine, TaskSnapshot) and isinstance(other, TaskSnapshot):
        return compare_snapshots(mine, other)
    return [Mismatch(task_id=task_id or "", pointer=f"/{op}", source=str(mine), target=str(other))]
