"""Reviews: each reviewer gives one verdict; the result applies to the reviewed phase only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from orchestrator.errors import NotAReviewer, ReviewEnded, VerdictExists
from orchestrator.rules import attempts, phases
from orchestrator.rules.draft import Draft, extra_of, with_extra
from orchestrator.rules.handovers import HandoverPlan
from registry_api import (
    Agent,
    AgentStatus,
    Op,
    Phase,
    PhaseStatus,
    Review,
    ReviewStatus,
    TaskSnapshot,
    Verdict,
)
from registry_api.errors import InvalidInput
from registry_api.records import ACTIVE_AGENT

__all__ = [
    "AbortReview",
    "Replacement",
    "ReviewPlan",
    "SubmitCritique",
    "SubmitVerdict",
    "VerdictWord",
    "abort",
    "aggregate",
    "critique",
    "fixed_since",
    "is_open",
    "may_approve",
    "open_review",
    "reviewer_ended",
    "take_over",
    "verdict",
]

REVIEWER = "reviewer"
UNBOUND = -1  # the phase index that legacy programs give a reviewer
MAX_REVISION_ROUNDS = 3
OPEN = frozenset({ReviewStatus.PENDING, ReviewStatus.IN_PROGRESS})
_MOST_CRITIQUES = 5


class VerdictWord(StrEnum):
    """The verdicts that a reviewer can give."""

    APPROVED = "approved"
    NEEDS_REVISION = "needs_revision"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewPlan:
    """The plan of a review: its id, its reviewers' ids, and how the reviewers are started."""

    review_id: str
    reviewers: tuple[str, ...]
    kind: str | None = None
    model: str | None = None
    owner: str | None = None
    uptime: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """A reviewer that takes over from one that died, while there are ``retries`` left for it."""

    reviewer_id: str
    retries: int
    kind: str | None = None
    model: str | None = None
    owner: str | None = None
    uptime: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitVerdict:
    """One reviewer's verdict; ``findings`` is a JSON array; ``handover`` is for an approval."""

    verdict_id: str
    review_id: str
    reviewer_id: str
    verdict: VerdictWord
    handover: HandoverPlan
    at: datetime
    findings: str = "[]"
    notes: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitCritique:
    """An agent's comment on a phase in review; it does not count as a verdict."""

    review_id: str
    agent_id: str
    summary: str
    at: datetime
    observations: tuple[str, ...] = ()
    recommendations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AbortReview:
    """End a review whose reviewers do not answer."""

    review_id: str
    reason: str
    at: datetime


def open_review(draft: Draft, phase: Phase, plan: ReviewPlan, *, at: datetime) -> Review:
    """Put the phase in review and reserve its reviewers, in the same change."""
    if phase.status is not PhaseStatus.IN_REVIEW:  # a legacy program left it there unreviewed
        phase = phases.move(draft, phase, PhaseStatus.IN_REVIEW)
    draft.put(replace(phase, active_review_id=plan.review_id, revision_ready=False))
    review = Review(
        task_id=phase.task_id,
        review_id=plan.review_id,
        phase_index=phase.phase_index,
        phase_id=phase.phase_id,
        num_reviewers=len(plan.reviewers),
        reviewers=plan.reviewers,
        created_at=at,
    )
    draft.put(with_extra(review, phase_name=phase.name))
    for reviewer_id in plan.reviewers:
        draft.put(_reviewer(review, reviewer_id, plan, name=phase.name, at=at))
    return review


def _reviewer(
    review: Review, reviewer_id: str, plan: ReviewPlan | Replacement, *, name: str, at: datetime
) -> Agent:
    reviewer = Agent(
        task_id=review.task_id,
        agent_id=reviewer_id,
        type=REVIEWER,
        model=plan.model,
        status=AgentStatus.REVIEWING,
        phase_index=UNBOUND,
        parent="orchestrator",
        depth=1,
        started_at=at,
        last_update=at,
        review_id=review.review_id,
        prompt=f"Review phase {review.phase_index}: {name}",
    )
    return with_extra(
        reviewer, agent_kind=plan.kind, reserved_by=plan.owner, reserved_uptime=plan.uptime
    )


