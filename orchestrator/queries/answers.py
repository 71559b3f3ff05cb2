"""The answers of the tools: typed, small, and with the next step.

Times are ISO 8601 in UTC; a field at its default is left out. Lists are pages: ``next_cursor``
leads to the next page.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

__all__ = [
    "AgentAnswer",
    "AgentLine",
    "AgentOutput",
    "ContextAnswer",
    "FindingLine",
    "FindingsPage",
    "HandoverAnswer",
    "HealthAnswer",
    "HealthLine",
    "PhaseAnswer",
    "PhaseLine",
    "ReviewAnswer",
    "ReviewLine",
    "ScanAnswer",
    "TaskAnswer",
    "TaskLine",
    "TasksPage",
    "VerdictLine",
    "WaitAnswer",
]


class Answer(BaseModel):
    """The fields that every answer has."""

    next_step: str | None = Field(default=None, description="what to do next")


class PhaseLine(BaseModel):
    """A phase in a list."""

    index: int
    name: str
    status: str
    revision_round: int | None = None


class AgentLine(BaseModel):
    """An agent in a list; ``message`` is that of its newest report, cut.

    ``unverified``: the agent has no secret, so others may report in its name. ``attempt``: the
    number of the attempt, if it is not the first. ``retried_by``: the next attempt.
    """

    agent_id: str
    type: str
    status: str
    progress: int
    phase_index: int | None = None
    parent: str | None = None
    last_update: str | None = None
    message: str | None = None
    reason: str | None = None
    unverified: bool = False
    attempt: int | None = None
    retried_by: str | None = None


class TaskLine(BaseModel):
    """A task in a list; ``status`` is derived from its records."""

    task_id: str
    description: str
    status: str
    agents: int
    active_agents: int
    created_at: str


class TaskAnswer(Answer):
    """The current state of a task."""

    task_id: str
    status: str
    description: str
    priority: str
    silent: bool = Field(default=False, description="active, but no recent sign of life")
    current_phase: int | None = None
    phases: list[PhaseLine] = []
    agents_total: int = 0
    agents_active: list[AgentLine] = []
    agents_ended: list[AgentLine] = Field(default=[], description="the newest")
    agents_by_status: dict[str, int] = {}
    open_review: str | None = None


class TasksPage(Answer):
    """Some tasks."""

    tasks: list[TaskLine]
    next_cursor: str | None = None


class AgentAnswer(Answer):
    """One agent after a command."""

    task_id: str
    agent_id: str
    status: str
    progress: int | None = None
    phase_index: int | None = None
    review_opened: str | None = None


class AgentOutput(Answer):
    """The end of an agent's output, or the part before the position ``before``.

    ``start`` is the position in the log, in bytes, where the text begins; pass it as ``before`` to
    read the part before it. 0: there is no such part.
    """

    agent_id: str
    status: str
    text: str
    start: int
    size: int
    errors: str | None = Field(default=None, description="the end of its standard error")
    reason: str | None = Field(default=None, description="why it ended")


class FindingAnswer(Answer):
    """A finding that was recorded."""

    finding_id: str


class FindingLine(BaseModel):
    """A finding in a list."""

    finding_id: str
    agent_id: str
    type: str
    severity: str
    message: str
    at: str
    phase_index: int | None = None
    data: Any = None


class FindingsPage(Answer):
    """Some findings, newest first."""

    findings: list[FindingLine]
    next_cursor: str | None = None


class VerdictLine(BaseModel):
    """One reviewer's verdict; ``unverified``: see AgentLine."""

    reviewer_id: str | None
    verdict: str
    notes: str | None = None
    findings: list[Any] | None = None
    unverified: bool = False


class ReviewLine(BaseModel):
    """A review; ``waiting_for`` are the reviewers that have not answered."""

    review_id: str
    phase_index: int | None
    status: str
    verdict: str | None = None
    reason: str | None = None
    waiting_for: list[str] = []
    verdicts: list[VerdictLine] = []
    critiques: list[Any] = []


class ReviewAnswer(Answer):
    """Reviews of a task, newest first, and the status of the reviewed phase."""

    task_id: str
    phase_index: int | None = None
    phase_status: str | None = None
    reviews: list[ReviewLine] = []


class PhaseAnswer(Answer):
    """The current state of a phase."""

    task_id: str
    task_status: str
    index: int
    name: str
    status: str
    total_phases: int
    description: str | None = None
    revision_round: int | None = None
    agents_active: list[str] = []
    agents_completed: int = 0
    agents_failed: int = 0
    failures: list[str] = Field(default=[], description="agent: reason")
    all_agents_done: bool = False
    review: ReviewLine | None = None
    escalation_reason: str | None = None


class HandoverAnswer(Answer):
    """The handover of a phase."""

    from_phase: int | None
    to_phase: int | None
    summary: str
    key_findings: list[str] = []
    blockers: list[str] = []
    recommendations: list[str] = []
    artifacts: list[dict[str, Any]] = []


class ContextAnswer(Answer):
    """What an agent must know, as text, within a budget."""

    task_id: str
    text: str
    left_out: list[str] = Field(default=[], description="what did not fit the budget")


class HealthLine(BaseModel):
    """An active agent's record and the state of its process."""

    task_id: str
    agent_id: str
    status: str
    process: str = Field(
        description="alive, starting, dead, ending, never started, external, elsewhere; or lost: "
        "on a host without a health daemon"
    )
    host: str | None = Field(default=None, description="the name of the host of one elsewhere")
    silent_seconds: int | None = None


class HealthAnswer(Answer):
    """The active agents, longest silent first."""

    active_agents: int
    healthy: int
    agents: list[HealthLine] = Field(
        default=[], description="those that are silent or have no process"
    )


class ScanAnswer(Answer):
    """The corrections of a health scan."""

    looked_at: int
    ended: list[str] = Field(default=[], description="agents whose process had ended")
    overdue: list[str] = Field(default=[], description="agents that ran for too long")
    stopped: list[str] = Field(default=[], description="processes whose agent had ended")
    started: list[str] = Field(
        default=[], description="reviewers whose owner died before starting them"
    )
    late_writes: list[str] = Field(
        default=[], description="reports of writes by other programs after a move's cut-over"
    )


class WaitAnswer(Answer):
    """The changes since the cursor, or since the call began; empty after a timeout."""

    task_id: str
    task_status: str
    phase_index: int | None = None
    phase_status: str | None = None
    changes: list[str] = []
    agents_active: int = 0
    cursor: str
