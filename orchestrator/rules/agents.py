"""Agents: reserved within the task's limits, confirmed when they run, ended once."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime

from orchestrator.errors import (
    AgentEnded,
    DuplicateAgent,
    LimitReached,
    NotRetryable,
    VerdictMissing,
)
from orchestrator.rules import attempts, phases, reviews, submission
from orchestrator.rules.draft import Draft, extra_of, with_extra
from orchestrator.rules.reviews import Replacement, ReviewPlan
from registry_api import (
    Agent,
    AgentStatus,
    Delete,
    Kind,
    Op,
    Phase,
    PhaseStatus,
    Put,
    Task,
    TaskSnapshot,
)
from registry_api.errors import InvalidInput
from registry_api.records import ACTIVE_AGENT, FAILED_AGENT, TERMINAL_AGENT

__all__ = [
    "SECRET_HASH",
    "TYPE_PATTERN",
    "ConfirmAgent",
    "DeployAgent",
    "EndAgent",
    "Limits",
    "confirm",
    "deploy",
    "end",
    "is_unverified",
    "reservation_of",
    "take_back",
]

SECRET_HASH = "secret_sha256"  # noqa: S105  (the field, in `extra`, of a hash)
ORCHESTRATOR = "orchestrator"  # the parent of agents that the conductor deploys
TYPE_PATTERN = "^[A-Za-z0-9_][A-Za-z0-9_-]{0,63}$"
_TYPE = re.compile(TYPE_PATTERN, re.ASCII)
_OPEN = frozenset({PhaseStatus.ACTIVE, PhaseStatus.REVISION_NEEDED, PhaseStatus.FIXING})
_SHOWN = 200  # characters of the prompt kept in the record, as legacy programs do


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many agents a task may have in total and at once, and how deep they may nest."""

    max_agents: int = 45
    max_concurrent: int = 20
    max_depth: int = 5

    def of(self, task: Task) -> Limits:
        """Return these limits, each replaced by the task's own if it sets one."""
        return Limits(
            max_agents=self.max_agents if task.max_agents is None else task.max_agents,
            max_concurrent=(
                self.max_concurrent if task.max_concurrent is None else task.max_concurrent
            ),
            max_depth=self.max_depth if task.max_depth is None else task.max_depth,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployAgent:
    """Reserve a place for an agent; ``phase_index`` None: the current phase.

    ``owner`` names the process that reserves and must start it, ``uptime`` is the time at which it
    does, in seconds since its machine's boot. ``retry_of``: the failed agent whose work it does
    again. ``prompt_at``: where the prompt begins in the text that the agent reads.
    """

    agent_id: str
    agent_type: str
    prompt: str
    at: datetime
    limits: Limits
    parent: str = ORCHESTRATOR
    phase_index: int | None = None
    model: str | None = None
    kind: str | None = None
    effort: str | None = None
    owner: str | None = None
    uptime: float | None = None
    retry_of: str | None = None
    prompt_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmAgent:
    """Record the process of a reserved agent.

    The launcher finds the process again by ``identity``. ``secret_hash`` is the hash of the secret
    with which the agent proves its identity. ``session`` and ``attach``: the terminal session that
    it runs in, and the command that attaches a person to it. ``reservation``: that of the agent
    which was started. ``host``: the name of its host, for people.
    """

    agent_id: str
    identity: str
    pid: int | None
    at: datetime
    secret_hash: str
    reservation: tuple[object, object]
    host: str = ""
    launcher: str = "process"
    session: str | None = None
    attach: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EndAgent:
    """End an agent, by its own report or because its process ended or was stopped.

    ``review``: the review to open if this was the phase's last agent; None: no review is opened.
    ``replacement``: the reviewer that takes over if it is one that failed; None: nobody does.
    """

    agent_id: str
    status: AgentStatus
    at: datetime
    review: ReviewPlan | None
    reason: str | None = None
    progress: int | None = None
    by_report: bool = False
    last_output: str | None = None
    replacement: Replacement | None = None


def is_unverified(agent: Agent) -> bool:
    """Return whether an agent has no secret: it was not started here, or by an earlier version.

    An agent that is being started has no hash yet and no process either; it is not unverified.
    """
    extra = extra_of(agent)
    return not isinstance(extra.get(SECRET_HASH), str) and (
        "process" in extra or "reserved_by" not in extra
    )


def deploy(snapshot: TaskSnapshot, command: DeployAgent) -> tuple[Op, ...]:
    """Reserve the agent: from now on it counts towards the limits, though nothing runs yet.

    Raises TaskEnded, PhaseNotFound, PhaseClosed, DuplicateAgent, LimitReached, NotRetryable,
    AgentNotFound or AgentEnded (the parent), InvalidInput (the type).
    """
    draft = Draft(snapshot)
    if not _TYPE.fullmatch(command.agent_type):
        raise InvalidInput(
            f"agent type {command.agent_type[:80]!r} is not a valid name",
            next_step="Use letters, digits, _ and -, at most 64, not starting with -",
        )
    draft.must_run()
    before = _failed(draft, command.retry_of) if command.retry_of is not None else None
    phase = _open_phase(draft, command.phase_index, at=command.at)
    _refuse_duplicate(draft, command.agent_type, phase)
    # Its parent may have ended, so that it is deployed by the conductor: it nests no less.
    depth = max(_depth(draft, command), before.depth or 1 if before is not None else 1)
    _check_limits(draft, command.limits.of(draft.task), depth, retry_of=command.retry_of)
    if phase is not None and phase.status is PhaseStatus.REVISION_NEEDED:
        phases.move(draft, phase, PhaseStatus.FIXING)
    agent = Agent(
        task_id=draft.task.task_id,
        agent_id=command.agent_id,
        type=command.agent_type,
        model=command.model,
        status=AgentStatus.RUNNING,
        phase_index=phase.phase_index if phase else None,
        parent=command.parent,
        depth=depth,
        started_at=command.at,
        last_update=command.at,
        prompt=command.prompt[:_SHOWN] + ("..." if len(command.prompt) > _SHOWN else ""),
    )
    agent = with_extra(
        agent,
        agent_kind=command.kind,
        effort=command.effort,
        reserved_by=command.owner,
        reserved_uptime=command.uptime,
        prompt_at=command.prompt_at,
    )
    if before is None:
        draft.put(agent)
    else:
        attempts.follow(draft, before, agent)
    return draft.ops()


def confirm(snapshot: TaskSnapshot, command: ConfirmAgent) -> tuple[Op, ...]:
    """Record the process of a reserved agent.

    Raises AgentEnded if it has ended since, or if somebody else has taken over its start, who may
    have found that it took too long.
    """
    draft = Draft(snapshot)
    agent = draft.agent(command.agent_id)
    _must_live(agent)
    if reservation_of(agent) != command.reservation or "process" in extra_of(agent):
        raise AgentEnded(
            f"the start of agent {agent.agent_id} was taken over by another process",
            next_step="get_health_status shows its process",
            status=str(agent.status),
        )
    confirmed = with_extra(
        replace(agent, pid=command.pid),
        **{"process": command.identity, SECRET_HASH: command.secret_hash},
        host=command.host or None,
        launcher=command.launcher,
        session=command.session,
        attach=list(command.attach) or None,
    )
    draft.put(confirmed)
    return draft.ops()


def reservation_of(agent: Agent) -> tuple[object, object]:
    """Return who reserved an agent, and when."""
    extra = extra_of(agent)
    return extra.get("reserved_by"), extra.get("reserved_uptime")


def take_back(snapshot: TaskSnapshot, agent_id: str) -> tuple[Op, ...]:
    """Remove an agent that was reserved and never ran: it frees its place and fails no task.

    The attempt before it can be retried again.
    """
    agent = snapshot.agent(agent_id)
    if agent is None or agent.status in TERMINAL_AGENT:
        return ()
    before = snapshot.agent(attempts.retry_of(agent) or "")
    freed = (Put(attempts.without_retry(before)),) if before is not None else ()
    return (Delete(Kind.AGENT, agent_id), *freed)


def end(snapshot: TaskSnapshot, command: EndAgent) -> tuple[Op, ...]:
    """End an agent; a phase's last agent opens its review, a review's last reviewer decides it.

    Returns no ops if the agent is already terminal; raises AgentEnded if it reports its own end.
    """
    draft = Draft(snapshot)
    agent = draft.agent(command.agent_id)
    if agent.status in TERMINAL_AGENT:
        if command.by_report:
            _must_live(agent)
        return ()
    if command.by_report and agent.review_id and command.status is AgentStatus.COMPLETED:
        raise VerdictMissing(
            f"reviewer {agent.agent_id} has given no verdict on {agent.review_id}",
            next_step="Call submit_review_verdict, which also ends your work",
        )
    reason = {
        AgentStatus.TERMINATED: "termination_reason",
        AgentStatus.KILLED: "termination_reason",
        AgentStatus.COMPLETED: "completion_reason",
    }.get(command.status, "failure_reason")
    if command.progress is not None:
        agent = replace(agent, progress=command.progress)
    ended = draft.end(
        agent,
        command.status,
        at=command.at,
        **{reason: command.reason},
        last_output=command.last_output,
    )
    if agent.review_id:
        reviews.reviewer_ended(draft, ended, command.replacement, at=command.at)
    elif agent.phase_index is not None:
        submission.agent_ended(draft, agent.phase_index, command.review, at=command.at)
    return draft.ops()


def _failed(draft: Draft, agent_id: str) -> Agent:
    """Return an agent that can be retried; raises AgentNotFound or NotRetryable."""
    agent = draft.agent(agent_id)
    later = attempts.retried_by(agent)
    if agent.status in FAILED_AGENT and later is None:
        return agent
    why = f"was already retried by {later}" if later else f"is {agent.status}"
    step = "End it with kill_agent first"
    if later:
        step = f"Retry {later} if it has failed too"
    elif agent.status in TERMINAL_AGENT:
        step = "Only an agent that failed or was ended is retried; deploy_agent starts a new one"
    raise NotRetryable(f"agent {agent_id} {why}", next_step=step, status=str(agent.status))


def _must_live(agent: Agent) -> None:
    if agent.status in TERMINAL_AGENT:
        raise AgentEnded(
            f"agent {agent.agent_id} is {agent.status} and cannot continue",
            next_step="Stop: the conductor can start a new agent with deploy_agent",
            status=str(agent.status),
        )


def _open_phase(draft: Draft, index: int | None, *, at: datetime) -> Phase | None:
    if not draft.phases and index is None:
        return None
    phase = draft.phase(index)
    phases.open_next(draft, phase, at=at)
    phase = draft.phase(phase.phase_index)
    if phase.status not in _OPEN:
        raise phases.closed(phase, "agents cannot be deployed to it")
    return phase


def _refuse_duplicate(draft: Draft, agent_type: str, phase: Phase | None) -> None:
    index = phase.phase_index if phase else None
    for agent in draft.agents:
        same = agent.type == agent_type and agent.phase_index == index
        if same and agent.status in ACTIVE_AGENT:
            raise DuplicateAgent(
                f"an agent of type {agent_type} is active: {agent.agent_id} ({agent.status})",
                next_step="Wait for it, end it with kill_agent, or use another agent_type",
                agent_id=agent.agent_id,
            )


def _depth(draft: Draft, command: DeployAgent) -> int:
    if command.parent == ORCHESTRATOR:
        return 1
    parent = draft.agent(command.parent)
    _must_live(parent)
    return (parent.depth or 1) + 1


_NO_MORE = (
    "Continue with the work of its agents, or cancel_task and create_task with a higher max_agents"
)


def _check_limits(draft: Draft, limits: Limits, depth: int, *, retry_of: str | None) -> None:
    """Raise LimitReached.

    Reviewers do not count: a task at its limit must still be reviewed. Nor do attempts that a later
    one replaces.
    """
    own = [
        a
        for a in draft.agents
        if a.review_id is None and not attempts.is_superseded(a) and a.agent_id != retry_of
    ]
    active = sum(a.status in ACTIVE_AGENT for a in own)
    for name, value, limit, next_step in (
        ("max_depth", depth, limits.max_depth, "Deploy it from an agent with a lower depth"),
        ("max_agents", len(own) + 1, limits.max_agents, _NO_MORE),
        ("max_concurrent", active + 1, limits.max_concurrent, "Wait until an agent has ended"),
    ):
        if value > limit:
            raise LimitReached(
                f"task {draft.task.task_id} has reached its limit {name}={limit}",
                next_step=next_step,
                limit=name,
            )
