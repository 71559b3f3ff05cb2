"""What a conductor sensibly does next: something that is not refused as the task stands."""

from __future__ import annotations

from orchestrator.rules.draft import Draft
from orchestrator.rules.phases import NEXT, all_done
from registry_api import Phase, PhaseStatus, TaskSnapshot
from registry_api.status import ACTIVE_AGENT, TERMINAL_TASK

__all__ = ["next_step"]


def next_step(snapshot: TaskSnapshot) -> str:
    """Return the next step for a task's current phase, or for a task without phases."""
    if snapshot.status in TERMINAL_TASK:
        return "Nothing is left to do: the task has ended"
    phase = snapshot.phase(snapshot.task.current_phase_index or 0)
    if phase is None:
        working = any(a.status in ACTIVE_AGENT for a in snapshot.agents)
        return "Wait for its agents" if working else "deploy_agent"
    draft = Draft(snapshot)
    working = any(a.status in ACTIVE_AGENT for a in draft.bound(phase.phase_index))
    if phase.status is PhaseStatus.ACTIVE:
        if working:
            return "Wait for its agents: the last one opens its review"
        return "submit_phase_for_review" if all_done(draft, phase) else "deploy_agent"
    if phase.status is PhaseStatus.FIXING:
        return _fixing(phase, working=working)
    return NEXT[phase.status]


def _fixing(phase: Phase, *, working: bool) -> str:
    if working and phase.revision_ready:
        return "Wait for its agents: the last one opens the next review"
    if working:
        return "mark_revision_ready: it is reviewed again when its last agent has ended"
    return "mark_revision_ready, or deploy_agent for what is left to mend"
