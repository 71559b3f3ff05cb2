"""One changeset inside one write transaction: rows, derived status, counters and the feed line."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from backends.sql.rows import TABLES, codec
from registry_api.authoring import KEEP_CHANGES, TRIM_BATCH
from registry_api.records import (
    ACTIVE_AGENT,
    KEY_FIELD,
    KINDS,
    TERMINAL_AGENT,
    Agent,
    AgentStatus,
    Changeset,
    Handover,
    History,
    Kind,
    Op,
    PhaseStatus,
    ProgressEntry,
    Put,
    Record,
    Task,
    TaskSnapshot,
    TaskStatus,
    agent_status,
    chain_of,
    created_at,
    effect_of_report,
    exists,
    record_key,
    stamp,
    task_status,
    unstamp,
)

__all__ = [
    "Execute",
    "Feed",
    "TaskRow",
    "Trimmed",
    "Writing",
    "lone_report",
    "read_task_row",
    "time_of_line",
    "write_counts",
]


_UNREAD = 200  # answers that a pipeline may leave unread

_STATUS = {status.value: status for status in TaskStatus}


class Execute(Protocol):
    """Runs a named statement with its parameters."""

    def __call__(self, name: str, /, **parameters: Any) -> Any:
        """Return the driver's cursor."""


@dataclass(slots=True, kw_only=True)
class TaskRow:
    """The columns of a task's row besides its record; revision 0: there is no row yet."""

    lineage: str = ""
    revision: int = 0
    status: TaskStatus | None = None
    recorded: TaskStatus = TaskStatus.INITIALIZED
    phases: int = 0
    agents: int = 0
    active_agents: int = 0
    expired_before: datetime | None = None
    chain: str = ""
    feed: Feed | None = None  # read together with the row

    def shown(self) -> tuple[TaskStatus | None, int, int, int]:
        """Return the columns that a summary shows; some of them are indexed."""
        return self.status, self.phases, self.agents, self.active_agents


class Feed(NamedTuple):
    """The state of the feed: its id, the number below which lines were dropped, the last number;
    the store's role stamp, which is read together with it; the last number of its sequence.
    """

    feed_id: str
    floor: int
    last: int
    role: str | None
    drawn: int

    @classmethod
    def of(cls, row: Sequence[Any]) -> Feed:
        """Build it from the columns of the statement ``feed_state``."""
        feed_id, floor, last, role, newest, drawn = row
        return cls(feed_id, int(floor or 0), max(int(last or 0), newest or 0), role, drawn or 0)


class Trimmed(NamedTuple):
    """The time of a task's oldest feed line, and how many older ones were dropped."""

    oldest: datetime
    lines: int


def time_of_line(changeset_id: str, at: str, now: datetime) -> datetime:
    """Return the time from which a feed line is kept.

    One in the future would keep all later lines from being dropped.
    """
    return min(created_at(uuid.UUID(changeset_id)) or unstamp(at), now)


def write_counts(execute: Execute, counted: Mapping[tuple[str, str], int]) -> None:
    """Write the changes of the counters (kind and status: number) that a transaction has collected:
    once, and in one order, since others change the same ones.
    """
    for (kind, status), n in sorted(counted.items()):
        if n:
            execute("count", kind=kind, status=status, n=n)


def lone_report(changeset: Changeset) -> ProgressEntry | None:
    """Return the report of a changeset that holds nothing else and expects no revision.

    None for one that another program wrote, and one that ends its agent.
    """
    if changeset.expected is not None or len(changeset.ops) != 1:
        return None
    (op,) = changeset.ops
    if not isinstance(op, Put) or not isinstance(op.record, ProgressEntry):
        return None
    return None if _is_special(op.record) else op.record


def _is_special(entry: ProgressEntry) -> bool:
    return entry.foreign or agent_status(entry.status) in TERMINAL_AGENT


