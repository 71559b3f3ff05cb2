"""Reports: appended without asking for a revision, so that ten agents report at once."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.errors import AgentNotFound
from registry_api import AgentStatus, Op, ProgressEntry, Put, TaskSnapshot
from registry_api.errors import InvalidInput
from registry_api.status import ACTIVE_AGENT, TERMINAL_AGENT

__all__ = ["Reported", "report", "reported"]

# What an agent says of itself; killed and terminated are others' words.
SAYABLE = ACTIVE_AGENT | {AgentStatus.COMPLETED, AgentStatus.FAILED, AgentStatus.ERROR}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """The ops of a report, and whether the agent had ended before: kept, but refused."""

    ops: tuple[Op, ...]
    late: AgentStatus | None = None


def report(snapshot: TaskSnapshot, entry: ProgressEntry) -> Reported:
    """Append one report; ``snapshot`` needs the reporting agent only.

    Raises AgentNotFound, and InvalidInput for a word that an agent cannot say of itself.
    """
    reported(entry.status)
    agent = snapshot.agent(entry.agent_id)
    if agent is None:
        raise AgentNotFound(
            f"task {entry.task_id} has no agent {entry.agent_id!r}",
            next_step="Report as the agent that you were deployed as (REGISTRY_AGENT_ID)",
        )
    late = agent.status if agent.status in TERMINAL_AGENT else None
    return Reported(ops=(Put(entry),), late=late)


def reported(word: str) -> AgentStatus:
    """Return the status that a word stands for; raises InvalidInput."""
    try:
        status = AgentStatus(word)
    except ValueError:
        status = None
    if status not in SAYABLE:
        raise InvalidInput(
            f"status {word[:40]!r} is none that an agent reports",
            next_step=f"Say one of {', '.join(sorted(SAYABLE))}",
        )
    return status
