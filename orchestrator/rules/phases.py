"""Phases: each follows the table of transitions, and an approved phase opens the next."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from orchestrator.errors import AgentsActive, NothingToReview, PhaseClosed
from orchestrator.rules.draft import Draft, with_extra
from orchestrator.rules.handovers import HandoverPlan, leave
from registry_api import AgentStatus, Op, Phase, PhaseStatus, TaskSnapshot
from registry_api.errors import InvalidInput
from registry_api.records import ACTIVE_AGENT, PHASE_TRANSITIONS

__all__ = [
    "NEXT",
    "ApprovePhase",
    "all_done",
    "approve",
    "approve_escalated",
    "closed",
    "move",
    "must_be_done",
    "open_next",
]

DONE = frozenset({AgentStatus.COMPLETED, AgentStatus.PHASE_COMPLETED})
# The conductor's next step for each status of a phase; every refusal and answer names it.
NEXT: dict[PhaseStatus, str] = {
    PhaseStatus.PENDING: "Work on the phase before it, or deploy_agent if that is approved",
    PhaseStatus.ACTIVE: "deploy_agent, or submit_phase_for_review when its agents are done",
    PhaseStatus.IN_REVIEW: "Wait for the verdicts: get_review_status shows them; "
    "abort_stalled_review ends the review",
    PhaseStatus.APPROVED: "Work on the current phase: get_phase_status shows it",
    PhaseStatus.REVISION_NEEDED: "Read get_review_status, then deploy_agent to fix what it names",
    PhaseStatus.FIXING: "Wait for the agents, then mark_revision_ready",
    PhaseStatus.ESCALATED: "submit_phase_for_review opens a new review; approve_phase_review "
    "force-approves the phase; cancel_task ends the task",
    PhaseStatus.FAILED: "Create a new task",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovePhase:
    """Force-approve an escalated phase; the reason is recorded."""

    reason: str
    handover: HandoverPlan
    at: datetime
    phase_index: int | None = None


def move(draft: Draft, phase: Phase, to: PhaseStatus) -> Phase:
    """Change a phase's status; raises PhaseClosed if the table has no such transition."""
    if to not in PHASE_TRANSITIONS[phase.status]:
        raise closed(phase, f"it cannot become {to}")
    moved = replace(phase, status=to)
    draft.put(moved)
    return moved


def closed(phase: Phase, why: str) -> PhaseClosed:
    """Return the refusal of something that a phase's status does not allow."""
    return PhaseClosed(
        f"phase {phase.phase_index} ({phase.name}) is {phase.status}: {why}",
        next_step=NEXT[phase.status],
        status=str(phase.status),
    )


def approve_escalated(snapshot: TaskSnapshot, command: ApprovePhase) -> tuple[Op, ...]:
    """Force-approve a phase; raises PhaseClosed if not ESCALATED, InvalidInput without a reason."""
    draft = Draft(snapshot)
    draft.must_run()
    if not command.reason.strip():
        raise InvalidInput(
            "a forced approval needs a reason", next_step="Say why; it is recorded with the phase"
        )
    phase = draft.phase(command.phase_index)
    if phase.status is not PhaseStatus.ESCALATED:
        raise closed(phase, "only its reviewers approve it")
    phase = with_extra(phase, forced_approval=True, force_reason=command.reason)
    approve(draft, phase, command.handover, at=command.at)
    return draft.ops()


def approve(draft: Draft, phase: Phase, handover: HandoverPlan, *, at: datetime) -> None:
    """Approve a phase: write its handover and open the next phase."""
    phase = move(draft, phase, PhaseStatus.APPROVED)
    draft.put(replace(phase, completed_at=at, active_review_id=None, revision_ready=False))
    leave(draft, phase, handover, at=at)
    later = [p for p in draft.phases if p.phase_index > phase.phase_index]
    if later:
        open_next(draft, later[0], at=at)


def open_next(draft: Draft, phase: Phase, *, at: datetime) -> None:
    """Open a pending phase if all before it are approved; legacy programs left some unopened."""
    before = [p for p in draft.phases if p.phase_index < phase.phase_index]
    if phase.status is PhaseStatus.PENDING and all(
        p.status is PhaseStatus.APPROVED for p in before
    ):
        draft.put(replace(move(draft, phase, PhaseStatus.ACTIVE), started_at=at))
        draft.put(replace(draft.task, current_phase_index=phase.phase_index))


def all_done(draft: Draft, phase: Phase) -> bool:
    """Return whether a phase's agents have all ended and at least one completed its work."""
    bound = draft.bound(phase.phase_index)
    return any(a.status in DONE for a in bound) and not any(a.status in ACTIVE_AGENT for a in bound)


def must_be_done(draft: Draft, phase: Phase) -> None:
    """Raise AgentsActive or NothingToReview unless ``all_done``."""
    bound = draft.bound(phase.phase_index)
    active = [a.agent_id for a in bound if a.status in ACTIVE_AGENT]
    if active:
        names = ", ".join(active[:5])
        raise AgentsActive(
            f"phase {phase.phase_index} has {len(active)} active agent(s): {names}",
            next_step="Wait for them, or end them with kill_agent",
            agents=active,
        )
    if not any(a.status in DONE for a in bound):
        raise NothingToReview(
            f"no agent of phase {phase.phase_index} ({phase.name}) has completed its work",
            next_step="deploy_agent first",
        )
