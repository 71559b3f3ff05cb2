"""Findings: appended, and used in the handover of the phase that the agent works on."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from orchestrator.errors import AgentNotFound
from registry_api import Finding, Op, Put, TaskSnapshot
from registry_api.records import Severity

__all__ = ["FindingType", "Severity", "add_finding"]


class FindingType(StrEnum):
    """The type of a finding."""

    INSIGHT = "insight"
    ISSUE = "issue"
    SOLUTION = "solution"
    RECOMMENDATION = "recommendation"
    BLOCKER = "blocker"


def add_finding(snapshot: TaskSnapshot, finding: Finding) -> tuple[Op, ...]:
    """Append a finding of an agent; ``snapshot`` needs that agent only. Raises AgentNotFound."""
    agent = snapshot.agent(finding.agent_id)
    if agent is None:
        raise AgentNotFound(
            f"task {finding.task_id} has no agent {finding.agent_id!r}",
            next_step="Pass your own agent_id, the value of REGISTRY_AGENT_ID",
        )
    return (Put(replace(finding, phase_index=agent.phase_index)),)
