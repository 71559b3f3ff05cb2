"""Findings: appended, and kept for the handover of the phase that the agent works on."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from orchestrator.errors import AgentNotFound
from registry_api import Finding, Op, Put, TaskSnapshot

__all__ = ["FindingType", "Severity", "add_finding"]


class FindingType(StrEnum):
    """What a finding is."""

    INSIGHT = "insight"
    ISSUE = "issue"
    SOLUTION = "solution"
    RECOMMENDATION = "recommendation"
    BLOCKER = "blocker"


class Severity(StrEnum):
    """How grave a finding is."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


def add_finding(snapshot: TaskSnapshot, finding: Finding) -> tuple[Op, ...]:
    """Append a finding of an agent; ``snapshot`` needs that agent only. Raises AgentNotFound."""
    agent = snapshot.agent(finding.agent_id)
    if agent is None:
        raise AgentNotFound(
            f"task {finding.task_id} has no agent {finding.agent_id!r}",
            next_step="Report as the agent that you were deployed as (REGISTRY_AGENT_ID)",
        )
    return (Put(replace(finding, phase_index=agent.phase_index)),)