def verdict(snapshot: TaskSnapshot, command: SubmitVerdict) -> tuple[Op, ...]:
    """Record one reviewer's verdict; the last one decides the review and its phase.

    Returns no ops if the same verdict was recorded before. Raises ReviewNotFound, ReviewEnded,
    NotAReviewer or VerdictExists.
    """
    draft = Draft(snapshot)
    review = draft.review(command.review_id)
    said = [v for v in draft.verdicts(review.review_id) if v.reviewer_id == command.reviewer_id]
    if said:
        if said[0].verdict == command.verdict:
            return ()
        raise VerdictExists(
            f"{command.reviewer_id} has already given {said[0].verdict} on {review.review_id}",
            next_step="A verdict cannot be changed; get_review_status shows the review",
        )
    _must_be_open(review)
    if command.reviewer_id not in review.reviewers:
        raise NotAReviewer(
            f"review {review.review_id} was not assigned to {command.reviewer_id!r}",
            next_step=f"Its reviewers are {', '.join(review.reviewers)}",
            reviewers=list(review.reviewers),
        )
    reviewer = draft.find_agent(command.reviewer_id)
    if reviewer is not None and reviewer.status not in ACTIVE_AGENT:
        raise NotAReviewer(
            f"reviewer {command.reviewer_id} is {reviewer.status}: its verdict does not count",
            next_step="get_review_status shows which reviewers must still answer",
            reviewers=list(review.reviewers),
        )
    draft.put(
        Verdict(
            task_id=draft.task.task_id,
            verdict_id=command.verdict_id,
            review_id=review.review_id,
            reviewer_id=command.reviewer_id,
            verdict=command.verdict,
            findings=command.findings,
            notes=command.notes,
            submitted_at=command.at,
        )
    )
    if reviewer is not None:
        done = replace(reviewer, final_verdict=command.verdict, progress=100)
        draft.end(done, AgentStatus.COMPLETED, at=command.at)
    _decide(draft, review, command.handover, at=command.at)
    return draft.ops()


def may_approve(snapshot: TaskSnapshot, review_id: str, word: VerdictWord) -> bool:
    """Return whether this verdict may be the last one that a review needs to approve."""
    review = snapshot.review(review_id)
    if review is None or word is not VerdictWord.APPROVED:
        return False
    given = [v.verdict for v in snapshot.verdicts if v.review_id == review_id]
    return len(given) + 1 >= len(review.reviewers) and set(given) <= {str(word)}


def critique(snapshot: TaskSnapshot, command: SubmitCritique) -> tuple[Op, ...]:
    """Add a critique, one for each agent; raises ReviewNotFound, ReviewEnded or AgentNotFound."""
    draft = Draft(snapshot)
    review = draft.review(command.review_id)
    draft.agent(command.agent_id)
    kept = critiques(review)
    if any(c.get("critique_agent_id") == command.agent_id for c in kept):
        return ()
    _must_be_open(review)
    if len(kept) >= _MOST_CRITIQUES:
        raise InvalidInput(
            f"review {review.review_id} already has {len(kept)} critiques",
            next_step="Use report_agent_finding instead",
        )
    one = {
        "critique_agent_id": command.agent_id,
        "summary": command.summary,
        "observations": list(command.observations),
        "recommendations": list(command.recommendations),
        "submitted_at": command.at.isoformat(),
    }
    draft.put(with_extra(review, critiques=[*kept, one]))
    return draft.ops()


def critiques(review: Review) -> list[dict[str, object]]:
    """Return the critiques of a review, oldest first."""
    kept = extra_of(review).get("critiques")
    return [c for c in kept if isinstance(c, dict)] if isinstance(kept, list) else []


