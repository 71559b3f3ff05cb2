"""What a report does to its agent: the status, progress and last update that readers see."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from registry_api.records.models import (
    Agent,
    ProgressEntry,
)
from registry_api.records.status import TERMINAL_AGENT, AgentStatus, agent_status

__all__ = ["after_report", "effect_of_report"]


def effect_of_report(
    status: AgentStatus, last_update: datetime | None, entry: ProgressEntry
) -> tuple[AgentStatus, int | None, datetime] | None:
    """Return an agent's status, progress and last update after a report.

    None: a terminal agent does not change. Progress None: unchanged, since a foreign line is a sign
    of life only. A report never ends an agent: if it states a terminal status, the agent keeps its
    status until the rules change it.
    """
    if status in TERMINAL_AGENT:
        return None
    if entry.foreign:
        return status, None, max(last_update or entry.timestamp, entry.timestamp)
    said = agent_status(entry.status)
    return (status if said in TERMINAL_AGENT else said), entry.progress, entry.timestamp


def after_report(agent: Agent, entry: ProgressEntry) -> Agent:
    """Return the agent as readers see it after a report."""
    effect = effect_of_report(agent.status, agent.last_update, entry)
    if effect is None:
        return agent
    status, progress, seen = effect
    if progress is None:
        return agent if seen == agent.last_update else replace(agent, last_update=seen)
    return replace(agent, status=status, progress=progress, last_update=seen)
