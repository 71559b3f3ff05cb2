"""The tools: what an agent or its conductor may ask for, each checked at this border."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from orchestrator.answers import (
    AgentAnswer,
    AgentOutput,
    ContextAnswer,
    FindingAnswer,
    FindingsPage,
    HandoverAnswer,
    HealthAnswer,
    PhaseAnswer,
    ReviewAnswer,
    ScanAnswer,
    TaskAnswer,
    TasksPage,
)
from orchestrator.health import HealthScan
from orchestrator.reading import Reading
from orchestrator.rules.agents import Limits
from orchestrator.rules.findings import FindingType, Severity
from orchestrator.rules.reviews import VerdictWord
from orchestrator.rules.tasks import PhasePlan, context_text
from orchestrator.service import Orchestrator
from registry_api import Agent, TaskStatus, jsontext
from registry_api.errors import InvalidInput
from registry_api.models import is_text
from registry_api.status import TERMINAL_AGENT

__all__ = ["Tools"]

_LONGEST = 2**20


def _storable(text: str) -> str:
    if not is_text(text):
        raise ValueError("has U+0000 or a lone surrogate in it")
    return text


Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$")]
Text = Annotated[str, Field(max_length=_LONGEST), AfterValidator(_storable)]
Short = Annotated[str, Field(max_length=10_000), AfterValidator(_storable)]
Texts = Annotated[list[Short], Field(max_length=100)]
Phase = Annotated[int | None, Field(ge=0, le=1000, description="default: the current phase")]
Limit = Annotated[int, Field(ge=1, le=100)]


class PhaseArgument(BaseModel):
    """A phase of a new task."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_storable)]
    description: Short = ""
    deliverables: Texts = []
    success_criteria: Texts = []

    def plan(self) -> PhasePlan:
        """Return it as the rules take it."""
        return PhasePlan(
            name=self.name,
            description=self.description,
            deliverables=tuple(self.deliverables),
            success_criteria=tuple(self.success_criteria),
        )


