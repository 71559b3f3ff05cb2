"""Every refusal of the rules; nothing was changed, and the next step is named.

Refused
├── TaskEnded            the task is COMPLETED, FAILED or CANCELLED
├── PhaseNotFound        the task has no phase of that index
├── PhaseClosed          the phase is in a state that does not take this
├── AgentNotFound        the task has no agent of that id
├── AgentEnded           a terminal agent never reopens; its late report is kept in the history
├── DuplicateAgent       an agent of that type is at work in that phase
├── LimitReached         max_agents, max_concurrent or max_depth
├── AgentsActive         the phase still has agents at work
├── NothingToReview      no agent of the phase completed anything
├── ReviewNotFound       the task has no review of that id
├── ReviewEnded          a verdict, critique or abort for a review that is over
├── NotAReviewer         a verdict by an agent that the review was not assigned to
├── VerdictExists        the reviewer's verdict was counted; another one is not taken
├── VerdictMissing       a reviewer ends by its verdict
├── NoHandover           the phase has left none yet
├── NotAllowed           a tool, a task or an agent that is not the caller's
├── NotConfirmed         the user was asked, and declined
├── UnknownAgentKind     no such kind is configured
└── LaunchFailed         the agent's program could not be started
"""

from __future__ import annotations

from registry_api.errors import Refused

__all__ = [
    "AgentEnded",
    "AgentNotFound",
    "AgentsActive",
    "DuplicateAgent",
    "LaunchFailed",
    "LimitReached",
    "NoHandover",
    "NotAReviewer",
    "NotAllowed",
    "NotConfirmed",
    "NothingToReview",
    "PhaseClosed",
    "PhaseNotFound",
    "ReviewEnded",
    "ReviewNotFound",
    "TaskEnded",
    "UnknownAgentKind",
    "VerdictExists",
    "VerdictMissing",
]


class TaskEnded(Refused):
    """The task is terminal; a terminal task never reopens."""

    code = "task_ended"


class PhaseNotFound(Refused):
    """The task has no phase of that index."""

    code = "phase_not_found"


class PhaseClosed(Refused):
    """The phase's status does not allow this."""

    code = "phase_closed"


class AgentNotFound(Refused):
    """The task has no agent of that id."""

    code = "agent_not_found"


class AgentEnded(Refused):
    """The agent is terminal."""

    code = "agent_ended"


class DuplicateAgent(Refused):
    """An agent of that type is active in that phase; ``agent_id`` names it."""

    code = "duplicate_agent"


class LimitReached(Refused):
    """One of the task's limits; ``limit`` names it."""

    code = "limit_reached"


class AgentsActive(Refused):
    """The phase has agents at work; ``agents`` names them."""

    code = "agents_active"


class NothingToReview(Refused):
    """No agent of the phase has completed its work."""

    code = "nothing_to_review"


class ReviewNotFound(Refused):
    """The task has no review of that id."""

    code = "review_not_found"


class ReviewEnded(Refused):
    """The review is completed, aborted or failed."""

    code = "review_ended"


class NotAReviewer(Refused):
    """The review was not assigned to that agent; ``reviewers`` names those it was."""

    code = "not_a_reviewer"


class VerdictExists(Refused):
    """That reviewer's verdict was counted already, and it was another one."""

    code = "verdict_exists"


class VerdictMissing(Refused):
    """A reviewer that says it is done without a verdict."""

    code = "verdict_missing"


class NoHandover(Refused):
    """The phase was not approved yet, so it left no handover."""

    code = "no_handover"


class NotAllowed(Refused):
    """The caller may not use this tool, task or agent."""

    code = "not_allowed"


class NotConfirmed(Refused):
    """The user of the conductor's client was asked, and declined."""

    code = "not_confirmed"


class UnknownAgentKind(Refused):
    """No such kind of agent is configured; ``kinds`` names those that are."""

    code = "unknown_agent_kind"


class LaunchFailed(Refused):
    """The agent's program, folder or files could not be had; its record says so."""

    code = "launch_failed"
