"""Record verdicts and critiques, and abort reviews."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from orchestrator.commands.handover_plan import handover_plan
from orchestrator.commands.processes import Processes
from orchestrator.commands.transactions import Transactions
from orchestrator.rules import reviews
from orchestrator.rules.handovers import HandoverPlan
from orchestrator.rules.reviews import VerdictWord
from registry_api import Op, TaskSnapshot

__all__ = ["ReviewCommands"]


class ReviewCommands:
    """The commands on reviews."""

    def __init__(self, transactions: Transactions, processes: Processes) -> None:
        self._store = transactions.store
        self._now = transactions.now
        self._processes = processes

    def verdict(
        self,
        task_id: str,
        review_id: str,
        reviewer_id: str,
        verdict: VerdictWord,
        *,
        findings_json: str = "[]",
        notes: str = "",
    ) -> TaskSnapshot:
        """Record a reviewer's verdict; the last verdict decides the review."""
        at, verdict_id = self._now(), uuid.uuid4().hex

        def rule(snapshot: TaskSnapshot) -> Iterable[Op]:
            handover = HandoverPlan(handover_id=verdict_id)
            if reviews.may_approve(snapshot, review_id, verdict):
                handover = handover_plan(self._store, snapshot, snapshot.review(review_id))
            command = reviews.SubmitVerdict(
                verdict_id=verdict_id,
                review_id=review_id,
                reviewer_id=reviewer_id,
                verdict=verdict,
                handover=handover,
                at=at,
                findings=findings_json,
                notes=notes,
            )
            return reviews.verdict(snapshot, command)

        self._processes.run(task_id, rule, actor=reviewer_id)
        return self._store.load(task_id)

    def critique(
        self,
        task_id: str,
        review_id: str,
        agent_id: str,
        summary: str,
        *,
        observations: tuple[str, ...] = (),
        recommendations: tuple[str, ...] = (),
    ) -> TaskSnapshot:
        """Add a critique to an open review."""
        command = reviews.SubmitCritique(
            review_id=review_id,
            agent_id=agent_id,
            summary=summary,
            at=self._now(),
            observations=observations,
            recommendations=recommendations,
        )
        self._processes.run(task_id, lambda s: reviews.critique(s, command), actor=agent_id)
        return self._store.load(task_id)

    def abort_review(self, task_id: str, review_id: str, reason: str) -> TaskSnapshot:
        """End a review without a decision and stop its reviewers; its phase is escalated."""
        command = reviews.AbortReview(review_id=review_id, reason=reason, at=self._now())
        self._processes.run(
            task_id, lambda s: reviews.abort(s, command), actor="abort_stalled_review"
        )
        return self._processes.stopped(task_id)
