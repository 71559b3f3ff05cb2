"""Findings: appended, and used in the handover of the phase that the agent works on.

What an agent finds after somebody has ended it is kept and listed, but given to no other agent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from enum import StrEnum

from orchestrator.errors import AgentNotFound
from registry_api import Agent, AgentStatus, Finding, Op, Put, Record, TaskSnapshot
from registry_api.records import Severity

__all__ = ["ENDED_BY_OTHERS", "FindingType", "Severity", "add_finding", "passed_on"]

ENDED_BY_OTHERS = frozenset({AgentStatus.KILLED, AgentStatus.TERMINATED})


class FindingType(StrEnum):
    """The type of a finding."""

    INSIGHT = "insight"
    ISSUE = "issue"
    SOLUTION = "solution"
    RECOMMENDATION = "recommendation"
    BLOCKER = "blocker"


def passed_on(snapshot: TaskSnapshot, records: Iterable[Record]) -> Iterator[Finding]:
    """Yield the findings that other agents get: not those of an agent that was ended before."""
    for finding in records:
        if isinstance(finding, Finding) and _in_time(finding, snapshot.agent(finding.agent_id)):
            yield finding


def _in_time(finding: Finding, agent: Agent | None) -> bool:
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
