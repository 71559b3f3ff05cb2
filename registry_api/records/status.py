"""The status values, their transitions, and the one function that derives a task's status."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType

__all__ = [
    "ACTIVE_AGENT",
    "AGENT_TRANSITIONS",
    "FAILED_AGENT",
    "PHASE_TRANSITIONS",
    "TASK_TRANSITIONS",
    "TERMINAL_AGENT",
    "TERMINAL_TASK",
    "AgentStatus",
    "PhaseStatus",
    "ReviewStatus",
    "Severity",
    "TaskStatus",
    "agent_status",
    "task_status",
]


class TaskStatus(StrEnum):
    """A task's status."""

    INITIALIZED = "INITIALIZED"
    ACTIVE = "ACTIVE"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class PhaseStatus(StrEnum):
    """The status of a phase, a stage of a task's work."""

    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    IN_REVIEW = "IN_REVIEW"
    APPROVED = "APPROVED"
    REVISION_NEEDED = "REVISION_NEEDED"
    FIXING = "FIXING"
    ESCALATED = "ESCALATED"
    FAILED = "FAILED"


class AgentStatus(StrEnum):
    """An agent's status: the first four are active; UNKNOWN, a status of another program that we
    do not know, is neither active nor terminal; the others are terminal.
    """

    RUNNING = "running"
    WORKING = "working"
    BLOCKED = "blocked"
    REVIEWING = "reviewing"
    COMPLETED = "completed"
    FAILED = "failed"
    ERROR = "error"
    TERMINATED = "terminated"
    KILLED = "killed"
    PHASE_COMPLETED = "phase_completed"
    UNKNOWN = "unknown"


class ReviewStatus(StrEnum):
    """The status of a review."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    ABORTED = "aborted"
    FAILED = "failed"


ACTIVE_AGENT = frozenset(
    {AgentStatus.RUNNING, AgentStatus.WORKING, AgentStatus.BLOCKED, AgentStatus.REVIEWING}
)

TERMINAL_AGENT = frozenset(AgentStatus) - ACTIVE_AGENT - {AgentStatus.UNKNOWN}

FAILED_AGENT = frozenset(
    {AgentStatus.FAILED, AgentStatus.ERROR, AgentStatus.TERMINATED, AgentStatus.KILLED}
)

TERMINAL_TASK = frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED})

TASK_TRANSITIONS: Mapping[TaskStatus, frozenset[TaskStatus]] = MappingProxyType(
    {
        TaskStatus.INITIALIZED: frozenset(
            {TaskStatus.ACTIVE, TaskStatus.FAILED, TaskStatus.CANCELLED}
        ),
        TaskStatus.ACTIVE: TERMINAL_TASK,
        TaskStatus.COMPLETED: frozenset(),
        TaskStatus.FAILED: frozenset(),
        TaskStatus.CANCELLED: frozenset(),
    }
)

PHASE_TRANSITIONS: Mapping[PhaseStatus, frozenset[PhaseStatus]] = MappingProxyType(
    {
        PhaseStatus.PENDING: frozenset({PhaseStatus.ACTIVE}),
        PhaseStatus.ACTIVE: frozenset({PhaseStatus.IN_REVIEW}),
        PhaseStatus.IN_REVIEW: frozenset(
            {PhaseStatus.APPROVED, PhaseStatus.REVISION_NEEDED, PhaseStatus.ESCALATED}
        ),
        PhaseStatus.REVISION_NEEDED: frozenset({PhaseStatus.FIXING}),
        PhaseStatus.FIXING: frozenset({PhaseStatus.IN_REVIEW}),
        PhaseStatus.ESCALATED: frozenset(
            {PhaseStatus.APPROVED, PhaseStatus.IN_REVIEW, PhaseStatus.FAILED}
        ),
        PhaseStatus.APPROVED: frozenset(),
        PhaseStatus.FAILED: frozenset(),
    }
)

AGENT_TRANSITIONS: Mapping[AgentStatus, frozenset[AgentStatus]] = MappingProxyType(
    {
        s: frozenset() if s in TERMINAL_AGENT else frozenset(AgentStatus) - {s, AgentStatus.UNKNOWN}
        for s in AgentStatus
    }
)

_STARTING = frozenset({"pending", "starting"})


def agent_status(text: object) -> AgentStatus:
    """Return the AgentStatus for the status text of a report.

    Case is ignored; ``pending`` and ``starting`` are RUNNING. Any unknown text is WORKING: an agent
    that reports is working, and a report never ends an agent by accident.
    """
    word = text.strip().lower() if isinstance(text, str) else ""
    if word in _STARTING:
        return AgentStatus.RUNNING
    try:
        return AgentStatus(word)
    except ValueError:
        return AgentStatus.WORKING


def task_status(
    recorded: TaskStatus, phases: Iterable[PhaseStatus], agents: Iterable[AgentStatus]
) -> TaskStatus:
    """Derive a task's status from its records; ``phases`` and ``agents`` are all of the task's.

    The first rule that applies decides:

    1. A recorded terminal status is kept.
    2. An active agent: ACTIVE.
    3. No agents, and no phase beyond PENDING and ACTIVE: INITIALIZED.
    4. A FAILED phase, or no phases and only failed agents: FAILED.
    5. Every phase APPROVED, or no phases and no agent UNKNOWN: COMPLETED.
    6. Otherwise: ACTIVE.
    """
    if recorded in TERMINAL_TASK:
        return recorded
    agent_set, phase_set = frozenset(agents), frozenset(phases)
    if agent_set & ACTIVE_AGENT:
        return TaskStatus.ACTIVE
    if not agent_set and phase_set <= {PhaseStatus.PENDING, PhaseStatus.ACTIVE}:
        return TaskStatus.INITIALIZED
    if PhaseStatus.FAILED in phase_set or (not phase_set and agent_set <= FAILED_AGENT):
        return TaskStatus.FAILED
    if phase_set <= {PhaseStatus.APPROVED} and (phase_set or AgentStatus.UNKNOWN not in agent_set):
        return TaskStatus.COMPLETED
    return TaskStatus.ACTIVE


class Severity(StrEnum):
    """The severity of a finding, from the least to the most severe.

    A record may hold any other word, since legacy programs write what they like.
    """

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"
