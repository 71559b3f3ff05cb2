"""Mutants: stores with one fault each; the contract tests must detect every one.

``mutant://NAME`` is the sqlite store with one fault. The docstring of its class says in one
sentence what is wrong.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, ClassVar

from registry_api import (
    AgentStatus,
    Capability,
    Change,
    Changeset,
    Commit,
    Delete,
    FeedCursor,
    Head,
    Kind,
    Page,
    Put,
    Record,
    RecordQuery,
    Refs,
    RegistryCounts,
    RegistryStore,
    StoreInfo,
    Task,
    TaskQuery,
    TaskSnapshot,
    TaskSummary,
    errors,
    new_changeset,
)
from registry_api.records import ALL, ALL_RECORDS, Finding, ProgressEntry
from registry_api.wrappers import StoreWrapper

__all__ = ["MUTANTS"]

MUTANTS: dict[str, Callable[[RegistryStore], RegistryStore]] = {}


def mutant(kind: type[StoreWrapper]) -> type[StoreWrapper]:
    """Register a mutant under its class name in kebab case: LostUpdate is ``lost-update``."""
    name = "".join(f"-{c.lower()}" if c.isupper() else c for c in kind.__name__)
    MUTANTS[name.strip("-")] = kind
    return kind


def _again(changeset: Changeset, **fields: Any) -> Changeset:
    """Return a copy of the changeset with a new id and the given fields."""
    ops = fields.pop("ops", changeset.ops)
    expected = fields.pop("expected", changeset.expected)
    task_id = fields.pop("task_id", changeset.task_id)
    return new_changeset(
        task_id, ops, expected=expected, actor=changeset.actor, at=changeset.at, **fields
    )


def _records(changeset: Changeset, change: Callable[[Any], Any]) -> Changeset:
    """Return the changeset with ``change`` applied to each record."""
    ops = tuple(
        replace(op, record=change(op.record)) if isinstance(op, Put) else op for op in changeset.ops
    )
    return replace(changeset, ops=ops)


@mutant
class LostUpdate(StoreWrapper):
    """Checks the expected revision before the write, not together with it, so that another write in
    between is overwritten.
    """

    def commit(self, changeset: Changeset) -> Commit:
        head = self.inner.head(changeset.task_id)
        if changeset.expected is None or head.revision != changeset.expected:
            return self.inner.commit(changeset)
        while True:
            time.sleep(0.002)
            head = self.inner.head(changeset.task_id)
            try:
                return self.inner.commit(replace(changeset, expected=head.revision))
            except errors.Conflict:
                continue


@mutant
class NoCompare(StoreWrapper):
    """Accepts every write, whatever revision it expects."""

    def commit(self, changeset: Changeset) -> Commit:
        try:
            return self.inner.commit(changeset)
        except errors.Conflict as conflict:
            return self.inner.commit(replace(changeset, expected=conflict.actual))


@mutant
class OneByOne(StoreWrapper):
    """Applies the ops of a changeset in separate commits, so that readers see a part of it."""

    def commit(self, changeset: Changeset) -> Commit:
        if changeset.expected in {None, 0} or len(changeset.ops) < 2:
            return self.inner.commit(changeset)
        for op in changeset.ops[:-1]:
            done = self.inner.commit(_again(changeset, ops=[op]))
            changeset = replace(changeset, expected=done.revision)
            time.sleep(0.002)
        return self.inner.commit(replace(changeset, ops=changeset.ops[-1:]))


@mutant
class TornRead(StoreWrapper):
    """Assembles a snapshot from two separate reads."""

    def load(self, task_id: str, *, only: Refs | None = None) -> TaskSnapshot:
        first = self.inner.load(task_id, only=only)
        time.sleep(0.002)
        second = self.inner.load(task_id, only=only)
        return replace(second, agents=(*first.agents[:1], *second.agents[1:]))


@mutant
class FeedGap(StoreWrapper):
    """Omits changesets without an expected revision (appends) from the feed."""

    def changes(
        self, after: FeedCursor | None = None, *, task_id: str | None = None, limit: int = 100
    ) -> tuple[Change, ...]:
        found = self.inner.changes(after, task_id=task_id, limit=limit)
        return tuple(c for c in found if c.changeset.expected is not None) or found[:1]


@mutant
class FeedOutOfOrder(StoreWrapper):
    """Returns the changes of a feed page newest first."""

    def changes(
        self, after: FeedCursor | None = None, *, task_id: str | None = None, limit: int = 100
    ) -> tuple[Change, ...]:
        return self.inner.changes(after, task_id=task_id, limit=limit)[::-1]


@mutant
class CursorSkip(StoreWrapper):
    """Skips the first change after a cursor."""

    def changes(
        self, after: FeedCursor | None = None, *, task_id: str | None = None, limit: int = 100
    ) -> tuple[Change, ...]:
        if after is not None:
            after = replace(after, number=after.number + 1)
        return self.inner.changes(after, task_id=task_id, limit=limit)


@mutant
class CursorOfAnyFeed(StoreWrapper):
    """Answers the cursor of another feed, or an expired one, with an empty page."""

    def changes(
        self, after: FeedCursor | None = None, *, task_id: str | None = None, limit: int = 100
    ) -> tuple[Change, ...]:
        try:
            return self.inner.changes(after, task_id=task_id, limit=limit)
        except errors.CursorExpired:
            return ()


@mutant
class ReplayApplied(StoreWrapper):
    """Applies a changeset again when it is sent a second time."""

    def commit(self, changeset: Changeset) -> Commit:
        done = self.inner.commit(changeset)
        if not done.replayed:
            return done
        head = self.inner.head(changeset.task_id)
        ops = [
            op
            for op in changeset.ops
            if not isinstance(op, Put) or not isinstance(op.record, ProgressEntry | Finding)
        ]
        if not ops:
            return done
        return self.inner.commit(_again(changeset, ops=ops, expected=head.revision))


@mutant
class ReplayRefused(StoreWrapper):
    """Answers a retry of an applied changeset with a Conflict."""

    def commit(self, changeset: Changeset) -> Commit:
        done = self.inner.commit(changeset)
        if done.replayed:
            raise errors.Conflict(changeset.task_id, expected=0, actual=done.revision)
        return done


@mutant
class ReplayForgotten(StoreWrapper):
    """Recognises only the changesets that the same store object committed."""

    def __init__(self, inner: RegistryStore) -> None:
        super().__init__(inner)
        self._mine = set[object]()

    def commit(self, changeset: Changeset) -> Commit:
        done = self.inner.commit(changeset)
        if done.replayed and changeset.id not in self._mine:
            raise errors.Conflict(changeset.task_id, expected=0, actual=done.revision)
        self._mine.add(changeset.id)
        return done


@mutant
class AnyContent(StoreWrapper):
    """Applies other content that is sent under a known changeset id."""

    def commit(self, changeset: Changeset) -> Commit:
        try:
            return self.inner.commit(changeset)
        except errors.IdempotencyMismatch:
            head = self.inner.head(changeset.task_id)
            return self.inner.commit(_again(changeset, expected=head.revision))


@mutant
class DeletesDropped(StoreWrapper):
    """Ignores deletes."""

    def commit(self, changeset: Changeset) -> Commit:
        ops = tuple(op for op in changeset.ops if not isinstance(op, Delete))
        if not ops:
            ops = (Put(self.inner.load(changeset.task_id).task),)
        return self.inner.commit(replace(changeset, ops=ops))


@mutant
class AppendCreates(StoreWrapper):
    """Creates the task when something is appended to a task that does not exist."""

    def commit(self, changeset: Changeset) -> Commit:
        try:
            return self.inner.commit(changeset)
        except errors.TaskNotFound:
            task = Task(task_id=changeset.task_id, created_at=changeset.at)
            self.inner.commit(_again(changeset, ops=[Put(task)], expected=0))
            return self.inner.commit(changeset)


@mutant
class CaseFolded(StoreWrapper):
    """Stores agent ids in lower case, as some file systems do with names."""

    def commit(self, changeset: Changeset) -> Commit:
        def folded(record: Any) -> Any:
            name = getattr(record, "agent_id", None)
            return record if name is None else replace(record, agent_id=name.lower())

        return self.inner.commit(_records(changeset, folded))


@mutant
class MillisecondsOnly(StoreWrapper):
    """Truncates times to milliseconds."""

    def commit(self, changeset: Changeset) -> Commit:
        def cut(record: Any) -> Any:
            at = getattr(record, "started_at", None)
            if at is None:
                return record
            return replace(record, started_at=at.replace(microsecond=at.microsecond // 1000 * 1000))

        return self.inner.commit(_records(changeset, cut))


@mutant
class UnknownFieldsDropped(StoreWrapper):
    """Drops unknown fields."""

    def commit(self, changeset: Changeset) -> Commit:
        def known(record: Any) -> Any:
            return replace(record, extra="{}") if getattr(record, "extra", None) else record

        return self.inner.commit(_records(changeset, known))


@mutant
class CountDrift(StoreWrapper):
    """Increments the count of running agents and never decrements it."""

    def __init__(self, inner: RegistryStore) -> None:
        super().__init__(inner)
        self._most = 0

    def counts(self) -> RegistryCounts:
        found = self.inner.counts()
        running = found.agents.get(AgentStatus.RUNNING, 0)
        self._most = max(self._most, running)
        if self._most > running:
            return replace(found, agents={**found.agents, AgentStatus.RUNNING: self._most})
        return found


@mutant
class StaleCache(StoreWrapper):
    """Caches a task and reads it again only after its own write."""

    def __init__(self, inner: RegistryStore) -> None:
        super().__init__(inner)
        self._held: dict[str, TaskSnapshot] = {}

    def load(self, task_id: str, *, only: Refs | None = None) -> TaskSnapshot:
        if only is not None:
            return self.inner.load(task_id, only=only)
        if task_id not in self._held:
            self._held[task_id] = self.inner.load(task_id)
        return self._held[task_id]

    def commit(self, changeset: Changeset) -> Commit:
        self._held.pop(changeset.task_id, None)
        return self.inner.commit(changeset)


@mutant
class AcknowledgedTooSoon(StoreWrapper):
    """Acknowledges a report shortly before it is written."""

    def commit(self, changeset: Changeset) -> Commit:
        head = self.inner.head(changeset.task_id)
        if changeset.expected is not None or not head.revision:
            return self.inner.commit(changeset)
        threading.Timer(0.05, self._later, [changeset]).start()
        last = self.inner.changes(task_id=changeset.task_id, limit=1)[0]
        cursor = replace(last.cursor, number=head.number + 1)
        return Commit(
            task_id=changeset.task_id,
            changeset_id=changeset.id,
            lineage=head.lineage,
            revision=head.revision + 1,
            cursor=cursor,
            replayed=False,
        )

    def _later(self, changeset: Changeset) -> None:
        self.inner.commit(changeset)


@mutant
class WrittenLater(StoreWrapper):
    """Acknowledges a report and writes it only at the next call."""

    def __init__(self, inner: RegistryStore) -> None:
        super().__init__(inner)
        self._held: Changeset | None = None
        self._turn = threading.RLock()

    def around(self, op: str, call: Callable[[], Any]) -> Any:
        with self._turn:
            self._write()
            return call()

    def _write(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            self.inner.commit(held)

    def commit(self, changeset: Changeset) -> Commit:
        with self._turn:
            self._write()
            head = self.inner.head(changeset.task_id)
            if changeset.expected is not None or not head.revision or len(changeset.ops) > 1:
                return self.inner.commit(changeset)
            if changeset.created() is None or head.number != head.revision:
                return self.inner.commit(changeset)
            feed = self.inner.changes(task_id=changeset.task_id, limit=1)[0].cursor.feed_id
            self._held = changeset
            return Commit(
                task_id=changeset.task_id,
                changeset_id=changeset.id,
                lineage=head.lineage,
                revision=head.revision + 1,
                cursor=FeedCursor(feed_id=feed, number=head.number + 1),
            )

    def close(self) -> None:
        with self._turn:
            self._write()
        super().close()


@mutant
class PartialRollback(StoreWrapper):
    """Applies the first op of a refused changeset."""

    def commit(self, changeset: Changeset) -> Commit:
        try:
            return self.inner.commit(changeset)
        except errors.RecordExists:
            self.inner.commit(_again(changeset, ops=changeset.ops[:1]))
            raise


@mutant
class PagesOverlap(StoreWrapper):
    """Repeats an item on every page after the first."""

    def list_records(
        self,
        kind: Kind,
        query: RecordQuery = ALL_RECORDS,
        *,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[Record]:
        found = self.inner.list_records(kind, query, after=after, limit=limit)
        if after is None or not found.items:
            return found
        return replace(found, items=(found.items[0], *found.items))


@mutant
class PagesByOffset(StoreWrapper):
    """Pages tasks by offset, so that an insert shifts all that follow."""

    def list_tasks(
        self, query: TaskQuery = ALL, *, after: str | None = None, limit: int = 100
    ) -> Page[TaskSummary]:
        start = int(after or 0) if (after or "0").isdigit() else 0
        items = self.inner.list_tasks(query, limit=1000).items[start : start + limit]
        more = str(start + limit) if len(items) == limit else None
        return Page(items=items, next=more)


@mutant
class DeadRevived(StoreWrapper):
    """Reopens an ended agent when a late report arrives."""

    def commit(self, changeset: Changeset) -> Commit:
        done = self.inner.commit(changeset)
        for op in changeset.ops:
            if isinstance(op, Put) and isinstance(op.record, ProgressEntry):
                snapshot = self.inner.load(changeset.task_id)
                for agent in snapshot.agents:
                    ended = agent.status in {AgentStatus.COMPLETED, AgentStatus.FAILED}
                    if ended and agent.agent_id == op.record.agent_id:
                        back = Put(replace(agent, status=AgentStatus.RUNNING))
                        return self.inner.commit(
                            _again(changeset, ops=[back], expected=done.revision)
                        )
        return done


@mutant
class TextAsPattern(StoreWrapper):
    """Treats % and _ in a text search as wildcards."""

    def list_tasks(
        self, query: TaskQuery = ALL, *, after: str | None = None, limit: int = 100
    ) -> Page[TaskSummary]:
        if query.text and set(query.text) & set("%_"):
            query = replace(query, text=query.text.strip("%_") or None)
        return self.inner.list_tasks(query, after=after, limit=limit)


@mutant
class HeadBehind(StoreWrapper):
    """Returns a task's head as it was one commit ago."""

    def __init__(self, inner: RegistryStore) -> None:
        super().__init__(inner)
        self._before: dict[str, Head] = {}

    def commit(self, changeset: Changeset) -> Commit:
        self._before[changeset.task_id] = self.inner.head(changeset.task_id)
        return self.inner.commit(changeset)

    def head(self, task_id: str) -> Head:
        return self._before.get(task_id) or self.inner.head(task_id)


