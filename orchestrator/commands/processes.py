"""Start the processes of reserved agents, and record their ends."""

from __future__ import annotations

import logging
import signal
import uuid
from dataclasses import replace

from orchestrator import prompts
from orchestrator.agents import process_identity
from orchestrator.agents.deployment import Deployment, Order, process_of
from orchestrator.agents.stream_log import Result
from orchestrator.commands.transactions import Rule, Transactions
from orchestrator.rules import agents, reviews
from orchestrator.rules.draft import extra_of
from orchestrator.rules.reviews import Replacement, ReviewPlan
from orchestrator.settings import OrchestratorSettings
from registry_api import Agent, AgentStatus, Op, Put, TaskSnapshot
from registry_api.records import TERMINAL_AGENT

__all__ = ["Processes", "ended_by"]

log = logging.getLogger("registry_backend")


class Processes:
    """The processes of agents: started after the transaction that reserves them."""

    def __init__(
        self, transactions: Transactions, deployment: Deployment, options: OrchestratorSettings
    ) -> None:
        self._transactions = transactions
        self._store = transactions.store
        self._now = transactions.now
        self._deployment = deployment
        self._options = options
        self.owner = deployment.owner()

    def run(self, task_id: str, rule: Rule, *, actor: str) -> None:
        """Run a rule in a transaction, then start the reviewers that it reserved."""
        for op in self._transactions.run(task_id, rule, actor=actor):
            reserved = op.record if isinstance(op, Put) else None
            if isinstance(reserved, Agent) and reserved.status is AgentStatus.REVIEWING:
                self._start_reviewer(reserved)

    def _start_reviewer(self, reviewer: Agent) -> bool:
        """Start a reserved reviewer; if that fails, its record says so.

        Raises nothing: the command that reserved it is committed, and the next reviewer must start.
        """
        task_id, reviewer_id = reviewer.task_id, reviewer.agent_id
        try:
            snapshot = self._store.load(task_id)
            review = snapshot.review(reviewer.review_id or "")
            order = self._deployment.order(
                str(extra_of(reviewer).get("agent_kind")),
                model=None,
                effort=None,
                cwd=snapshot.task.client_cwd,
            )
            index = review.phase_index if review else None
            text = prompts.reviewer(task_id, reviewer_id, reviewer.review_id or "", index)
            self.start(task_id, reviewer_id, order, text)
        except Exception as error:  # noqa: BLE001  (the record must name any error)
            log.warning("reviewer %s was not started: %s", reviewer_id, error)
            reason = str(error)
            self._transactions.with_retry(lambda: self._end_unstarted(reviewer, reason))
            return False
        return True

    def _end_unstarted(self, reviewer: Agent, reason: str) -> None:
        """End a reviewer that could not be started, unless somebody else has started it."""
        self.end_seen(reviewer, AgentStatus.FAILED, reason)

    def start(self, task_id: str, agent_id: str, order: Order, text: str) -> None:
        """Start a reserved agent's process, unless its record is gone; raises launch errors."""
        snapshot = self._transactions.only(task_id, agent_id)
        agent = snapshot.agent(agent_id)
        if agent is not None:
            self._deployment.start(snapshot.task, agent, order, text, ended=self._process_ended)

    def take_over(self, reviewer: Agent, *, actor: str = "orchestrator") -> bool:
        """Start a reviewer whose owner died before starting it; of several callers only one does.

        Returns whether this call started it.
        """
        taken = self._transactions.run(
            reviewer.task_id,
            lambda s: reviews.take_over(
                s, reviewer, owner=self.owner, uptime=process_identity.uptime()
            ),
            actor=actor,
        )
        reserved = [op.record for op in taken if isinstance(op, Put)]
        return any(self._start_reviewer(one) for one in reserved if isinstance(one, Agent))

    def end_seen(
        self, seen: Agent, status: AgentStatus, reason: str, *, actor: str = "orchestrator"
    ) -> bool:
        """End an agent unless its process or owner has changed since ``seen`` was read.

        Returns whether this call ended it.
        """
        command = self._died(seen, status, reason)
        ended = False

        def rule(snapshot: TaskSnapshot) -> tuple[Op, ...]:
            nonlocal ended
            now = snapshot.agent(seen.agent_id)
            same = now is not None and now.extra == seen.extra
            ops = agents.end(snapshot, command) if same else ()
            ended = bool(ops)
            return ops

        self.run(seen.task_id, rule, actor=actor)
        return ended

    def end(self, task_id: str, agent_id: str, status: AgentStatus, reason: str) -> None:
        """End an agent."""
        command = self.ending(agent_id, status, reason)
        self.run(task_id, lambda s: agents.end(s, command), actor="orchestrator")

    def ending(self, agent_id: str, status: AgentStatus, reason: str | None) -> agents.EndAgent:
        """Return the command that ends an agent, and opens the review of its phase."""
        return agents.EndAgent(
            agent_id=agent_id,
            status=status,
            at=self._now(),
            review=self.review_plan() if self._options.auto_review else None,
            reason=reason,
        )

    def _died(self, agent: Agent, status: AgentStatus, reason: str) -> agents.EndAgent:
        """Return the command that ends an agent whose process has ended."""
        command = self.ending(agent.agent_id, status, reason)
        output = self._deployment.files.last_output(agent)
        replacement = self._replacement(agent) if agent.review_id else None
        return replace(command, last_output=output, replacement=replacement)

    def _replacement(self, reviewer: Agent) -> Replacement | None:
        """Return who takes over from a reviewer that died; None if nobody can be started."""
        kind = extra_of(reviewer).get("agent_kind")
        known = self._options.all_kinds.get(kind) if isinstance(kind, str) else None
        if known is None or not known.argv:
            return None
        return Replacement(
            reviewer_id=self._reviewer_id(),
            retries=self._options.reviewer_retries,
            kind=kind,
            model=reviewer.model,
            owner=self.owner,
            uptime=process_identity.uptime(),
        )

    def _reviewer_id(self) -> str:
        return f"reviewer-{self._now():%H%M%S}-{uuid.uuid4().hex[:6]}"

    def review_plan(self) -> ReviewPlan:
        """Return a new review and its reviewers."""
        kind = self._options.reviewer_kind or self._options.default_kind
        known = self._options.all_kinds.get(kind)
        return ReviewPlan(
            review_id=f"review-{uuid.uuid4().hex[:12]}",
            reviewers=tuple(self._reviewer_id() for _ in range(self._options.reviewers)),
            kind=kind,
            model=known.model if known else None,
            owner=None if known and not known.argv else self.owner,
            uptime=process_identity.uptime(),
        )

    def _process_ended(
        self, task_id: str, agent_id: str, code: int | None, *, identity: str
    ) -> None:
        """Record an agent's exit, and stop the processes that it left running."""
        try:
            self._transactions.until_done(
                lambda: self._note_exit(task_id, agent_id, code, identity)
            )
        except Exception:
            log.exception("the end of agent %s is left to the next health scan", agent_id)

    def _note_exit(self, task_id: str, agent_id: str, code: int | None, identity: str) -> None:
        """End an agent whose process has exited without a final report."""
        agent = self._transactions.find_agent(task_id, agent_id)
        if agent is None or process_of(agent) != identity:
            return  # its reservation was removed, or another process was started for it
        self._deployment.stop([agent])
        how = ended_by(agent, code, self._deployment.files.result(agent))
        command = self._died(agent, *how)
        self.run(task_id, lambda s: agents.end(s, command), actor="orchestrator")

    def stopped(self, task_id: str) -> TaskSnapshot:
        """Stop the processes that ended agents left running; returns the task."""
        snapshot = self._store.load(task_id)
        self._deployment.stop(a for a in snapshot.agents if a.status in TERMINAL_AGENT)
        return snapshot


def ended_by(agent: Agent, code: int | None, result: Result | None) -> tuple[AgentStatus, str]:
    """Return the status of an agent that ended without a final report, and the reason.

    ``code`` None: the exit code is not known, so the result line of its log decides.
    """
    if result is not None and not result.ok:
        said = f": {result.text}" if result.text else ""
        return AgentStatus.FAILED, f"its program ended with an error{said}"
    if code == 0 and not agent.review_id:
        return AgentStatus.COMPLETED, "exit code 0, no final report"
    if code is None:
        if result is not None and not agent.review_id:
            return AgentStatus.COMPLETED, "its log ends with a result, no final report"
        return AgentStatus.FAILED, "its process ended without a final report"
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    if code == -signal.SIGHUP and "session" in extra_of(agent):
        how += " (its terminal was closed, or its starter killed)"
    return AgentStatus.FAILED, f"ended with {how}, no final report"
