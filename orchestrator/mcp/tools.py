"""The tools for agents and their conductor."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from orchestrator.health.scan import HealthScan
from orchestrator.mcp.arguments import (
    AgentId,
    AgentType,
    AnyTask,
    Cursor,
    Effort,
    FindingArgument,
    Kind,
    Limit,
    Model,
    OwnId,
    Phase,
    PhaseArgument,
    Prompt,
    Reason,
    ReportedStatus,
    ReviewId,
    Said,
    Short,
    TaskId,
    Text,
    Texts,
    json_of,
    moment_of,
)
from orchestrator.mcp.forced_approval import AskedAbout, Confirmed, must_be_confirmed
from orchestrator.mcp.tool_offers import ALL_BUT_REVIEWERS, EVERYONE, Effect, tool
from orchestrator.queries.answers import (
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
from orchestrator.queries.reading import Reading
from orchestrator.rules.agents import Limits
from orchestrator.rules.findings import FindingType, Severity
from orchestrator.rules.reviews import VerdictWord
from orchestrator.rules.tasks import context_text
from orchestrator.service import Orchestrator
from registry_api import Agent, TaskStatus
from registry_api.records import TERMINAL_AGENT

__all__ = ["Tools"]

_MOST_NAMES = 200  # in a list of an answer


class Tools:
    """The tools: each offered method is one, and its docstring is the description for clients."""

    def __init__(self, service: Orchestrator) -> None:
        self._do = service
        self._read = Reading(service)
        self._health = HealthScan(service)

    @tool("Create a task", Effect.ADDS)
    def create_task(
        self,
        description: Annotated[Said, Field(description="the goal")],
        phases: Annotated[
            list[PhaseArgument], Field(max_length=50, description="in the order of work")
        ] = [],
        priority: Annotated[
            Literal["P0", "P1", "P2", "P3", "P4"], Field(description="P0 is the most urgent")
        ] = "P2",
        client_cwd: Annotated[
            Short, Field(description="absolute path where agents work; default: the task's folder")
        ] = "",
        background_context: Annotated[Text, Field(description="what agents should know")] = "",
        expected_deliverables: Annotated[Texts, Field(description="of the whole task")] = [],
        success_criteria: Annotated[Texts, Field(description="of the whole task")] = [],
        constraints: Annotated[Texts, Field(description="what agents must not do")] = [],
        relevant_files: Annotated[Texts, Field(description="paths worth reading")] = [],
        max_agents: Annotated[
            int | None, Field(ge=1, le=10_000, description="agents in total; default: {max_agents}")
        ] = None,
        max_concurrent: Annotated[
            int | None,
            Field(ge=1, le=1000, description="agents at once; default: {max_concurrent}"),
        ] = None,
        max_depth: Annotated[
            int | None,
            Field(ge=1, le=100, description="nesting depth of agents; default: {max_depth}"),
        ] = None,
    ) -> TaskAnswer:
        """Create a task. Its phases are worked on and reviewed one by one. Without phases it is
        complete when its last agent ends.
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

    @tool("Deploy an agent", Effect.ADDS)
    def deploy_agent(
        self,
        task_id: TaskId,
        agent_type: AgentType,
        prompt: Prompt,
        phase_index: Phase = None,
        kind: Kind = "",
        model: Model = "",
        effort: Effort = "",
    ) -> AgentAnswer:
        """Start an agent on a phase. Refused beyond the task's limits, and if an agent of that type
        is active in the phase. kind external starts nothing: you run the agent yourself.
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
        if self._do.deployment.process(agent) == "external":
            step = "Run the agent yourself: it reports under this id with update_agent_progress"
        else:
            step = "The agent reports by itself; wait_for returns when something has changed"
        return self._agent(agent, step)

    @tool(
        "Start a child agent",
        Effect.ADDS,
        ALL_BUT_REVIEWERS,
        acts_as="parent_agent_id",
        conductor_may=True,
    )
    def spawn_child_agent(
        self,
        task_id: TaskId,
        parent_agent_id: OwnId,
        agent_type: AgentType,
        prompt: Prompt,
        kind: Kind = "",
        model: Model = "",
        effort: Effort = "",
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
        return self._agent(agent, "Wait for it to end before you report completed")

    @tool("Show a task", Effect.READS, EVERYONE)
    def get_task_status(self, task_id: TaskId) -> TaskAnswer:
        """Return a task's status, phases and active agents."""
        return self._read.task(task_id)

    @tool("List tasks", Effect.READS)
    def list_tasks(
        self,
        status: Annotated[TaskStatus | None, Field(description="only this status")] = None,
        text: Annotated[Short, Field(description="text in the id or description")] = "",
        cursor: Cursor = "",
        limit: Limit = 20,
    ) -> TasksPage:
        """List tasks, newest first."""
        return self._read.tasks(status=status, text=text, cursor=cursor or None, limit=limit)

    @tool("Show what an agent printed", Effect.READS, EVERYONE)
    def get_agent_output(
        self,
        task_id: TaskId,
        agent_id: AgentId,
        max_bytes: Annotated[int, Field(ge=1, le=32_768, description="bytes at most")] = 4096,
        before: Annotated[
            int | None, Field(ge=0, description="`start` of the previous answer")
        ] = None,
    ) -> AgentOutput:
        """Return the end of an agent's output, or the part before a position in it."""
        return self._read.output(task_id, agent_id, max_bytes=max_bytes, before=before)

    @tool("Kill an agent", Effect.ENDS)
    def kill_agent(
        self,
        task_id: TaskId,
        agent_id: AgentId,
        reason: Annotated[Short, Field(description="why (recorded)")] = "killed",
    ) -> AgentAnswer:
        """End an agent and stop its process. If it was a phase's last one, the review may open."""
        return self._agent(self._do.kill(task_id, agent_id, reason).agent)

    @tool("Report progress", Effect.ADDS, EVERYONE, acts_as="agent_id")
    def update_agent_progress(
        self,
        task_id: TaskId,
        agent_id: OwnId,
        status: Annotated[ReportedStatus, Field(description="completed, failed, error: final")],
        message: Annotated[Text, Field(description="what was done, or what blocks you")] = "",
        progress: Annotated[int, Field(ge=0, le=100, description="percent done")] = 0,
    ) -> AgentAnswer:
        """Report your progress. completed, failed and error end your work for good."""
        agent = self._do.report(task_id, agent_id, str(status), message, progress)
        return self._agent(agent)

    @tool("Report a finding", Effect.ADDS, EVERYONE, acts_as="agent_id")
    def report_agent_finding(
        self,
        task_id: TaskId,
        agent_id: OwnId,
        finding_type: Annotated[FindingType, Field(description="its type")],
        severity: Annotated[Severity, Field(description="how severe it is")],
        message: Annotated[Said, Field(description="what others must know")],
        data: Annotated[
            dict[str, Any], Field(description='e.g. {"path": "src/a.py"} for a file you made')
        ] = {},
    ) -> FindingAnswer:
        """Report something that others must know; it goes into the phase's handover."""
        finding = self._do.add_finding(
            task_id,
            agent_id,
            message,
            finding_type=finding_type,
            severity=severity,
            data=json_of(data, "data"),
        )
        return FindingAnswer(finding_id=finding.finding_id)

    @tool("List findings", Effect.READS, EVERYONE)
    def get_task_findings(
        self,
        task_id: TaskId,
        agent_id: Annotated[str, Field(max_length=128, description="only this agent's")] = "",
        severity: Annotated[Severity | None, Field(description="only this severity")] = None,
        phase_index: Annotated[
            int | None, Field(ge=-1, le=1000, description="only this phase's; -1: reviewers'")
        ] = None,
        since: Annotated[
            str, Field(max_length=64, description="only later ones; ISO 8601 with a time zone")
        ] = "",
        text: Annotated[Short, Field(description="text in the message")] = "",
        cursor: Cursor = "",
        limit: Limit = 20,
    ) -> FindingsPage:
        """List a task's findings, newest first."""
        return self._read.findings(
            task_id,
            agent_id=agent_id or None,
            severity=str(severity) if severity else None,
            phase_index=phase_index,
            since=moment_of(since) if since else None,
            text=text,
            cursor=cursor or None,
            limit=limit,
        )

    @tool("Show a phase", Effect.READS, EVERYONE)
    def get_phase_status(self, task_id: TaskId, phase_index: Phase = None) -> PhaseAnswer:
        """Return a phase's status, agents, newest review and next step."""
        return self._read.phase(task_id, phase_index)

    @tool("Check a phase's agents", Effect.READS, EVERYONE)
    def check_phase_progress(self, task_id: TaskId, phase_index: Phase = None) -> PhaseAnswer:
        """Return whether a phase's agents are done: get_phase_status without the review."""
        answer = self._read.phase(task_id, phase_index)
        return answer.model_copy(update={"review": None, "description": None})

    @tool("Submit a phase for review", Effect.SETS)
    def submit_phase_for_review(
        self,
        task_id: TaskId,
        summary: Annotated[Text, Field(description="what was done, for the handover")] = "",
        phase_index: Phase = None,
    ) -> ReviewAnswer:
        """Open a phase's review if it did not open by itself, or again after an escalation."""
        snapshot = self._do.submit_phase(task_id, phase_index=phase_index, summary=summary)
        return self._read.reviewed(snapshot, review_id=None, phase_index=phase_index)

    @tool("Mark a revision ready", Effect.SETS)
    def mark_revision_ready(self, task_id: TaskId, phase_index: Phase = None) -> PhaseAnswer:
        """Declare a requested revision as done: the next review opens when the last agent of the
        phase has ended.
        """
        self._do.revision_ready(task_id, phase_index=phase_index)
        return self._read.phase(task_id, phase_index)

    @tool("Give a verdict", Effect.SETS, EVERYONE, acts_as="reviewer_agent_id")
    def submit_review_verdict(
        self,
        task_id: TaskId,
        review_id: ReviewId,
        reviewer_agent_id: OwnId,
        verdict: Annotated[VerdictWord, Field(description="approved: everything exists and works")],
        notes: Annotated[Text, Field(description="the reasons")] = "",
        findings: Annotated[
            list[FindingArgument | str], Field(max_length=200, description="each defect")
        ] = [],
    ) -> ReviewAnswer:
        """Give your verdict as a reviewer, once; it ends your work. All reviewers must approve."""
        said = [
            one.model_dump(mode="json", exclude_unset=True) if isinstance(one, BaseModel) else one
            for one in findings
        ]
        snapshot = self._do.verdict(
            task_id,
            review_id,
            reviewer_agent_id,
            verdict,
            findings_json=json_of(said, "findings"),
            notes=notes,
        )
        answer = self._read.reviewed(snapshot, review_id=review_id)
        answer.next_step = "You are done: stop" if answer.reviews[0].waiting_for else None
        return answer

    @tool("Submit a critique", Effect.SETS, EVERYONE, acts_as="agent_id")
    def submit_critique(
        self,
        task_id: TaskId,
        review_id: ReviewId,
        agent_id: OwnId,
        summary: Annotated[Said, Field(description="the comment in one sentence")],
        observations: Annotated[Texts, Field(description="what was seen")] = [],
        recommendations: Annotated[Texts, Field(description="what to do about it")] = [],
    ) -> ReviewAnswer:
        """Comment on a phase in review, once; this is not a verdict."""
        snapshot = self._do.critique(
            task_id,
            review_id,
            agent_id,
            summary,
            observations=tuple(observations),
            recommendations=tuple(recommendations),
        )
        return self._read.reviewed(snapshot, review_id=review_id)

    @tool("Show reviews", Effect.READS, EVERYONE)
    def get_review_status(
        self,
        task_id: TaskId,
        review_id: Annotated[str, Field(max_length=128, description="only this one")] = "",
        phase_index: Annotated[
            int | None, Field(ge=0, le=1000, description="only this phase's")
        ] = None,
    ) -> ReviewAnswer:
        """Return a review with its verdicts, or the reviews of a phase or task, newest first."""
        return self._read.reviews(task_id, review_id=review_id or None, phase_index=phase_index)

    @tool("Abort a review", Effect.ENDS)
    def abort_stalled_review(
        self, task_id: TaskId, review_id: ReviewId, reason: Reason
    ) -> ReviewAnswer:
        """End a review whose reviewers do not answer. Its phase is escalated."""
        snapshot = self._do.abort_review(task_id, review_id, reason)
        return self._read.reviewed(snapshot, review_id=review_id)

    @tool("Approve an escalated phase", Effect.ENDS)
    def approve_phase_review(
        self,
        task_id: TaskId,
        reason: Reason,
        phase_index: Phase = None,
        *,
        asked_about: AskedAbout,
        confirmed: Confirmed,
    ) -> TaskAnswer:
        """Force-approve an ESCALATED phase without a review; it is recorded as forced. The user is
        asked if your client can ask.
        """
        must_be_confirmed(confirmed)
        snapshot = self._do.approve_phase(task_id, reason, phase_index=asked_about.phase_index)
        return self._read.shown(snapshot)

    @tool("Show a handover", Effect.READS, EVERYONE)
    def get_phase_handover(
        self,
        task_id: TaskId,
        phase_index: Annotated[int | None, Field(ge=0, description="default: the newest")] = None,
    ) -> HandoverAnswer:
        """Return an approved phase's handover to the next phase."""
        return self._read.handover(task_id, phase_index)

    @tool("Show what an agent must know", Effect.READS, EVERYONE)
    def get_task_context(
        self,
        task_id: TaskId,
        phase_index: Phase = None,
        max_tokens: Annotated[
            int, Field(ge=50, le=15_000, description="of four characters each")
        ] = 2000,
    ) -> ContextAnswer:
        """Return what an agent must know: goal, phase, what the review asks for, handovers."""
        return self._read.context(task_id, phase_index=phase_index, max_tokens=max_tokens)

    @tool("Check agents' processes", Effect.READS)
    def get_health_status(self, task_id: AnyTask = "") -> HealthAnswer:
        """Compare the records of active agents with their processes; changes nothing."""
        return self._read.health(task_id or None)

    @tool("Repair the records of agents", Effect.ENDS)
    def trigger_health_scan(self, task_id: AnyTask = "") -> ScanAnswer:
        """Correct agents' records that differ from their processes, and stop leftover processes."""
        found = self._health.run(task_id or None)
        return ScanAnswer(
            looked_at=found.looked_at,
            ended=list(found.ended[:_MOST_NAMES]),
            overdue=list(found.overdue[:_MOST_NAMES]),
            stopped=list(found.stopped[:_MOST_NAMES]),
            started=list(found.started[:_MOST_NAMES]),
            late_writes=list((found.late_writes or ())[:_MOST_NAMES]),
            next_step="get_phase_status shows the next step" if found.ended else None,
        )

    @tool("Cancel a task", Effect.ENDS)
    def cancel_task(
        self,
        task_id: TaskId,
        reason: Reason,
        outcome: Annotated[
            Literal["CANCELLED", "FAILED"], Field(description="FAILED if it is given up")
        ] = "CANCELLED",
    ) -> TaskAnswer:
        """End a task, as CANCELLED or FAILED, and stop its agents."""
        snapshot = self._do.cancel_task(task_id, reason, outcome=TaskStatus(outcome))
        return self._read.shown(snapshot)

    def _agent(self, agent: Agent, next_one: str | None = None) -> AgentAnswer:
        """Return an agent's answer; if it has ended, with the next step and the opened review."""
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
