"""The commands of an orchestrator: each runs one rule in one transaction, then acts on the result.

Nothing slow runs inside a transaction: processes are started and stopped after it. Every method may
be called from any thread and from any number of processes at once.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import NoReturn

from orchestrator import prompts
from orchestrator.agents.deployment import (
    Deployment,
    Endpoint,
    Order,
    process_of,
    working_directory,
)
from orchestrator.errors import AgentEnded, AgentNotFound
from orchestrator.rules import (
    agents,
    findings,
    phases,
    progress,
    reviews,
    submission,
    tasks,
)
from orchestrator.rules.draft import Draft, extra_of
from orchestrator.rules.handovers import HandoverPlan
from orchestrator.rules.reviews import ReviewPlan, VerdictWord
from orchestrator.settings import OrchestratorSettings
from registry_api import (
    Agent,
    AgentStatus,
    Finding,
    Kind,
    Op,
    Phase,
    ProgressEntry,
    Put,
    RecordQuery,
    Refs,
    RegistryStore,
    Review,
    Settings,
    Task,
    TaskSnapshot,
    TaskStatus,
    all_records,
    commit_with_retry,
    new_changeset,
    transact,
)
from registry_api.errors import InvalidInput, RegistryError
from registry_api.plugins import Launcher
from registry_api.records import ACTIVE_AGENT, TERMINAL_AGENT, is_text

__all__ = ["Orchestrator", "ended_by"]

log = logging.getLogger("registry_backend")
Rule = Callable[[TaskSnapshot], Iterable[Op]]
_PATIENCE = 30.0  # seconds to retry a commit that the store cannot take now
_PAUSE = 1.0
_MOST_LATE = 200  # late reports of an agent that are skipped to find its last one before its end
_MOST_FINDINGS = 200  # newest findings of a phase that its handover is made from
_WHOLE = frozenset({Kind.AGENT, Kind.TASK})
_TASK = Refs(kinds=frozenset({Kind.TASK}))


def _now() -> datetime:
    return datetime.now(UTC)


class Orchestrator:
    """The commands of one workspace; the caller that opened the store closes it."""

    def __init__(
        self,
        store: RegistryStore,
        launcher: Launcher,
        *,
        settings: Settings,
        options: OrchestratorSettings,
        now: Callable[[], datetime] = _now,
        endpoint: Endpoint | None = None,
    ) -> None:
        self.store = store
        self.settings = settings
        self.options = options
        self.now = now
        self.launcher = launcher
        self.deployment = Deployment(
            store,
            launcher,
            workspace=settings.workspace,
            kinds=options.all_kinds,
            now=now,
            grace=options.stop_grace,
            endpoint=endpoint,
        )
        self._owner = self.deployment.owner()

    def create_task(
        self,
        description: str,
        *,
        phases: tuple[tasks.PhasePlan, ...] = (),
        priority: str = "P2",
        client_cwd: str | None = None,
        context: str = "{}",
        limits: agents.Limits | None = None,
    ) -> TaskSnapshot:
        """Create a task and open its first phase; raises InvalidInput for a bad ``client_cwd``."""
        at = self.now()
        task_id = f"TASK-{at:%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:8]}"
        working_directory(client_cwd)
        task = Task(
            task_id=task_id,
            description=description,
            created_at=at,
            priority=priority,
            workspace=str(self.settings.workspace / task_id),
            workspace_base=str(self.settings.workspace),
            client_cwd=client_cwd,
            context=context,
            max_agents=limits.max_agents if limits else None,
            max_concurrent=limits.max_concurrent if limits else None,
            max_depth=limits.max_depth if limits else None,
        )
        command = tasks.CreateTask(
            task=task, phases=phases, max_revision_rounds=self.options.max_revision_rounds
        )
        self._commit(task_id, tasks.create(command), expected=0, actor="create_task")
        return self.store.load(task_id)

    def cancel_task(
        self, task_id: str, reason: str, *, outcome: TaskStatus = TaskStatus.CANCELLED
    ) -> TaskSnapshot:
        """End a task and stop its agents."""
        command = tasks.CancelTask(reason=reason, at=self.now(), outcome=outcome)
        self._run(task_id, lambda s: tasks.cancel(s, command), actor="cancel_task")
        return self._stopped(task_id)

    def deploy(
        self,
        task_id: str,
        agent_type: str,
        prompt: str,
        *,
        parent: str = agents.ORCHESTRATOR,
        phase_index: int | None = None,
        kind: str | None = None,
        model: str | None = None,
        effort: str | None = None,
    ) -> Agent:
        """Reserve an agent and start it; raises the errors of the rules and of the launch.

        If the agent cannot be started, its reservation is removed. Raises AgentEnded if it was
        ended in the meantime.
        """
        _refuse_unstorable(prompt)
        at = self.now()
        order = self.deployment.order(
            kind or self.options.default_kind,
            model=model,
            effort=effort,
            cwd=self.store.load(task_id, only=_TASK).task.client_cwd,
        )
        agent_id = f"{agent_type}-{at:%H%M%S}-{uuid.uuid4().hex[:6]}"
        command = agents.DeployAgent(
            agent_id=agent_id,
            agent_type=agent_type,
            prompt=prompt,
            at=at,
            limits=self.options.limits,
            parent=parent,
            phase_index=phase_index,
            model=order.model,
            kind=order.kind,
            owner=None if order.external else self._owner,
        )
        self._run(task_id, lambda s: agents.deploy(s, command), actor="deploy_agent")
        said = prompts.worker(task_id, agent_id) if order.preamble else ""
        text = (prompts.preamble(said) if said else "") + prompt
        try:
            self._start(task_id, agent_id, order, text)
        except AgentEnded:
            raise
        except Exception:
            self._with_retry(partial(self._take_back, task_id, agent_id))
            raise
        return self.agent(task_id, agent_id)

    def kill(self, task_id: str, agent_id: str, reason: str) -> Agent:
        """Terminate an agent and stop its process; raises AgentNotFound or AgentEnded."""
        agent = self.agent(task_id, agent_id)
        if agent.status in TERMINAL_AGENT:
            self.deployment.stop([agent])
            raise AgentEnded(
                f"agent {agent_id} is {agent.status}",
                next_step="get_task_status shows the next step",
                status=str(agent.status),
            )
        self._end(task_id, agent_id, AgentStatus.TERMINATED, reason)
        agent = self.agent(task_id, agent_id)
        self.deployment.stop([agent])
        return agent

    def report(
        self,
        task_id: str,
        agent_id: str,
        status: str,
        message: str,
        progress_percent: int,
        *,
        at: datetime | None = None,
    ) -> Agent:
        """Append a report; a terminal status ends the agent and may open its phase's review.

        Raises AgentEnded if the agent had already ended; the report is kept in the history.
        """
        at = at or self.now()
        entry = ProgressEntry(
            task_id=task_id,
            entry_id=uuid.uuid4().hex,
            agent_id=agent_id,
            timestamp=at,
            status=status,
            message=message,
            progress=progress_percent,
        )
        said = progress.reported(status)
        snapshot = self._only(task_id, agent_id)
        done = progress.report(snapshot, entry)
        if done.late:
            self._keep_late(entry, done.late)
        if said in ACTIVE_AGENT:
            self._commit(task_id, done.ops, expected=None, actor=agent_id)
            agent = snapshot.agent(agent_id)
            assert agent is not None
            return replace(agent, status=said, progress=progress_percent, last_update=at)
        command = self._ending(agent_id, said, None)
        command = replace(command, progress=progress_percent, by_report=True)
        try:
            self._run(task_id, lambda s: (*done.ops, *agents.end(s, command)), actor=agent_id)
        except AgentEnded as error:  # it ended between our read and this
            self._keep_late(entry, error.fields["status"])
        return self.agent(task_id, agent_id)

    def _keep_late(self, entry: ProgressEntry, status: object) -> NoReturn:
        """Keep the report of an agent that had ended, and refuse it."""
        self._commit(entry.task_id, (Put(entry),), expected=None, actor=entry.agent_id)
        raise AgentEnded(
            f"agent {entry.agent_id} is {status}: the report is kept but changes nothing",
            next_step="Stop: an agent that has ended cannot continue",
            status=str(status),
        )

    def add_finding(
        self,
        task_id: str,
        agent_id: str,
        message: str,
        *,
        finding_type: findings.FindingType,
        severity: findings.Severity,
        data: str = "{}",
    ) -> Finding:
        """Append a finding; raises AgentNotFound."""
        finding = Finding(
            task_id=task_id,
            finding_id=uuid.uuid4().hex,
            agent_id=agent_id,
            timestamp=self.now(),
            finding_type=finding_type,
            severity=severity,
            message=message,
            data=data,
        )
        ops = findings.add_finding(self._only(task_id, agent_id), finding)
        self._commit(task_id, ops, expected=None, actor=agent_id)
        return finding

    def submit_phase(
        self, task_id: str, *, phase_index: int | None = None, summary: str = ""
    ) -> TaskSnapshot:
        """Open a phase's review and start its reviewers."""
        command = submission.SubmitPhase(
            review=self._plan(), at=self.now(), phase_index=phase_index, summary=summary
        )
        self._run(task_id, lambda s: submission.submit(s, command), actor="submit_phase_for_review")
        return self.store.load(task_id)

    def revision_ready(self, task_id: str, *, phase_index: int | None = None) -> TaskSnapshot:
        """Mark a revision as done; its review opens when the last agent has ended."""
        command = submission.MarkRevisionReady(
            review=self._plan(), at=self.now(), phase_index=phase_index
        )
        self._run(task_id, lambda s: submission.revision_ready(s, command), actor="revision_ready")
        return self.store.load(task_id)

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
        at, verdict_id = self.now(), uuid.uuid4().hex

        def rule(snapshot: TaskSnapshot) -> Iterable[Op]:
            handover = HandoverPlan(handover_id=verdict_id)
            if reviews.may_approve(snapshot, review_id, verdict):
                handover = self._handover(snapshot, snapshot.review(review_id))
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

        self._run(task_id, rule, actor=reviewer_id)
        return self.store.load(task_id)

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
            at=self.now(),
            observations=observations,
            recommendations=recommendations,
        )
        self._run(task_id, lambda s: reviews.critique(s, command), actor=agent_id)
        return self.store.load(task_id)

    def abort_review(self, task_id: str, review_id: str, reason: str) -> TaskSnapshot:
        """End a review without a decision and stop its reviewers; its phase is escalated."""
        command = reviews.AbortReview(review_id=review_id, reason=reason, at=self.now())
        self._run(task_id, lambda s: reviews.abort(s, command), actor="abort_stalled_review")
        return self._stopped(task_id)

    def approve_phase(
        self, task_id: str, reason: str, *, phase_index: int | None = None
    ) -> TaskSnapshot:
        """Force-approve an escalated phase; the reason is recorded."""
        at = self.now()

        def rule(snapshot: TaskSnapshot) -> Iterable[Op]:
            command = phases.ApprovePhase(
                reason=reason,
                handover=self._handover(snapshot, Draft(snapshot).phase(phase_index)),
                at=at,
                phase_index=phase_index,
            )
            return phases.approve_escalated(snapshot, command)

        self._run(task_id, rule, actor="approve_phase_review")
        return self.store.load(task_id)

    def end_seen(self, seen: Agent, status: AgentStatus, reason: str) -> bool:
        """End an agent unless its process or owner has changed since ``seen`` was read.

        Returns whether this call ended it.
        """
        command = self._ending(seen.agent_id, status, reason)
        ended = False

        def rule(snapshot: TaskSnapshot) -> tuple[Op, ...]:
            nonlocal ended
            now = snapshot.agent(seen.agent_id)
            same = now is not None and now.extra == seen.extra
            ops = agents.end(snapshot, command) if same else ()
            ended = bool(ops)
            return ops

        self._run(seen.task_id, rule, actor="orchestrator")
        return ended

    def take_over(self, reviewer: Agent) -> bool:
        """Start a reviewer whose owner died before starting it; of several callers only one does.

        Returns whether this call started it.
        """
        taken: tuple[Op, ...] = ()

        def rule(snapshot: TaskSnapshot) -> tuple[Op, ...]:
            nonlocal taken
            taken = reviews.take_over(snapshot, reviewer, owner=self._owner)
            return taken

        transact(self.store, reviewer.task_id, rule, actor="orchestrator")
        return bool(taken) and self._start_reviewer(reviewer)

    def find_agent(self, task_id: str, agent_id: str) -> Agent | None:
        """Return one agent, or None; raises TaskNotFound."""
        return self._only(task_id, agent_id).agent(agent_id)

    def agent(self, task_id: str, agent_id: str) -> Agent:
        """Return one agent; raises TaskNotFound or AgentNotFound."""
        found = self.find_agent(task_id, agent_id)
        if found is None:
            raise AgentNotFound(
                f"task {task_id} has no agent {agent_id!r}",
                next_step="get_task_status lists its agents",
            )
        return found

    def _only(self, task_id: str, agent_id: str) -> TaskSnapshot:
        refs = Refs(kinds=_WHOLE, agent_ids=frozenset({agent_id}))
        return self.store.load(task_id, only=refs)

    def _commit(self, task_id: str, ops: Iterable[Op], *, expected: int | None, actor: str) -> None:
        changeset = new_changeset(task_id, ops, expected=expected, actor=actor[:64], at=self.now())
        commit_with_retry(self.store, changeset, deadline=time.monotonic() + _PATIENCE)

    def _run(self, task_id: str, rule: Rule, *, actor: str) -> None:
        """Run a rule in a transaction, then start the reviewers that it reserved."""
        decided: tuple[Op, ...] = ()

        def decide(snapshot: TaskSnapshot) -> tuple[Op, ...]:
            nonlocal decided
            decided = tuple(rule(snapshot))
            return decided

        transact(self.store, task_id, decide, actor=actor[:64])
        for op in decided:
            reserved = op.record if isinstance(op, Put) else None
            if isinstance(reserved, Agent) and reserved.status is AgentStatus.REVIEWING:
                self._start_reviewer(reserved)

    def _start_reviewer(self, reviewer: Agent) -> bool:
        """Start a reserved reviewer; if that fails, its record says so.

        Raises nothing: the command that reserved it is committed, and the next reviewer must start.
        """
        task_id, reviewer_id = reviewer.task_id, reviewer.agent_id
        try:
            snapshot = self.store.load(task_id)
            review = snapshot.review(reviewer.review_id or "")
            order = self.deployment.order(
                str(extra_of(reviewer).get("agent_kind")),
                model=None,
                effort=None,
                cwd=snapshot.task.client_cwd,
            )
            index = review.phase_index if review else None
            text = prompts.reviewer(task_id, reviewer_id, reviewer.review_id or "", index)
            self._start(task_id, reviewer_id, order, text)
        except Exception as error:  # noqa: BLE001  (the record must name any error)
            log.warning("reviewer %s was not started: %s", reviewer_id, error)
            reason = str(error)
            self._with_retry(lambda: self._end(task_id, reviewer_id, AgentStatus.FAILED, reason))
            return False
        return True

    def _start(self, task_id: str, agent_id: str, order: Order, text: str) -> None:
        snapshot = self._only(task_id, agent_id)
        agent = snapshot.agent(agent_id)
        if agent is not None:
            self.deployment.start(snapshot.task, agent, order, text, ended=self._process_ended)

    def _take_back(self, task_id: str, agent_id: str) -> None:
        """Remove the reservation of an agent that never ran."""
        self._run(task_id, lambda s: agents.take_back(s, agent_id), actor="deploy_agent")

    def _process_ended(self, task_id: str, agent_id: str, code: int) -> None:
        """Record an agent's exit, and stop the processes that it left running."""
        self._until_done(lambda: self._note_exit(task_id, agent_id, code))

    def _with_retry(self, call: Callable[[], None]) -> None:
        """Call now, or in the background as soon as the store can be written to."""
        try:
            call()
        except RegistryError as error:
            if not error.retryable:
                raise
            threading.Thread(target=self._until_done, args=(call,), daemon=True).start()

    def _until_done(self, call: Callable[[], None]) -> None:
        while True:
            try:
                return call()
            except RegistryError as error:
                if not error.retryable:  # usually the store was closed: a scan corrects the record
                    log.info("not recorded, left to the next health scan: %s", error)
                    return None
            time.sleep(_PAUSE)

    def _note_exit(self, task_id: str, agent_id: str, code: int) -> None:
        """End an agent whose process has exited without a final report."""
        agent = self.find_agent(task_id, agent_id)
        if agent is None or process_of(agent) is None:
            return  # it was never confirmed, so it never ran: its reservation is removed
        self.deployment.stop([agent])
        self._end(task_id, agent_id, *ended_by(agent, code))

    def _end(self, task_id: str, agent_id: str, status: AgentStatus, reason: str) -> None:
        command = self._ending(agent_id, status, reason)
        self._run(task_id, lambda s: agents.end(s, command), actor="orchestrator")

    def _ending(self, agent_id: str, status: AgentStatus, reason: str | None) -> agents.EndAgent:
        return agents.EndAgent(
            agent_id=agent_id,
            status=status,
            at=self.now(),
            review=self._plan() if self.options.auto_review else None,
            reason=reason,
        )

    def _plan(self) -> ReviewPlan:
        kind = self.options.reviewer_kind or self.options.default_kind
        known = self.options.all_kinds.get(kind)
        return ReviewPlan(
            review_id=f"review-{uuid.uuid4().hex[:12]}",
            reviewers=tuple(
                f"reviewer-{self.now():%H%M%S}-{uuid.uuid4().hex[:6]}"
                for _ in range(self.options.reviewers)
            ),
            kind=kind,
            model=known.model if known else None,
            owner=None if known and not known.argv else self._owner,
        )

    def _handover(self, snapshot: TaskSnapshot, of: Phase | Review | None) -> HandoverPlan:
        """Return what a phase's handover is made from; ``of``: the phase, or a review of it."""
        phase_index = of.phase_index if of else None
        query = RecordQuery(
            task_id=snapshot.task.task_id, phase_index=phase_index, newest_first=True
        )
        found = islice(all_records(self.store, Kind.FINDING, query), _MOST_FINDINGS)
        return HandoverPlan(
            handover_id=uuid.uuid4().hex,
            findings=tuple(f for f in found if isinstance(f, Finding)),
            reports=tuple(self.last_words(snapshot)),
        )

    def last_words(self, snapshot: TaskSnapshot) -> Iterator[ProgressEntry]:
        """Yield each agent's newest report; for an agent that has ended, the newest before its end.

        A later report was refused and is only in the history.
        """
        for entry in snapshot.latest:
            agent = snapshot.agent(entry.agent_id)
            end = agent.completed_at if agent is not None else None
            if end is None or entry.timestamp <= end:
                yield entry
                continue
            query = RecordQuery(task_id=entry.task_id, agent_id=entry.agent_id, newest_first=True)
            told = islice(all_records(self.store, Kind.PROGRESS, query), _MOST_LATE)
            before = (e for e in told if isinstance(e, ProgressEntry) and e.timestamp <= end)
            yield from islice(before, 1)

    def _stopped(self, task_id: str) -> TaskSnapshot:
        """Stop the processes that ended agents left running; returns the task."""
        snapshot = self.store.load(task_id)
        self.deployment.stop(a for a in snapshot.agents if a.status in TERMINAL_AGENT)
        return snapshot


def ended_by(agent: Agent, code: int) -> tuple[AgentStatus, str]:
    """Return the status of an agent that exited without a final report, and the reason."""
    if code == 0 and not agent.review_id:
        return AgentStatus.COMPLETED, "exit code 0, no final report"
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return AgentStatus.FAILED, f"ended with {how}, no final report"


def _refuse_unstorable(prompt: str) -> None:
    """Raise InvalidInput for a prompt that cannot be passed on unchanged."""
    if not is_text(prompt):
        raise InvalidInput("the prompt contains U+0000 or a lone surrogate", next_step="Remove it")
