"""Reports: appended without an expected revision, so that concurrent reports do not conflict."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.errors import AgentNotFound
from registry_api import AgentStatus, Op, ProgressEntry, Put, TaskSnapshot
from registry_api.errors import InvalidInput
from registry_api.records import ACTIVE_AGENT, TERMINAL_AGENT

__all__ = ["Reported", "report", "reported"]

# What an agent may report of itself; only others report killed and terminated.
SAYABLE = ACTIVE_AGENT | {AgentStatus.COMPLETED, AgentStatus.FAILED, AgentStatus.ERROR}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """The ops of a report; ``late``: the status of an agent that had ended, so it is refused."""

    ops: tuple[Op, ...]
    late: AgentStatus | None = None


def report(snapshot: TaskSnapshot, entry: ProgressEntry) -> Reported:
    """Append one report; ``snapshot`` needs the reporting agent only.

    Raises AgentNotFound, and InvalidInput for a status that an agent cannot report.
    """
    reported(entry.status)
    agent = snapshot.agent(entry.agent_id)
    if agent is None:
        raise AgentNotFound(
            f"task {entry.task_id} has no agent {entry.agent_id!r}",
            next_step="Pass your own agent_id, the value of REGISTRY_AGENT_ID",
        )
    late = agent.status if agent.status in TERMINAL_AGENT else None
    return Reported(ops=(Put(entry),), late=late)


def reported(word: str) -> AgentStatus:
    """Return the status of that name; raises InvalidInput if an agent cannot report it."""
    try:
        status = AgentStatus(word)
    except ValueError:
        status = None
    if status not in SAYABLE:
        raise InvalidInput(
            f"status {word[:40]!r} is not one that an agent can report",
            next_step=f"Use one of {', '.join(sorted(SAYABLE))}",
        )
    return status