class Tools:
    """Each public method is a tool of its name; its docstring is what a client reads."""

    def __init__(self, service: Orchestrator) -> None:
        self._do = service
        self._read = Reading(service)
        self._health = HealthScan(service)

    def create_task(
        self,
        description: Text,
        phases: Annotated[list[PhaseArgument], Field(max_length=50)] = [],
        priority: Literal["P0", "P1", "P2", "P3", "P4"] = "P2",
        client_cwd: Annotated[Short, Field(description="where agents work, absolute")] = "",
        background_context: Text = "",
        expected_deliverables: Texts = [],
        success_criteria: Texts = [],
        constraints: Texts = [],
        relevant_files: Texts = [],
        max_agents: Annotated[int | None, Field(ge=1, le=10_000)] = None,
        max_concurrent: Annotated[int | None, Field(ge=1, le=1000)] = None,
        max_depth: Annotated[int | None, Field(ge=1, le=100)] = None,
    ) -> TaskAnswer:
        """Create a task. Its phases are worked on and reviewed one after the other; without any it
        completes when its last agent ends.
        """
        default = self._do.options.limits
        limits = None
        if max_agents or max_concurrent or max_depth:
            limits = Limits(
                max_agents=max_agents or default.max_agents,
                max_concurrent=max_concurrent or default.max_concurrent,
                max_depth=max_depth or default.max_depth,
            )
        snapshot = self._do.create_task(
            description,
            phases=tuple(phase.plan() for phase in phases),
            priority=priority,
            client_cwd=client_cwd or None,
            context=context_text(
                background_context=background_context,
                expected_deliverables=expected_deliverables,
                success_criteria=success_criteria,
                constraints=constraints,
                relevant_files=relevant_files,
            ),
            limits=limits,
        )
        return self._read.shown(snapshot)

    def deploy_agent(
        self,
        task_id: Id,
        agent_type: Annotated[Short, Field(description="a name for its role, e.g. builder")],
        prompt: Text,
        phase_index: Phase = None,
        kind: Annotated[
            Short, Field(description="of registry.toml, or claude, codex, gemini, external")
        ] = "",
        model: Short = "",
        effort: Short = "",
    ) -> AgentAnswer:
        """Start an agent on a phase. Refused beyond the task's limits, and where an agent of that
        type is at work in the phase. kind external starts nothing: you run it yourself.
        """
        agent = self._do.deploy(
            task_id,
            agent_type,
            prompt,
            phase_index=phase_index,
            kind=kind or None,
            model=model or None,
            effort=effort or None,
        )
        shown = "get_task_status" if agent.phase_index is None else "get_phase_status"
        if self._do.deployment.process(agent) == "external":
            step = "Run it yourself: it reports under this id by update_agent_progress"
        else:
            step = f"It reports by itself; {shown} shows where it stands"
        return self._agent(agent, step)

    def spawn_child_agent(
        self,
        task_id: Id,
        parent_agent_id: Id,
        agent_type: Short,
        prompt: Text,
        kind: Short = "",
        model: Short = "",
        effort: Short = "",
    ) -> AgentAnswer:
        """Start an agent for a part of your own work, in your phase."""
        parent = self._do.agent(task_id, parent_agent_id)
        agent = self._do.deploy(
            task_id,
            agent_type,
            prompt,
            parent=parent_agent_id,
            phase_index=parent.phase_index,
            kind=kind or None,
            model=model or None,
            effort=effort or None,
        )
        return self._agent(agent, "Wait for it before you report completed")

    def get_task_status(self, task_id: Id) -> TaskAnswer:
        """Return a task as it stands: its status, phases and active agents."""
        return self._read.task(task_id)

    def list_tasks(
        self,
        status: TaskStatus | None = None,
        text: Annotated[Short, Field(description="in the id or the description")] = "",
        cursor: str = "",
        limit: Limit = 20,
    ) -> TasksPage:
        """List tasks, newest first."""
        return self._read.tasks(status=status, text=text, cursor=cursor or None, limit=limit)

    def get_agent_output(
        self,
        task_id: Id,
        agent_id: Id,
        max_bytes: Annotated[int, Field(ge=1, le=65_536)] = 4096,
        before: Annotated[int | None, Field(ge=0, description="the start of a later part")] = None,
    ) -> AgentOutput:
        """Return the end of what an agent printed, or what stands before a place in it."""
        return self._read.output(task_id, agent_id, max_bytes=max_bytes, before=before)

    def kill_agent(self, task_id: Id, agent_id: Id, reason: Short = "killed") -> AgentAnswer:
        """End an agent and stop its process. The last one of a phase may open its review."""
        return self._agent(self._do.kill(task_id, agent_id, reason))

    def update_agent_progress(
        self,
        task_id: Id,
        agent_id: Id,
        status: Annotated[
            str, Field(description="working, blocked, running; completed, failed or error end you")
        ],
        message: Text = "",
        progress: Annotated[int, Field(ge=0, le=100)] = 0,
    ) -> AgentAnswer:
        """Report what you have done. completed, failed and error end you, once and for all."""
        agent = self._do.report(task_id, agent_id, status, message, progress)
        return self._agent(agent)

    def report_agent_finding(
        self,
        task_id: Id,
        agent_id: Id,
        finding_type: FindingType,
        severity: Severity,
        message: Text,
        data: Annotated[
            dict[str, Any], Field(description='e.g. {"path": "src/a.py"} for a file made')
        ] = {},
    ) -> FindingAnswer:
        """Report something that others must know; it goes into the phase's handover."""
        finding = self._do.find(
            task_id,
            agent_id,
            message,
            finding_type=finding_type,
            severity=severity,
            data=_json(data, "data"),
        )
        return FindingAnswer(finding_id=finding.finding_id)

    def get_task_findings(
        self,
        task_id: Id,
        agent_id: Annotated[str, Field(max_length=128)] = "",
        severity: Severity | None = None,
        phase_index: Annotated[int | None, Field(ge=-1, le=1000)] = None,
        since: Annotated[str, Field(description="ISO 8601 with a zone")] = "",
        text: Short = "",
        cursor: str = "",
        limit: Limit = 20,
    ) -> FindingsPage:
        """List a task's findings, newest first."""
        return self._read.findings(
            task_id,
            agent_id=agent_id or None,
            severity=severity,
            phase_index=phase_index,
            since=_moment(since) if since else None,
            text=text,
            cursor=cursor or None,
            limit=limit,
        )

    def get_phase_status(self, task_id: Id, phase_index: Phase = None) -> PhaseAnswer:
        """Return a phase as it stands: its agents, its newest review, what to do next."""
        return self._read.phase(task_id, phase_index)

    def check_phase_progress(self, task_id: Id, phase_index: Phase = None) -> PhaseAnswer:
        """Return whether the agents of a phase are done: get_phase_status without the review."""
        answer = self._read.phase(task_id, phase_index)
        return answer.model_copy(update={"review": None, "description": None})

    def submit_phase_for_review(
        self, task_id: Id, summary: Text = "", phase_index: Phase = None
    ) -> ReviewAnswer:
        """Open a phase's review where it did not open by itself, or again after an escalation."""
        snapshot = self._do.submit_phase(task_id, phase_index=phase_index, summary=summary)
        return self._read.reviewed(snapshot, review_id=None, phase_index=phase_index)

    def mark_revision_ready(self, task_id: Id, phase_index: Phase = None) -> PhaseAnswer:
        """Say that what the review asked for is done: the next review opens when the last agent of
        the phase has ended.
        """
        self._do.revision_ready(task_id, phase_index=phase_index)
        return self._read.phase(task_id, phase_index)

    def submit_review_verdict(
        self,
        task_id: Id,
        review_id: Id,
        reviewer_agent_id: Id,
        verdict: VerdictWord,
        notes: Text = "",
        findings: Annotated[
            list[Any], Field(max_length=200, description="{severity, message} each")
        ] = [],
    ) -> ReviewAnswer:
        """Give your verdict as a reviewer, once; it ends you. All must approve."""
        snapshot = self._do.verdict(
            task_id,
            review_id,
            reviewer_agent_id,
            verdict,
            findings_json=_json(findings, "findings"),
            notes=notes,
        )
        answer = self._read.reviewed(snapshot, review_id=review_id)
        answer.next_step = "You are done: stop" if answer.reviews[0].waiting_for else None
        return answer

    def submit_critique(
        self,
        task_id: Id,
        review_id: Id,
        agent_id: Id,
        summary: Text,
        observations: Texts = [],
        recommendations: Texts = [],
    ) -> ReviewAnswer:
        """Remark on a phase in review, once; it does not count for the verdict."""
        snapshot = self._do.critique(
            task_id,
            review_id,
            agent_id,
            summary,
            observations=tuple(observations),
            recommendations=tuple(recommendations),
        )
        return self._read.reviewed(snapshot, review_id=review_id)

    def get_review_status(
        self,
        task_id: Id,
        review_id: Annotated[str, Field(max_length=128)] = "",
        phase_index: Annotated[int | None, Field(ge=0, le=1000)] = None,
    ) -> ReviewAnswer:
        """Return a review with its verdicts, or the reviews of a phase or task, newest first."""
        return self._read.reviews(task_id, review_id=review_id or None, phase_index=phase_index)

    def abort_stalled_review(self, task_id: Id, review_id: Id, reason: Short) -> ReviewAnswer:
        """End a review whose reviewers do not answer. Its phase is escalated."""
        snapshot = self._do.abort_review(task_id, review_id, reason)
        return self._read.reviewed(snapshot, review_id=review_id)

    def approve_phase_review(
        self, task_id: Id, reason: Short, phase_index: Phase = None
    ) -> TaskAnswer:
        """Approve an ESCALATED phase without a review. The reason is kept."""
        snapshot = self._do.approve_phase(task_id, reason, phase_index=phase_index)
        return self._read.shown(snapshot)

    def get_phase_handover(
        self,
        task_id: Id,
        phase_index: Annotated[int | None, Field(ge=0, description="default: the newest")] = None,
    ) -> HandoverAnswer:
        """Return what an approved phase left to the next."""
        return self._read.handover(task_id, phase_index)

    def get_task_context(
        self,
        task_id: Id,
        phase_index: Phase = None,
        max_tokens: Annotated[int, Field(ge=50, le=100_000)] = 2000,
    ) -> ContextAnswer:
        """Return what an agent must know: goal, phase, what a review asks for, handovers."""
        return self._read.context(task_id, phase_index=phase_index, max_tokens=max_tokens)

    def get_health_status(
        self, task_id: Annotated[str, Field(max_length=128, description="default: all")] = ""
    ) -> HealthAnswer:
        """Compare the records of active agents with their processes; changes nothing."""
        return self._read.health(task_id or None)

    def trigger_health_scan(
        self, task_id: Annotated[str, Field(max_length=128, description="default: all")] = ""
    ) -> ScanAnswer:
        """Set right what differs between records and processes."""
        found = self._health.run(task_id or None)
        return ScanAnswer(
            looked_at=found.looked_at,
            ended=list(found.ended),
            stopped=list(found.stopped),
            started=list(found.started),
            next_step="get_phase_status shows what follows" if found.ended else None,
        )

    def cancel_task(
        self,
        task_id: Id,
        reason: Short,
        outcome: Literal["CANCELLED", "FAILED"] = "CANCELLED",
    ) -> TaskAnswer:
        """End a task and stop its agents: CANCELLED, or FAILED where it is given up."""
        snapshot = self._do.cancel_task(task_id, reason, outcome=TaskStatus(outcome))
        return self._read.shown(snapshot)

    def _agent(self, agent: Agent, next_one: str | None = None) -> AgentAnswer:
        """Return an agent's answer; of one that ended, with what its end led to."""
        answer = AgentAnswer(
            task_id=agent.task_id,
            agent_id=agent.agent_id,
            status=agent.status,
            progress=agent.progress or None,
            phase_index=agent.phase_index,
            next_step=next_one,
        )
        if agent.status in TERMINAL_AGENT:
            snapshot = self._do.store.load(agent.task_id)
            answer.next_step = self._read.next_step(snapshot)
            phase = snapshot.phase(-1 if agent.phase_index is None else agent.phase_index)
            if phase is not None:
                answer.review_opened = phase.active_review_id
        return answer


def _json(value: object, name: str) -> str:
    """Return the text of a JSON value from outside; raises InvalidInput for what is none."""
    try:
        return jsontext.dump_text(jsontext.parse(json.dumps(value).encode()))
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidInput(f"{name}: {error}", next_step="Give plain JSON") from None


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        if moment.utcoffset() is None:
            raise ValueError("it has no zone")
    except ValueError as error:
        raise InvalidInput(
            f"since {text[:80]!r}: {error}", next_step="E.g. 2026-01-31T12:00:00+00:00"
        ) from None
    return moment