def abort(snapshot: TaskSnapshot, command: AbortReview) -> tuple[Op, ...]:
    """End a review without a decision: its phase is ESCALATED, its reviewers terminated."""
    draft = Draft(snapshot)
    review = draft.review(command.review_id)
    _must_be_open(review)
    if not command.reason.strip():
        raise InvalidInput("an abort needs a reason", next_step="Say why; the reason is recorded")
    for reviewer_id in review.reviewers:
        reviewer = draft.find_agent(reviewer_id)
        if reviewer is not None and reviewer.status in ACTIVE_AGENT:
            draft.end(
                reviewer, AgentStatus.TERMINATED, at=command.at, termination_reason=command.reason
            )
    _close(draft, review, ReviewStatus.ABORTED, command.reason, at=command.at)
    return draft.ops()


def take_over(
    snapshot: TaskSnapshot, reviewer: Agent, *, owner: str, uptime: float | None = None
) -> tuple[Op, ...]:
    """Become the owner of a reviewer that was reserved and never started.

    Returns no ops if its owner or process has changed since ``reviewer`` was read, or if its review
    has ended.
    """
    draft = Draft(snapshot)
    now, review = draft.agent(reviewer.agent_id), snapshot.review(reviewer.review_id or "")
    untouched = now.extra == reviewer.extra and "process" not in extra_of(now)
    opened = review is not None and review.status in OPEN
    if untouched and opened and now.status in ACTIVE_AGENT:
        draft.put(with_extra(now, reserved_by=owner, reserved_uptime=uptime))
    return draft.ops()


def is_open(draft: Draft, phase: Phase) -> bool:
    """Return whether a phase has an open review."""
    return any(r.phase_index == phase.phase_index and r.status in OPEN for r in draft.reviews)


def fixed_since(draft: Draft, phase: Phase) -> bool:
    """Return whether an agent deployed after the phase's last review completed its work."""
    reviewed = [
        r.completed_at
        for r in draft.reviews
        if r.phase_index == phase.phase_index and r.completed_at
    ]
    return any(
        a.status in phases.DONE and a.started_at and all(a.started_at >= at for at in reviewed)
        for a in draft.bound(phase.phase_index)
    )


def reviewer_ended(
    draft: Draft, reviewer: Agent, replacement: Replacement | None, *, at: datetime
) -> None:
    """Replace a reviewer that failed, or decide or fail the review when nobody is left to answer.

    A reviewer that was ended on purpose, or that gave its verdict, is not replaced.
    """
    review = next((r for r in draft.reviews if r.review_id == reviewer.review_id), None)
    if review is None or review.status not in OPEN:
        return
    said = {v.reviewer_id for v in draft.verdicts(review.review_id)}
    awaited = reviewer.agent_id in review.reviewers and reviewer.agent_id not in said
    if (
        replacement is not None
        and awaited
        and reviewer.status is AgentStatus.FAILED
        and attempts.attempt_of(reviewer) <= replacement.retries
    ):
        _replace(draft, review, reviewer, replacement, at=at)
        return
    if not _waiting(draft, review):
        _decide(draft, review, None, at=at)


def _replace(
    draft: Draft, review: Review, reviewer: Agent, replacement: Replacement, *, at: datetime
) -> None:
    named = extra_of(review).get("phase_name")
    name = named if isinstance(named, str) else ""
    after = _reviewer(review, replacement.reviewer_id, replacement, name=name, at=at)
    attempts.follow(draft, reviewer, after)
    reviewers = tuple(
        after.agent_id if one == reviewer.agent_id else one for one in review.reviewers
    )
    draft.put(replace(review, reviewers=reviewers))


