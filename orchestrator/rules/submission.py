"""Submission: a phase's review is opened by its last agent or by the conductor."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from orchestrator.rules import phases, reviews
from orchestrator.rules.draft import Draft, with_extra
from orchestrator.rules.reviews import ReviewPlan
from registry_api import Op, PhaseStatus, TaskSnapshot
from registry_api.records import PHASE_TRANSITIONS

__all__ = ["MarkRevisionReady", "SubmitPhase", "agent_ended", "revision_ready", "submit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitPhase:
    """Open the review of a phase whose agents are done, or another one of an escalated phase."""

    review: ReviewPlan
    at: datetime
    phase_index: int | None = None
    summary: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkRevisionReady:
    """Mark a requested revision as done, or as done when the last agent ends."""

    review: ReviewPlan
    at: datetime
    phase_index: int | None = None


def submit(snapshot: TaskSnapshot, command: SubmitPhase) -> tuple[Op, ...]:
    """Open the phase's review.

    Raises TaskEnded, PhaseNotFound, PhaseClosed, AgentsActive or NothingToReview.
    """
    draft = Draft(snapshot)
    draft.must_run()
    phase = draft.phase(command.phase_index)
    unreviewed = phase.status is PhaseStatus.IN_REVIEW and not reviews.is_open(draft, phase)
    if not unreviewed and PhaseStatus.IN_REVIEW not in PHASE_TRANSITIONS[phase.status]:
        raise phases.closed(phase, "it cannot be submitted")
    if not unreviewed:
        phases.must_be_done(draft, phase)
    if command.summary:
        phase = with_extra(phase, review_summary=command.summary)
    reviews.open_review(draft, phase, command.review, at=command.at)
    return draft.ops()


def revision_ready(snapshot: TaskSnapshot, command: MarkRevisionReady) -> tuple[Op, ...]:
    """Resubmit the phase, at once or when its last agent ends; raises as ``submit`` does."""
    draft = Draft(snapshot)
    draft.must_run()
    phase = draft.phase(command.phase_index)
    if phase.status is PhaseStatus.REVISION_NEEDED:
        phase = phases.move(draft, phase, PhaseStatus.FIXING)
    if phase.status is not PhaseStatus.FIXING:
        raise phases.closed(phase, "no revision was requested")
    phase = replace(phase, revision_ready=True)
    draft.put(phase)
    if phases.all_done(draft, phase):
        reviews.open_review(draft, phase, command.review, at=command.at)
    return draft.ops()


def agent_ended(draft: Draft, index: int, plan: ReviewPlan | None, *, at: datetime) -> None:
    """Open the phase's review if its last agent has just ended and an agent completed its work.

    A revision is resubmitted only if it was marked ready: within a round, all agents may have ended
    several times.
    """
    phase = next((p for p in draft.phases if p.phase_index == index), None)
    if phase is None or plan is None or not phases.all_done(draft, phase):
        return
    ready = phase.status is PhaseStatus.FIXING and phase.revision_ready
    ready = ready and reviews.fixed_since(draft, phase)
    if ready or phase.status is PhaseStatus.ACTIVE:
        reviews.open_review(draft, phase, plan, at=at)
