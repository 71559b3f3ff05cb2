"""Tasks: created with their phases, cancelled or given up together with their active agents."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from orchestrator.rules.draft import Draft, with_extra
from registry_api import (
    AgentStatus,
    Op,
    Phase,
    PhaseStatus,
    Put,
    ReviewStatus,
    Task,
    TaskSnapshot,
    TaskStatus,
)
from registry_api.records import TERMINAL_AGENT, json_text

__all__ = ["CancelTask", "CreateTask", "PhasePlan", "cancel", "create"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhasePlan:
    """A phase of a task to create."""

    name: str
    description: str = ""
    deliverables: tuple[str, ...] = ()
    success_criteria: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateTask:
    """A new task; without phases it completes when its last agent ends."""

    task: Task
    phases: tuple[PhasePlan, ...] = ()
    max_revision_rounds: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelTask:
    """End a task; ``outcome`` is CANCELLED, or FAILED for a task that is given up."""

    reason: str
    at: datetime
    outcome: TaskStatus = TaskStatus.CANCELLED


def create(command: CreateTask) -> tuple[Op, ...]:
    """Return the ops of a new task: its first phase is open, the others wait."""
    task, at = command.task, command.task.created_at
    phases = [
        with_extra(
            Phase(
                task_id=task.task_id,
                phase_index=index,
                phase_id=f"phase-{index}",
                name=plan.name,
                description=plan.description,
                status=PhaseStatus.PENDING if index else PhaseStatus.ACTIVE,
                created_at=at,
                started_at=None if index else at,
                max_revision_rounds=command.max_revision_rounds,
            ),
            deliverables=list(plan.deliverables) or None,
            success_criteria=list(plan.success_criteria) or None,
        )
        for index, plan in enumerate(command.phases)
    ]
    if phases:
        task = replace(task, current_phase_index=0)
    return (Put(task), *(Put(phase) for phase in phases))


def cancel(snapshot: TaskSnapshot, command: CancelTask) -> tuple[Op, ...]:
    """End the task: its agents are terminated, its open reviews aborted.

    If the outcome is FAILED its escalated phases become FAILED. Raises TaskEnded.
    """
    draft = Draft(snapshot)
    draft.must_run()
    for agent in draft.agents:
        if agent.status not in TERMINAL_AGENT:
            draft.end(
                agent, AgentStatus.TERMINATED, at=command.at, termination_reason=command.reason
            )
    for review in draft.reviews:
        if review.status in {ReviewStatus.PENDING, ReviewStatus.IN_PROGRESS}:
            draft.put(
                with_extra(
                    replace(review, status=ReviewStatus.ABORTED, completed_at=command.at),
                    abort_reason=command.reason,
                )
            )
    if command.outcome is TaskStatus.FAILED:
        for phase in draft.phases:
            if phase.status is PhaseStatus.ESCALATED:
                draft.put(replace(phase, status=PhaseStatus.FAILED, completed_at=command.at))
    ended = replace(draft.task, recorded_status=command.outcome)
    draft.put(with_extra(ended, end_reason=command.reason))
    return draft.ops()


def context_text(**fields: object) -> str:
    """Return the JSON of a task's context, without the fields that are empty."""
    return json_text.dump_text({name: value for name, value in fields.items() if value})
