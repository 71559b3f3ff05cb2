"""What a store returns: a task at one revision, its summary, and the counts of a registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from registry_api.errors import InvalidQuery
from registry_api.records.chain import may_be_same
from registry_api.records.models import (
    Agent,
    Handover,
    Kind,
    Phase,
    ProgressEntry,
    Review,
    Task,
    Verdict,
)
from registry_api.records.status import ACTIVE_AGENT, AgentStatus, TaskStatus, task_status

__all__ = ["Head", "RegistryCounts", "TaskSnapshot", "TaskSummary"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A task's lineage and revision; revision 0 and an empty lineage: there is no such task.

    ``number`` is the feed number of its newest change. ``chain`` stands for all changes up to the
    revision (see ``next_chain``); it is empty if it is not known. Heads of two stores are compared
    by ``is_level``; ``==`` is for heads of one store, to see whether something has changed.
    """

    lineage: str = ""
    revision: int = 0
    number: int = 0
    chain: str = ""

    @property
    def position(self) -> tuple[str, int]:
        """(lineage, revision): how far a store is; it may have come there by other changes."""
        return self.lineage, self.revision

    def is_level(self, other: Head | TaskSnapshot) -> bool:
        """Return whether both are of the same state: the same changes, as far as that is known."""
        return self.position == other.position and may_be_same(self.chain, other.chain)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSnapshot:
    """A task after exactly ``revision``; histories are not in it (``list_records`` pages them).

    ``latest`` is the newest report per agent that is not foreign. ``updated_at`` is the time of the
    newest changeset. Tuples are ordered by key: phases by index, the others by id. ``partial``: a
    load with ``only``. ``chain`` is that of ``Head``; ``==`` leaves it out.
    """

    lineage: str
    revision: int
    updated_at: datetime
    task: Task
    phases: tuple[Phase, ...] = ()
    agents: tuple[Agent, ...] = ()
    reviews: tuple[Review, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    handovers: tuple[Handover, ...] = ()
    latest: tuple[ProgressEntry, ...] = ()
    partial: bool = False
    chain: str = field(default="", compare=False)

    @property
    def position(self) -> tuple[str, int]:
        """(lineage, revision), as ``Head.position``."""
        return self.lineage, self.revision

    def is_level(self, other: Head | TaskSnapshot) -> bool:
        """See Head.is_level."""
        return self.position == other.position and may_be_same(self.chain, other.chain)

    @property
    def status(self) -> TaskStatus:
        """The status derived from the records; a partial load raises InvalidQuery."""
        if self.partial:
            raise InvalidQuery(
                "a partly loaded task has no status", next_step="Load the whole task"
            )
        return task_status(
            self.task.recorded_status,
            (p.status for p in self.phases),
            (a.status for a in self.agents),
        )

    def agent(self, agent_id: str) -> Agent | None:
        """Return one agent, or None."""
        return next((a for a in self.agents if a.agent_id == agent_id), None)

    def phase(self, phase_index: int) -> Phase | None:
        """Return one phase, or None."""
        return next((p for p in self.phases if p.phase_index == phase_index), None)

    def review(self, review_id: str) -> Review | None:
        """Return one review, or None."""
        return next((r for r in self.reviews if r.review_id == review_id), None)

    def summary(self) -> TaskSummary:
        """Return the line that ``list_tasks`` shows for this task."""
        return TaskSummary(
            task_id=self.task.task_id,
            description=self.task.description,
            status=self.status,
            recorded_status=self.task.recorded_status,
            priority=self.task.priority,
            created_at=self.task.created_at,
            updated_at=self.updated_at,
            revision=self.revision,
            phases=len(self.phases),
            current_phase_index=self.task.current_phase_index,
            agents=len(self.agents),
            active_agents=sum(a.status in ACTIVE_AGENT for a in self.agents),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSummary:
    """One line of a task list; ``status`` is derived, the numbers are counts."""

    task_id: str
    description: str
    status: TaskStatus
    recorded_status: TaskStatus
    priority: str
    created_at: datetime
    updated_at: datetime
    revision: int
    phases: int
    current_phase_index: int | None
    agents: int
    active_agents: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryCounts:
    """Actual counts of a whole registry: they depend on its records and on no clock.

    ``tasks`` by derived status, ``agents`` by status, ``records`` by kind; zeros are left out.
    """

    tasks: Mapping[TaskStatus, int] = field(default_factory=lambda: MappingProxyType({}))
    agents: Mapping[AgentStatus, int] = field(default_factory=lambda: MappingProxyType({}))
    records: Mapping[Kind, int] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def total_tasks(self) -> int:
        """All tasks."""
        return sum(self.tasks.values())

    @property
    def active_tasks(self) -> int:
        """Tasks whose derived status is ACTIVE."""
        return self.tasks.get(TaskStatus.ACTIVE, 0)

    @property
    def total_agents(self) -> int:
        """All agents of all tasks."""
        return sum(self.agents.values())

    @property
    def active_agents(self) -> int:
        """Agents that are active by record."""
        return sum(self.agents.get(status, 0) for status in ACTIVE_AGENT)
