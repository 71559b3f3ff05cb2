"""The next step for a conductor: a call that the task's current state does not refuse."""

from __future__ import annotations

from orchestrator.rules import phases, reviews
from orchestrator.rules.draft import Draft
from registry_api import Phase, PhaseStatus, TaskSnapshot
from registry_api.records import ACTIVE_AGENT, TERMINAL_TASK

__all__ = ["next_step"]


def next_step(snapshot: TaskSnapshot, *, auto_review: bool = True) -> str:
    """Return the next step for a task's current phase, or for a task without phases."""
    if snapshot.status in TERMINAL_TASK:
        return "Nothing is left to do: the task has ended"
    if not snapshot.phases:
        working = any(a.status in ACTIVE_AGENT for a in snapshot.agents)
        return "Wait for its agents" if working else "deploy_agent"
    draft = Draft(snapshot)
    phase = draft.phase(None)
    working = any(a.status in ACTIVE_AGENT for a in draft.bound(phase.phase_index))
    match phase.status:
        case PhaseStatus.PENDING:
            return "deploy_agent"
        case PhaseStatus.ACTIVE if working:
            return "Wait for its agents: the last one opens its review" if auto_review else _WAIT
        case PhaseStatus.ACTIVE:
            done = phases.all_done(draft, phase)
            return "submit_phase_for_review" if done else "deploy_agent"
        case PhaseStatus.FIXING:
            return _fixing(phase, working=working, auto_review=auto_review)
        case PhaseStatus.IN_REVIEW if not reviews.is_open(draft, phase):
            return "submit_phase_for_review: the phase has no open review"
        case _:
            return phases.NEXT[phase.status]


_WAIT = "Wait for its agents, then submit_phase_for_review"


def _fixing(phase: Phase, *, working: bool, auto_review: bool) -> str:
    if not auto_review:
        return (
            _WAIT if working else "submit_phase_for_review, or deploy_agent for the remaining work"
        )
    if working and phase.revision_ready:
        return "Wait for its agents: the last one opens the next review"
    if working:
        return "mark_revision_ready: the next review opens when the last agent has ended"
    return "mark_revision_ready, or deploy_agent for the remaining fixes"