def aggregate(verdicts: Iterable[str]) -> VerdictWord:
    """Decide by unanimity: one ``rejected`` rejects, else one ``needs_revision`` wants a revision.

    An unknown verdict of another program counts as ``needs_revision``. Raises ValueError for no
    verdicts: a review without verdicts never approves.
    """
    known = {str(word): word for word in VerdictWord}
    words = {known.get(v.strip().lower(), VerdictWord.NEEDS_REVISION) for v in verdicts}
    if not words:
        raise ValueError("no verdicts")
    for word in (VerdictWord.REJECTED, VerdictWord.NEEDS_REVISION):
        if word in words:
            return word
    return VerdictWord.APPROVED


def _decide(
    draft: Draft,
    review: Review,
    handover: HandoverPlan | None,
    *,
    at: datetime,
) -> None:
    if _waiting(draft, review):
        return
    given = {
        v.reviewer_id: v.verdict
        for v in draft.verdicts(review.review_id)
        if v.reviewer_id in review.reviewers
    }
    missing = [r for r in review.reviewers if r not in given]
    outcome = aggregate(given.values()) if given else None
    if outcome is None or (missing and outcome is VerdictWord.APPROVED):
        reason = f"{len(missing)} of {len(review.reviewers)} reviewer(s) ended without a verdict"
        _close(draft, review, ReviewStatus.FAILED, reason, at=at)
        return
    draft.put(replace(review, status=ReviewStatus.COMPLETED, verdict=outcome, completed_at=at))
    phase = _reviewed(draft, review)
    if phase is None:
        return  # a foreign program changed the phase: the verdict is kept, without effect
    if outcome is VerdictWord.APPROVED:
        # No handover: a legacy program gave the last approval and left the review undecided.
        plan = handover or HandoverPlan(handover_id=f"handover-{review.review_id}")
        phases.approve(draft, phase, plan, at=at)
        return
    limit = phase.max_revision_rounds
    if phase.revision_round >= (MAX_REVISION_ROUNDS if limit is None else limit):
        _escalate(draft, phase, f"{outcome} after {phase.revision_round} revision round(s)")
        return
    phase = phases.move(draft, phase, PhaseStatus.REVISION_NEEDED)
    draft.put(replace(phase, revision_round=phase.revision_round + 1, active_review_id=None))


def _waiting(draft: Draft, review: Review) -> bool:
    """Whether an active reviewer has not answered yet."""
    said = {v.reviewer_id for v in draft.verdicts(review.review_id)}
    waiting = [r for r in review.reviewers if r not in said]
    return any(a.agent_id in waiting and a.status in ACTIVE_AGENT for a in draft.agents)


def _close(
    draft: Draft, review: Review, status: ReviewStatus, reason: str, *, at: datetime
) -> None:
    name = "abort_reason" if status is ReviewStatus.ABORTED else "failure_reason"
    draft.put(with_extra(replace(review, status=status, completed_at=at), **{name: reason}))
    phase = _reviewed(draft, review)
    if phase is not None:
        _escalate(draft, phase, reason)


def _reviewed(draft: Draft, review: Review) -> Phase | None:
    """Return the phase that waits for a review.

    A phase for which a legacy program did not record the review's id waits for any of its reviews.
    """
    for phase in draft.phases:
        its_own = phase.phase_index == review.phase_index
        if its_own and phase.status is PhaseStatus.IN_REVIEW:
            return phase if phase.active_review_id in {None, review.review_id} else None
    return None


def _escalate(draft: Draft, phase: Phase, reason: str) -> None:
    phase = phases.move(draft, phase, PhaseStatus.ESCALATED)
    draft.put(with_extra(replace(phase, active_review_id=None), escalation_reason=reason))


def _must_be_open(review: Review) -> None:
    if review.status not in OPEN:
        raise ReviewEnded(
            f"review {review.review_id} is {review.status}"
            + (f": {review.verdict}" if review.verdict else ""),
            next_step="get_phase_status shows the state of its phase",
            status=str(review.status),
        )
