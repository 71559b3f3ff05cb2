"""Agents of the whole registry as rows: record, process, silence and newest report in one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from orchestrator.agents.deployment import host_name_of
from orchestrator.errors import AgentNotFound
from orchestrator.health.hosts import Hosts
from orchestrator.rules.attempts import attempt_of, reason_of
from orchestrator.rules.draft import extra_of
from orchestrator.service import Orchestrator
from registry_api import Agent, Kind, RecordQuery, all_records
from registry_api.client import last_sign
from registry_api.errors import InvalidInput, TaskNotFound
from registry_api.records import ACTIVE_AGENT

__all__ = ["AgentRow", "agent_row", "agent_rows", "find_agent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRow:
    """One agent; ``process`` is empty for one that has ended, times are in seconds.

    ``host``: the name of its host when it was started; empty if it is not known.
    """

    task_id: str
    agent_id: str
    type: str
    status: str
    process: str
    host: str
    progress: int
    silent: float | None
    running: float | None
    attempt: int
    phase_index: int | None
    message: str
    reason: str | None
    attach: tuple[str, ...]

    @property
    def is_active(self) -> bool:
        """Whether the agent is active by its record."""
        return bool(self.process)

    @property
    def silence(self) -> float:
        """The seconds since its last sign of life, infinite if it gave none so far."""
        return math.inf if self.silent is None else self.silent


def agent_rows(
    service: Orchestrator, *, task_id: str | None = None, ended: bool = False
) -> list[AgentRow]:
    """Return the active agents, longest silent first, then those that have ended, if asked for.

    Raises TaskNotFound. It loads each task that has such an agent.
    """
    if task_id is not None and not service.store.head(task_id).revision:
        service.store.load(task_id)
    query = RecordQuery(task_id=task_id, active=None if ended else True)
    found = all_records(service.store, Kind.AGENT, query)
    rows = _rows(service, (agent for agent in found if isinstance(agent, Agent)))
    return sorted(rows, key=lambda row: (not row.is_active, -row.silence, row.agent_id))


def find_agent(service: Orchestrator, agent_id: str, task_id: str | None = None) -> Agent:
    """Return an agent, by its id alone if no task is named.

    Raises AgentNotFound, or InvalidInput if agents of several tasks have the id.
    """
    if task_id is not None:
        return service.agent(task_id, agent_id)
    query = RecordQuery(agent_id=agent_id)
    found = [a for a in all_records(service.store, Kind.AGENT, query) if isinstance(a, Agent)]
    if not found:
        raise AgentNotFound(
            f"no agent is called {agent_id[:80]!r}",
            next_step="registry-orchestrator agents --all lists them",
        )
    if len(found) > 1:
        tasks = ", ".join(sorted(agent.task_id for agent in found)[:5])
        raise InvalidInput(
            f"agents of {len(found)} tasks are called {agent_id}: {tasks}",
            next_step="Name the task with --task",
        )
    return found[0]


def agent_row(service: Orchestrator, agent: Agent) -> AgentRow:
    """Return the row of one agent."""
    (row,) = _rows(service, (agent,))
    return row


def _rows(service: Orchestrator, agents: Iterable[Agent]) -> Iterator[AgentRow]:
    hosts, said = Hosts(service.store), dict[str, dict[str, str]]()
    for agent in agents:
        if agent.task_id not in said:
            try:
                snapshot = service.store.load(agent.task_id)
            except TaskNotFound:
                continue  # removed meanwhile
            said[agent.task_id] = {e.agent_id: e.message for e in service.last_words(snapshot)}
        yield _row(service, agent, hosts, said[agent.task_id].get(agent.agent_id, ""))


def _row(service: Orchestrator, agent: Agent, hosts: Hosts, message: str) -> AgentRow:
    now = service.now()
    active = agent.status in ACTIVE_AGENT
    process = hosts.process(agent, service.deployment) if active else ""
    sign = last_sign(agent, now=now) if active else None
    end = now if active else agent.completed_at
    attach = extra_of(agent).get("attach")
    return AgentRow(
        task_id=agent.task_id,
        agent_id=agent.agent_id,
        type=agent.type,
        status=str(agent.status),
        process=process,
        host=host_name_of(agent),
        progress=agent.progress,
        silent=(now - sign).total_seconds() if sign else None,
        running=(end - agent.started_at).total_seconds() if end and agent.started_at else None,
        attempt=attempt_of(agent),
        phase_index=agent.phase_index,
        message=message,
        reason=reason_of(agent),
        attach=tuple(map(str, attach)) if active and isinstance(attach, list) else (),
    )