def read_task_row(execute: Execute, task_id: str) -> TaskRow:
    """Return the task's row, or an empty one."""
    row = execute("task_state", task_id=task_id).fetchone()
    if row is None:
        return TaskRow()
    return TaskRow(
        lineage=row[0],
        revision=row[1],
        status=_STATUS[row[2]],
        recorded=_STATUS[row[3]],
        phases=row[4],
        agents=row[5],
        active_agents=row[6],
        expired_before=unstamp(row[7]) if row[7] else None,
        chain=chain_of(row[8], row[1]),
        feed=Feed.of(row[9:]),
    )


@dataclass(slots=True)
class Writing:
    """The application of a changeset's ops to rows.

    ``task`` is updated with each op and written at the end. ``again`` is set for a change that is
    replicated: an append whose identical record exists already counts as done.
    """

    execute: Execute
    task_id: str
    task: TaskRow
    again: bool = False
    shard: str = ""  # see Engine.counter_of
    pipelined: bool = False  # see Engine.pipelined
    pending: list[Callable[[], object]] = field(default_factory=list)
    counted: dict[tuple[str, str], int] = field(default_factory=dict)
    unsettled: bool = False  # whether the derived status may have changed
    _before: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        self._before = self.task.shown()

    def later(self, check: Callable[[], object]) -> None:
        """Look at an answer: at once, or in a pipeline before the next op and before the end."""
        if self.pipelined:
            self.pending.append(check)
        else:
            check()

    def settle(self) -> None:
        """Look at the answers that were put off; what follows from them may put off more."""
        while self.pending:
            self.pending.pop(0)()

    def create(self, record: Task, *, lineage: str) -> None:
        """Insert the row of a new task."""
        self.task = TaskRow(lineage=lineage, recorded=record.recorded_status)
        self._before = ()
        self.execute(
            "put_task",
            **codec(Kind.TASK).write(record),
            lineage=lineage,
            revision=0,
            updated_at="",
            status="",
            phases=0,
            agents=0,
            active_agents=0,
            feed_floor=0,
            expired_before=None,
            chain="",
        )
        self._count(Kind.TASK.value, "", 1)
        self.unsettled = True

    def apply(self, op: Op) -> None:
        """Apply one op; it, or the next call, raises RecordExists for an append whose id is
        taken.
        """
        self.settle()
        if not isinstance(op, Put):
            self._delete(op.kind, op.key)
            return
        match op.record:
            case Task() as record:
                row = codec(Kind.TASK).write(record)
                del row["task_id"]
                self.execute("set_task", of_task=self.task_id, **row)
                self.task.recorded = record.recorded_status
                self.unsettled = True
            case Agent() as record:
                self._put_agent(record)
            case ProgressEntry() as record if self._is_simple(record):
                self._report_at_once(record)
            case ProgressEntry() as record:
                self._report(record, self._append(record))
            case record if isinstance(record, History):
                self._append(record)
            case Handover() as record if self._has(Kind.HANDOVER, record.handover_id):
                raise exists(record)
            case record:
                self._put(record)

    def _has(self, kind: Kind, key: str | int) -> bool:
        row = self.execute(
            f"has_{TABLES[kind]}", task_id=self.task_id, **{KEY_FIELD[kind]: key}
        ).fetchone()
        return row is not None

    def _append(self, record: Record) -> dict[str, Any]:
        kind = KINDS[type(record)]
        row = codec(kind).write(record)
        added = self.execute(f"add_{TABLES[kind]}", **row)

        def check() -> None:
            if added.rowcount:
                self._count(kind.value, "", 1)
            else:
                self._check_same(record)

        self.later(check)
        return row

    def _check_same(self, record: Record) -> None:
        """Raise RecordExists unless ``again`` is set and the identical record exists."""
        kind, key = KINDS[type(record)], record_key(record)
        name = {"task_id": self.task_id, KEY_FIELD[kind]: key}
        row = self.execute(f"one_{TABLES[kind]}", **name).fetchone() if self.again else None
        if row is None or codec(kind).read(row) != record:
            raise exists(record)

    def _put(self, record: Record) -> None:
        kind = KINDS[type(record)]
        key = getattr(record, KEY_FIELD[kind])
        if not self._has(kind, key):
            self._count(kind.value, "", 1)
            self.task.phases += kind is Kind.PHASE
        self.execute(f"put_{TABLES[kind]}", **codec(kind).write(record))
        self.unsettled |= kind is Kind.PHASE

    def _put_agent(self, record: Agent) -> None:
        old = self._status_of(record.agent_id)
        self._recount(old, record.status)
        active = int(record.status in ACTIVE_AGENT)
        self.execute("put_agents", **codec(Kind.AGENT).write(record), active=active)

    def _status_of(self, agent_id: str) -> AgentStatus | None:
        row = self.execute("agent_status", task_id=self.task_id, agent_id=agent_id).fetchone()
        return None if row is None else AgentStatus(row[0])

    def _recount(self, old: AgentStatus | None, new: AgentStatus | None) -> None:
        if old is new:
            return
        was, now = old in ACTIVE_AGENT, new in ACTIVE_AGENT
        self.task.active_agents += now - was
        self.task.agents += (new is not None) - (old is not None)
        for status, n in ((old, -1), (new, 1)):
            if status is not None:
                self._count(Kind.AGENT.value, status.value, n)
        # Most reports leave an active agent active: then the derived status cannot change.
        self.unsettled |= not (was and now)

    def _report(self, entry: ProgressEntry, written: dict[str, Any]) -> None:
        if not entry.foreign:
            self.execute("put_latest", **written)
            said = agent_status(entry.status)
            if said not in TERMINAL_AGENT:
                again = self.execute(
                    "report_again",
                    of_task=self.task_id,
                    of_agent=entry.agent_id,
                    of_status=said.value,
                    progress=entry.progress,
                    last_update=written["timestamp"],
                )

                def check() -> None:
                    if not again.rowcount:  # most reports repeat the agent's status
                        self._change_agent(entry)

                self.later(check)
                return
        self._change_agent(entry)

    def _is_simple(self, entry: ProgressEntry) -> bool:
        """Return whether one statement can write a report, unless it changes its agent's status."""
        return self.pipelined and not (self.again or _is_special(entry))

    def _report_at_once(self, entry: ProgressEntry) -> None:
        row = codec(Kind.PROGRESS).write(entry)
        answer = self.execute(
            "report",
            **row,
            of_task=self.task_id,
            of_agent=entry.agent_id,
            of_status=agent_status(entry.status).value,
            last_update=row["timestamp"],
        )

        def check() -> None:
            added, updated = answer.fetchone()
            if not added:
                raise exists(entry)
            self._count(Kind.PROGRESS.value, "", 1)
            if not updated:
                self._change_agent(entry)

        self.later(check)

    def _change_agent(self, entry: ProgressEntry) -> None:
        """Let a report change its agent's status."""
        row = self.execute("agent_status", task_id=self.task_id, agent_id=entry.agent_id).fetchone()
        if row is None:
            return
        before = AgentStatus(row[0])
        effect = effect_of_report(before, unstamp(row[1]) if row[1] else None, entry)
        if effect is None:
            return
        status, progress, seen = effect
        place = {"of_task": self.task_id, "of_agent": entry.agent_id, "last_update": stamp(seen)}
        if progress is None:
            self.execute("seen_agent", **place)
            return
        self._recount(before, status)
        self.execute("report_on_agent", **place, status=status.value, progress=progress)

    def _delete(self, kind: Kind, key: str) -> None:
        value = int(key) if kind is Kind.PHASE else key
        if kind is Kind.AGENT:
            self._recount(self._status_of(key), None)
        elif self._has(kind, value):
            self._count(kind.value, "", -1)
            if kind is Kind.PHASE:
                self.task.phases -= 1
                self.unsettled = True
        self.execute(f"drop_{TABLES[kind]}", task_id=self.task_id, **{KEY_FIELD[kind]: value})

    def _count(self, kind: str, status: str, n: int) -> None:
        key = kind + self.shard, status
        self.counted[key] = self.counted.get(key, 0) + n

    def finish(self, *, revision: int, chain: str, at: datetime) -> None:
        """Write the task's row; the counters follow with ``write_counts``."""
        self.settle()
        task = self.task
        if self.unsettled:
            agents = self.execute("agent_statuses", task_id=self.task_id).fetchall()
            phases = self.execute("phase_statuses", task_id=self.task_id).fetchall()
            status = task_status(
                task.recorded,
                (PhaseStatus(p) for (p,) in phases),
                (AgentStatus(a) for (a,) in agents),
            )
            if status is not task.status:
                if task.status is not None:
                    self._count("status", task.status.value, -1)
                self._count("status", status.value, 1)
                task.status = status
        assert task.status is not None
        row = {
            "of_task": self.task_id,
            "revision": revision,
            "updated_at": stamp(at),
            "chain": chain,
        }
        if task.shown() == self._before:
            self.execute("advance_alone", **row)  # these columns have no index
        else:
            self.execute(
                "advance",
                **row,
                status=task.status.value,
                phases=task.phases,
                agents=task.agents,
                active_agents=task.active_agents,
            )

    def set_expired(self, floor: int, expired_before: datetime | None) -> None:
        """Record up to where feed lines were dropped: the task's floor and the whole feed's."""
        expired = stamp(expired_before) if expired_before else None
        self.execute("set_expired", of_task=self.task_id, feed_floor=floor, expired_before=expired)
        self.execute("raise_meta", name="feed_floor", value=str(floor))

    def trim(self, oldest: datetime, now: datetime, *, most: int = TRIM_BATCH) -> Trimmed:
        """Drop up to ``most`` feed lines of the task that are past retention, never the newest."""
        rows = self.execute("oldest_changes", task_id=self.task_id, limit=most + 1).fetchall()
        surplus = 0
        if len(rows) > most and self.task.revision > KEEP_CHANGES:
            surplus = self.execute("feed_length", task_id=self.task_id).fetchone()[0] - KEEP_CHANGES
        floor, lines, created = 0, 0, now
        for number, changeset_id, at in rows:
            created = time_of_line(changeset_id, at, now)
            if number == rows[-1][0] or (created >= oldest and surplus <= 0):
                break
            surplus -= 1
            floor = number
            lines += 1
            self.task.expired_before = max(created, self.task.expired_before or created)
        if floor:
            expired = self.task.expired_before
            assert expired is not None
            self.execute("drop_changes", task_id=self.task_id, number=floor)
            self.set_expired(floor, expired)
        return Trimmed(created, lines)

    def fill(self, snapshot: TaskSnapshot, histories: Iterable[History]) -> None:
        """Insert all records of a task whose rows were cleared; histories are streamed."""
        for agent in snapshot.agents:
            self._put_agent(agent)
        for records in (snapshot.phases, snapshot.reviews, snapshot.verdicts, snapshot.handovers):
            for record in records:
                self._put(record)
        for entry in snapshot.latest:
            self.execute("put_latest", **codec(Kind.PROGRESS).write(entry))
        for history in histories:
            self._append(history)
            if len(self.pending) >= _UNREAD:
                self.settle()

    def uncount(self) -> None:
        """Subtract the task from the counters, before its rows are cleared."""
        if self.task.status is not None:
            self._count("status", self.task.status.value, -1)
        self._count(Kind.TASK.value, "", -1)
        for status, n in self.execute("count_agent_statuses", task_id=self.task_id).fetchall():
            self._count(Kind.AGENT.value, status, -n)
        for kind, name in TABLES.items():
            if kind not in {Kind.TASK, Kind.AGENT}:
                n = self.execute(f"count_{name}", task_id=self.task_id).fetchone()[0]
                self._count(kind.value, "", -n)
