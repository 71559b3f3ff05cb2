"""Submit phases for review, and force-approve them."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.commands.handover_plan import handover_plan
from orchestrator.commands.processes import Processes
from orchestrator.commands.transactions import Transactions
from orchestrator.rules import phases, submission
from orchestrator.rules.draft import Draft
from registry_api import Op, TaskSnapshot

__all__ = ["PhaseCommands"]


class PhaseCommands:
    """The commands on phases."""

    def __init__(self, transactions: Transactions, processes: Processes) -> None:
        self._store = transactions.store
        self._now = transactions.now
        self._processes = processes

    def submit_phase(
        self, task_id: str, *, phase_index: int | None = None, summary: str = ""
    ) -> TaskSnapshot:
        """Open a phase's review and start its reviewers."""
        command = submission.SubmitPhase(
            review=self._processes.review_plan(),
            at=self._now(),
            phase_index=phase_index,
            summary=summary,
        )
        self._processes.run(
            task_id, lambda s: submission.submit(s, command), actor="submit_phase_for_review"
        )
        return self._store.load(task_id)

    def revision_ready(self, task_id: str, *, phase_index: int | None = None) -> TaskSnapshot:
        """Mark a revision as done; its review opens when the last agent has ended."""
        command = submission.MarkRevisionReady(
            review=self._processes.review_plan(),
            at=self._now(),
            phase_index=phase_index,
        )
        self._processes.run(
            task_id, lambda s: submission.revision_ready(s, command), actor="revision_ready"
        )
        return self._store.load(task_id)

    def approve_phase(
        self, task_id: str, reason: str, *, phase_index: int | None = None
    ) -> TaskSnapshot:
        """Force-approve an escalated phase; the reason is recorded."""
        at = self._now()

        def rule(snapshot: TaskSnapshot) -> Iterable[Op]:
            command = phases.ApprovePhase(
                reason=reason,
                handover=handover_plan(self._store, snapshot, Draft(snapshot).phase(phase_index)),
                at=at,
                phase_index=phase_index,
            )
            return phases.approve_escalated(snapshot, command)

        self._processes.run(task_id, rule, actor="approve_phase_review")
        return self._store.load(task_id)