@mutant
class UntypedError(StoreWrapper):
    """Raises the engine's own errors instead of the contract's."""

    def load(self, task_id: str, *, only: Refs | None = None) -> TaskSnapshot:
        try:
            return self.inner.load(task_id, only=only)
        except errors.TaskNotFound as error:
            raise KeyError(task_id) from error


@mutant
class MixedFields(StoreWrapper):
    """Reads the fields of a record in two separate reads, so that they may be of two revisions."""

    def load(self, task_id: str, *, only: Refs | None = None) -> TaskSnapshot:
        first = self.inner.load(task_id, only=only)
        time.sleep(0.002)
        second = self.inner.load(task_id, only=only)
        types = {a.agent_id: a.type for a in first.agents}
        agents = (replace(a, type=types.get(a.agent_id, a.type)) for a in second.agents)
        return replace(second, agents=tuple(agents))


@mutant
class FindingsNotInFeed(StoreWrapper):
    """Omits findings from the changesets in the feed."""

    def changes(
        self, after: FeedCursor | None = None, *, task_id: str | None = None, limit: int = 100
    ) -> tuple[Change, ...]:
        def without(changeset: Changeset) -> Changeset:
            ops = tuple(
                op
                for op in changeset.ops
                if not (isinstance(op, Put) and isinstance(op.record, Finding))
            )
            return replace(changeset, ops=ops or changeset.ops)

        found = self.inner.changes(after, task_id=task_id, limit=limit)
        return tuple(replace(c, changeset=without(c.changeset)) for c in found)


