"""The effect of a changeset's ops on a task: the one definition that every store follows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from registry_api.errors import InvalidChangeset, RecordExists
from registry_api.records.changeset import Changeset, Op, Put
from registry_api.records.models import (
    HISTORIES,
    KINDS,
    Agent,
    Handover,
    History,
    Kind,
    Phase,
    ProgressEntry,
    Record,
    Review,
    Task,
    Verdict,
    record_key,
)
from registry_api.records.query import Refs
from registry_api.records.reported_status import after_report
from registry_api.records.snapshot import TaskSnapshot

__all__ = ["TaskState"]

_ALL = Refs()

R = TypeVar("R")


@dataclass(slots=True)
class TaskState:
    """One task's records without its histories, changed op by op."""

    task: Task
    phases: dict[int, Phase] = field(default_factory=dict)
    agents: dict[str, Agent] = field(default_factory=dict)
    reviews: dict[str, Review] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    handovers: dict[str, Handover] = field(default_factory=dict)
    latest: dict[str, ProgressEntry] = field(default_factory=dict)

    @classmethod
    def of(cls, snapshot: TaskSnapshot) -> TaskState:
        """Return the mutable form of a snapshot."""
        return cls(
            snapshot.task,
            {p.phase_index: p for p in snapshot.phases},
            {a.agent_id: a for a in snapshot.agents},
            {r.review_id: r for r in snapshot.reviews},
            {v.verdict_id: v for v in snapshot.verdicts},
            {h.handover_id: h for h in snapshot.handovers},
            {e.agent_id: e for e in snapshot.latest},
        )

    @classmethod
    def created_by(cls, changeset: Changeset) -> TaskState:
        """Return the state that a creating changeset starts from: its (last) task record."""
        tasks = [op.record for op in changeset.ops if isinstance(op, Put)]
        task = next((r for r in reversed(tasks) if isinstance(r, Task)), None)
        if task is None:
            raise InvalidChangeset("the changeset creates a task but has no task record")
        return cls(task)

    def copy(self) -> TaskState:
        """Return a copy that can be changed independently; the frozen records are shared."""
        return TaskState(
            self.task,
            dict(self.phases),
            dict(self.agents),
            dict(self.reviews),
            dict(self.verdicts),
            dict(self.handovers),
            dict(self.latest),
        )

    def apply(
        self,
        op: Op,
        *,
        known: Callable[[Kind, str], bool],
        same: Callable[[Record], bool] = lambda _: False,
    ) -> None:
        """Apply one op; ``known`` returns whether a progress or finding id is taken.

        ``same`` returns whether exactly this record is stored, so that it may be appended again: a
        replica may have received it as part of a whole task.

        Raises RecordExists for an append whose id is taken.
        """
        if isinstance(op, Put):
            self._put(op.record, known, same)
        elif op.kind is Kind.PHASE:
            self.phases.pop(_index(op.key), None)
        else:
            self._keyed(op.kind).pop(op.key, None)

    def record(self, kind: Kind, key: str) -> Record | None:
        """Return one record, None if there is none; histories are not part of a state."""
        if kind is Kind.TASK:
            return self.task if key == self.task.task_id else None
        if kind is Kind.PHASE:
            return self.phases.get(int(key))
        found: Record | None = self._keyed(kind).get(key)
        return found

    def _put(
        self,
        record: Record,
        known: Callable[[Kind, str], bool],
        same: Callable[[Record], bool],
    ) -> None:
        match record:
            case Task():
                self.task = record
            case Phase():
                self.phases[record.phase_index] = record
            case _ if isinstance(record, History):
                kind = KINDS[type(record)]
                if known(kind, record_key(record)) and not same(record):
                    raise exists(record)
                if isinstance(record, ProgressEntry):
                    self._report(record)
            case Handover():
                if record.handover_id in self.handovers:
                    raise exists(record)
                self.handovers[record.handover_id] = record
            case _:
                self._keyed(KINDS[type(record)])[record_key(record)] = record

    def _report(self, entry: ProgressEntry) -> None:
        if not entry.foreign:
            self.latest[entry.agent_id] = entry
        agent = self.agents.get(entry.agent_id)
        if agent is not None:
            self.agents[entry.agent_id] = after_report(agent, entry)

    def _keyed(self, kind: Kind) -> dict[str, Record]:
        tables: dict[Kind, dict[str, Record]] = {
            Kind.AGENT: self.agents,  # type: ignore[dict-item]
            Kind.REVIEW: self.reviews,  # type: ignore[dict-item]
            Kind.VERDICT: self.verdicts,  # type: ignore[dict-item]
            Kind.HANDOVER: self.handovers,  # type: ignore[dict-item]
        }
        return tables[kind]

    def records(self, kind: Kind) -> Iterator[Record]:
        """Iterate over the records of one kind; histories are not part of a state."""
        if kind is Kind.TASK:
            yield self.task
        elif kind is Kind.PHASE:
            yield from self.phases.values()
        elif kind not in HISTORIES:
            yield from self._keyed(kind).values()

    def snapshot(
        self,
        lineage: str,
        revision: int,
        updated_at: datetime,
        *,
        only: Refs | None = None,
        chain: str = "",
    ) -> TaskSnapshot:
        """Return the frozen form, each tuple in the order of its keys."""
        refs = only or _ALL
        ids = None if refs.agent_ids is None else set(refs.agent_ids)
        picked = self.agents if ids is None else {k: self.agents[k] for k in ids & set(self.agents)}
        latest = self.latest if ids is None else {k: self.latest[k] for k in ids & set(self.latest)}

        def part(kind: Kind, table: dict[str, R]) -> tuple[R, ...]:
            return tuple(table[k] for k in sorted(table)) if kind in refs.kinds else ()

        return TaskSnapshot(
            lineage=lineage,
            revision=revision,
            updated_at=updated_at,
            task=self.task,
            phases=tuple(self.phases[k] for k in sorted(self.phases))
            if Kind.PHASE in refs.kinds
            else (),
            agents=part(Kind.AGENT, picked),
            reviews=part(Kind.REVIEW, self.reviews),
            verdicts=part(Kind.VERDICT, self.verdicts),
            handovers=part(Kind.HANDOVER, self.handovers),
            latest=part(Kind.PROGRESS, latest),
            partial=only is not None,
            chain=chain,
        )


def exists(record: Record) -> RecordExists:
    """Return the error for an append whose id is taken."""
    kind, key = KINDS[type(record)], record_key(record)
    return RecordExists(
        f"task {record.task_id} already has {kind} {key}",
        next_step="Give each new record an id of its own",
        kind=str(kind),
        key=key,
    )


def _index(key: str) -> int:
    try:
        return int(key)
    except ValueError:
        raise InvalidChangeset(
            f"phase key {key!r} is not an index", next_step="Name a phase by its index, e.g. '0'"
        ) from None
