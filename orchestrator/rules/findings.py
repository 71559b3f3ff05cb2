"""Findings: appended, and used in the handover of the phase that the agent works on.

What an agent finds after somebody has ended it is kept and listed, but given to no other agent.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from orchestrator.errors import AgentNotFound
from registry_api import Agent, AgentStatus, Finding, Op, Put, TaskSnapshot
from registry_api.records import Severity

__all__ = ["ENDED_BY_OTHERS", "FindingType", "Severity", "add_finding", "in_time"]

ENDED_BY_OTHERS = frozenset({AgentStatus.KILLED, AgentStatus.TERMINATED})


class FindingType(StrEnum):
    """The type of a finding."""

    INSIGHT = "insight"
    ISSUE = "issue"
    SOLUTION = "solution"
    RECOMMENDATION = "recommendation"
    BLOCKER = "blocker"


def in_time(finding: Finding, agent: Agent | None) -> bool:
    """Return whether the agent found this before somebody ended it."""
    if agent is None or agent.status not in ENDED_BY_OTHERS or agent.completed_at is None:
        return True
    return finding.timestamp <= agent.completed_at


def add_finding(snapshot: TaskSnapshot, finding: Finding) -> tuple[Agent, tuple[Op, ...]]:
    """Append a finding of an agent, which is returned; ``snapshot`` needs that agent only.

    Raises AgentNotFound.
    """
    agent = snapshot.agent(finding.agent_id)
    if agent is None:
        raise AgentNotFound(
            f"task {finding.task_id} has no agent {finding.agent_id!r}",
            next_step="Pass your own agent_id, the value of REGISTRY_AGENT_ID",
        )
    return agent, (Put(replace(finding, phase_index=agent.phase_index)),)
