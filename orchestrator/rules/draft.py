"""A task while a rule changes it: each put is visible at once and becomes an op of the rule."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from orchestrator.errors import AgentNotFound, PhaseNotFound, ReviewNotFound, TaskEnded
from registry_api import (
    Agent,
    Op,
    Phase,
    PhaseStatus,
    Put,
    Record,
    Review,
    Task,
    TaskSnapshot,
    TaskState,
    TaskStatus,
    Verdict,
    record_key,
    task_status,
)
from registry_api.records import ACTIVE_AGENT, KINDS, TASK_TRANSITIONS, TERMINAL_TASK, json_text

__all__ = ["Draft", "extra_of", "with_extra"]

R = TypeVar("R", Task, Phase, Agent, Review)


class Draft:
    """The puts that one rule makes on one snapshot."""

    def __init__(self, snapshot: TaskSnapshot) -> None:
        self._state = TaskState.of(snapshot)
        self._puts: dict[tuple[str, str], Record] = {}

    @property
    def task(self) -> Task:
        """The task with the puts so far."""
        return self._state.task

    @property
    def status(self) -> TaskStatus:
        """The task's status, derived from its records with the puts so far."""
        return task_status(
            self.task.recorded_status,
            (p.status for p in self._state.phases.values()),
            (a.status for a in self._state.agents.values()),
        )

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The phases by index."""
        return tuple(self._state.phases[k] for k in sorted(self._state.phases))

    @property
    def agents(self) -> tuple[Agent, ...]:
        """All agents."""
        return tuple(self._state.agents.values())

    @property
    def reviews(self) -> tuple[Review, ...]:
        """All reviews."""
        return tuple(self._state.reviews.values())

    def phase(self, index: int | None) -> Phase:
        """Return a phase, the current one without an index; raises PhaseNotFound.

        The current one is the task's current phase. If that is approved or missing, it is the first
        phase that is not approved, else the last phase.
        """
        if not self._state.phases:
            raise PhaseNotFound(
                f"task {self.task.task_id} has no phases",
                next_step="It completes when its last agent ends; nothing is reviewed",
            )
        if index is None:
            said = self._state.phases.get(self.task.current_phase_index or 0)
            if said is not None and said.status is not PhaseStatus.APPROVED:
                return said
            left = [p for p in self.phases if p.status is not PhaseStatus.APPROVED]
            return left[0] if left else self.phases[-1]
        found = self._state.phases.get(index)
        if found is None:
            raise PhaseNotFound(
                f"task {self.task.task_id} has no phase {index}",
                next_step=f"Its phases are 0 to {max(self._state.phases)}",
            )
        return found

    def agent(self, agent_id: str) -> Agent:
        """Return an agent; raises AgentNotFound."""
        found = self._state.agents.get(agent_id)
        if found is None:
            raise AgentNotFound(
                f"task {self.task.task_id} has no agent {agent_id!r}",
                next_step="get_task_status lists its agents",
            )
        return found

    def find_agent(self, agent_id: str) -> Agent | None:
        """Return an agent, or None."""
        return self._state.agents.get(agent_id)

    def review(self, review_id: str) -> Review:
        """Return a review; raises ReviewNotFound."""
        found = self._state.reviews.get(review_id)
        if found is None:
            raise ReviewNotFound(
                f"task {self.task.task_id} has no review {review_id!r}",
                next_step="get_review_status lists its reviews",
            )
        return found

    def verdicts(self, review_id: str) -> tuple[Verdict, ...]:
        """Return the verdicts of a review."""
        return tuple(v for v in self._state.verdicts.values() if v.review_id == review_id)

    def bound(self, phase_index: int) -> tuple[Agent, ...]:
        """Return the agents that work or worked on a phase, without its reviewers."""
        return tuple(a for a in self.agents if a.phase_index == phase_index and a.review_id is None)

    def must_run(self) -> None:
        """Raise TaskEnded unless the task can still change."""
        status = self.status
        if status in TERMINAL_TASK:
            raise TaskEnded(
                f"task {self.task.task_id} is {status}",
                next_step="A task that has ended never reopens: create a new one with create_task",
                status=str(status),
            )

    def put(self, record: Record) -> None:
        """Change one record; a later put of the same record replaces the earlier one."""
        self._state.apply(Put(record), known=lambda _kind, _key: False)
        self._puts[KINDS[type(record)], record_key(record)] = record

    def ops(self) -> tuple[Op, ...]:
        """Return the puts as ops; the task's recorded status follows its records."""
        if self._puts:
            derived = self.status
            if derived in TASK_TRANSITIONS[self.task.recorded_status]:
                self.put(replace(self.task, recorded_status=derived))
        return tuple(Put(record) for record in self._puts.values())

    def end(self, agent: Agent, status: Any, *, at: datetime, **extra: object) -> Agent:
        """Make an agent terminal if it is active; returns the agent."""
        if agent.status not in ACTIVE_AGENT:
            return agent
        ended = replace(agent, status=status, completed_at=at, last_update=at)
        ended = with_extra(ended, **extra)
        self.put(ended)
        return ended


def extra_of(record: Task | Phase | Agent | Review) -> dict[str, Any]:
    """Return the fields that the contract does not define, e.g. those of legacy programs."""
    value = json_text.parse_trusted(record.extra.encode())
    return value if isinstance(value, dict) else {}


def with_extra(record: R, **fields: object) -> R:
    """Return the record with more fields in ``extra``; a field that is None is left out."""
    wanted = {name: value for name, value in fields.items() if value is not None}
    if not wanted:
        return record
    return replace(record, extra=json_text.dump_text(extra_of(record) | wanted))
