"""The refusals of the rules: a refusal changes nothing and names the next step.

Refused
├── TaskEnded            the task is COMPLETED, FAILED or CANCELLED
├── PhaseNotFound        the task has no phase of that index
├── PhaseClosed          the phase's status does not allow this
├── AgentNotFound        the task has no agent of that id
├── AgentEnded           the agent is terminal for good; its late report is kept in the history
├── DuplicateAgent       an agent of that type is active in that phase
├── LimitReached         max_agents, max_concurrent or max_depth is reached
├── AgentsActive         the phase still has active agents
├── NothingToReview      no agent of the phase has completed its work
├── ReviewNotFound       the task has no review of that id
├── ReviewEnded          a verdict, critique or abort for a review that has ended
├── NotAReviewer         a verdict from an agent to which the review was not assigned
├── VerdictExists        the reviewer has already given a different verdict
├── VerdictMissing       a reviewer reported completed without a verdict
├── NoHandover           the phase has no handover yet
├── NotAllowed           the caller may not use this tool, task or agent
├── NotConfirmed         the user was asked, and declined
├── NotRetryable         the agent has not failed, or was already retried
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
    "NotRetryable",
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
    """A limit of the task is reached; ``limit`` names it."""

    code = "limit_reached"


class AgentsActive(Refused):
    """The phase has active agents; ``agents`` names them."""

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
    """The review was not assigned to that agent; ``reviewers`` names its reviewers."""

    code = "not_a_reviewer"


class VerdictExists(Refused):
    """The reviewer has already given a different verdict."""

    code = "verdict_exists"


class VerdictMissing(Refused):
    """A reviewer reported completed without giving a verdict."""

    code = "verdict_missing"


class NoHandover(Refused):
    """The phase is not approved yet, so it has no handover."""

    code = "no_handover"


class NotAllowed(Refused):
    """The caller may not use this tool, task or agent."""

    code = "not_allowed"


class NotConfirmed(Refused):
    """The user of the conductor's client was asked, and declined."""

    code = "not_confirmed"


class NotRetryable(Refused):
    """The agent has not failed, or a later attempt has taken over its work."""

    code = "not_retryable"


class UnknownAgentKind(Refused):
    """No such kind of agent is configured; ``kinds`` names those that are."""

    code = "unknown_agent_kind"


class LaunchFailed(Refused):
    """The agent's program could not be started, or its folder or files could not be opened."""

    code = "launch_failed"