@mutant
class DeclaresTooMuch(StoreWrapper):
    """Declares a capability that it does not have."""

    @property
    def info(self) -> StoreInfo:
        info = self.inner.info
        return replace(info, capabilities=info.capabilities | {Capability.MIGRATION_SOURCE})


@mutant
class VersionUnclear(StoreWrapper):
    """Declares a contract version that is not MAJOR.MINOR."""

    @property
    def info(self) -> StoreInfo:
        return replace(self.inner.info, contract_version="1")


@mutant
class WritesWhenReading(StoreWrapper):
    """Accepts commits although it was opened for reading only."""

    context: ClassVar[dict[str, Any]] = {"read_only": False}


@mutant
class FilterIgnored(StoreWrapper):
    """Ignores the severity when it lists findings."""

    def list_records(
        self,
        kind: Kind,
        query: RecordQuery = ALL_RECORDS,
        *,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[Record]:
        query = replace(query, severity=None)
        return self.inner.list_records(kind, query, after=after, limit=limit)


@mutant
class BadQueryAnswered(StoreWrapper):
    """Answers an invalid query with an empty page."""

    def list_records(
        self,
        kind: Kind,
        query: RecordQuery = ALL_RECORDS,
        *,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[Record]:
        try:
            return self.inner.list_records(kind, query, after=after, limit=limit)
        except errors.InvalidQuery:
            return Page(items=())


@mutant
class SinceTooLate(StoreWrapper):
    """Leaves out tasks that were created exactly at the requested time."""

    def list_tasks(
        self, query: TaskQuery = ALL, *, after: str | None = None, limit: int = 100
    ) -> Page[TaskSummary]:
        if query.since is not None:
            query = replace(query, since=query.since + timedelta(microseconds=1))
        return self.inner.list_tasks(query, after=after, limit=limit)


@mutant
class RefusalInFeed(StoreWrapper):
    """Records a refused changeset as a revision of the task."""

    def commit(self, changeset: Changeset) -> Commit:
        try:
            return self.inner.commit(changeset)
        except errors.Conflict as conflict:
            if conflict.actual:
                task = Put(self.inner.load(changeset.task_id).task)
                self.inner.commit(_again(changeset, ops=[task], expected=conflict.actual))
            raise


@mutant
class LongTextCut(StoreWrapper):
    """Truncates a long message."""

    def commit(self, changeset: Changeset) -> Commit:
        def cut(record: Any) -> Any:
            said = getattr(record, "message", None)
            return replace(record, message=said[:20]) if said else record

        return self.inner.commit(_records(changeset, cut))


@mutant
class PartIsWhole(StoreWrapper):
    """Loads the whole task although only a part was requested."""

    def load(self, task_id: str, *, only: Refs | None = None) -> TaskSnapshot:
        return replace(self.inner.load(task_id), partial=only is not None)


@mutant
class OpsReordered(StoreWrapper):
    """Applies all deletes before all puts, whatever the order of the ops."""

    def commit(self, changeset: Changeset) -> Commit:
        ops = sorted(changeset.ops, key=lambda op: isinstance(op, Put))
        return self.inner.commit(replace(changeset, ops=tuple(ops)))


@mutant
class RecordedStatusLost(StoreWrapper):
    """Returns the derived status of a task as its recorded status."""

    def list_tasks(
        self, query: TaskQuery = ALL, *, after: str | None = None, limit: int = 100
    ) -> Page[TaskSummary]:
        found = self.inner.list_tasks(query, after=after, limit=limit)
        return replace(
            found, items=tuple(replace(t, recorded_status=t.status) for t in found.items)
        )


@mutant
class ReportsEndAgents(StoreWrapper):
    """Ends an agent when a report says ``completed``."""

    def commit(self, changeset: Changeset) -> Commit:
        done = self.inner.commit(changeset)
        for op in changeset.ops:
            entry = op.record if isinstance(op, Put) else None
            if isinstance(entry, ProgressEntry) and entry.status == "completed":
                agent = self.inner.load(changeset.task_id).agent(entry.agent_id)
                if agent is not None:
                    ended = Put(replace(agent, status=AgentStatus.COMPLETED))
                    again = _again(changeset, ops=[ended], expected=done.revision)
                    return self.inner.commit(again)
        return done


class _Target(StoreWrapper):
    """A wrapper of a move target; the base class of the mutants of move targets."""

    inner: Any

    def apply(self, change: Change) -> Commit:
        found: Commit = self.inner.apply(change)
        return found

    def apply_all(self, changes: Sequence[Change]) -> None:
        self.inner.apply_all(changes)

    def replace(
        self,
        snapshot: TaskSnapshot,
        histories: Iterable[ProgressEntry | Finding],
        *,
        feed: tuple[Change, ...] = (),
    ) -> None:
        self.inner.replace(snapshot, histories, feed=feed)

    def read_stamp(self, name: str) -> str | None:
        found: str | None = self.inner.read_stamp(name)
        return found

    def write_stamp(self, name: str, value: str) -> None:
        self.inner.write_stamp(name, value)


@mutant
class GapHidden(_Target):
    """Reports a change as applied although it does not follow the task's revision."""

    def apply(self, change: Change) -> Commit:
        try:
            return super().apply(change)
        except errors.NotNext:
            return Commit(
                task_id=change.changeset.task_id,
                changeset_id=change.changeset.id,
                lineage=change.lineage,
                revision=change.revision,
                cursor=change.cursor,
            )


@mutant
class HalfApplied(_Target):
    """Applies several changes one by one and keeps those before the one that fails."""

    def apply_all(self, changes: Sequence[Change]) -> None:
        for change in changes:
            self.inner.apply(change)


@mutant
class HistoriesLeftBehind(_Target):
    """Replaces a task without its histories."""

    def replace(
        self,
        snapshot: TaskSnapshot,
        histories: Iterable[ProgressEntry | Finding],
        *,
        feed: tuple[Change, ...] = (),
    ) -> None:
        self.inner.replace(snapshot, (), feed=feed)


@mutant
class AppendRefused(_Target):
    """Refuses a change that appends a finding which ``replace`` already brought."""

    def apply(self, change: Change) -> Commit:
        task_id = change.changeset.task_id
        head = self.inner.head(task_id)
        if (head.lineage, head.revision) == (change.lineage, change.revision - 1):
            page = self.inner.list_records(Kind.FINDING, RecordQuery(task_id=task_id))
            for op in change.changeset.ops:
                if isinstance(op, Put) and op.record in page.items:
                    raise errors.RecordExists("it is there", next_step="Give it another id")
        return super().apply(change)


@mutant
class FeedLeftBehind(_Target):
    """Replaces a task with the last line of its feed only, so that older ids are unknown."""

    def replace(
        self,
        snapshot: TaskSnapshot,
        histories: Iterable[ProgressEntry | Finding],
        *,
        feed: tuple[Change, ...] = (),
    ) -> None:
        self.inner.replace(snapshot, histories, feed=feed[-1:])


@mutant
class StampsInMemory(_Target):
    """Keeps the stamps of a move in memory only."""

    def __init__(self, inner: RegistryStore) -> None:
        super().__init__(inner)
        self._stamps: dict[str, str] = {}

    def read_stamp(self, name: str) -> str | None:
        return self._stamps.get(name)

    def write_stamp(self, name: str, value: str) -> None:
        self._stamps[name] = value


@mutant
class OpenAfterClose(StoreWrapper):
    """Keeps working after it was closed."""

    def close(self) -> None:
        pass
