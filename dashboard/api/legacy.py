"""A task in the format of the legacy dashboard: the server dialect of AGENT_REGISTRY.json.

It is built from the records, so it exists in every phase of a move; its counters are actual counts.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import Any

from registry_api import Agent, Phase, Review, TaskSnapshot, Verdict
from registry_api.records import ACTIVE_AGENT, json_text

__all__ = ["agent_data", "document"]


def document(snapshot: TaskSnapshot) -> dict[str, Any]:
    """Return the document of one task."""
    task = snapshot.task
    hierarchy: dict[str, list[str]] = defaultdict(list)
    for agent in snapshot.agents:
        hierarchy[agent.parent or "orchestrator"].append(agent.agent_id)
    active = sum(a.status in ACTIVE_AGENT for a in snapshot.agents)
    return {
        "task_id": task.task_id,
        "task_description": task.description,
        "created_at": _at(task.created_at),
        "workspace": task.workspace,
        "workspace_base": task.workspace_base,
        "client_cwd": task.client_cwd,
        "status": str(snapshot.status),
        "priority": task.priority,
        "phases": [_phase(p) for p in snapshot.phases],
        "current_phase_index": task.current_phase_index,
        "agents": [agent_data(a) for a in snapshot.agents],
        "agent_hierarchy": dict(hierarchy),
        "max_agents": task.max_agents,
        "max_depth": task.max_depth,
        "max_concurrent": task.max_concurrent,
        "total_spawned": len(snapshot.agents),
        "active_count": active,
        "completed_count": len(snapshot.agents) - active,
        "reviews": [_review(r, snapshot.verdicts) for r in snapshot.reviews],
        "task_context": json_text.parse_trusted(task.context.encode()),
    }


def agent_data(agent: Agent) -> dict[str, Any]:
    """Return one agent as the document lists it."""
    return _extra(agent.extra) | {
        "id": agent.agent_id,
        "type": agent.type,
        "model": agent.model,
        "tmux_session": agent.tmux_session,
        "parent": agent.parent,
        "depth": agent.depth,
        "phase_index": agent.phase_index,
        "status": str(agent.status),
        "started_at": _at(agent.started_at),
        "progress": agent.progress,
        "last_update": _at(agent.last_update),
        "completed_at": _at(agent.completed_at),
        "prompt": agent.prompt,
    }


def _phase(phase: Phase) -> dict[str, Any]:
    return _extra(phase.extra) | {
        "id": phase.phase_id,
        "order": phase.phase_index + 1,
        "name": phase.name,
        "description": phase.description,
        "status": str(phase.status),
        "created_at": _at(phase.created_at),
        "started_at": _at(phase.started_at),
        "completed_at": _at(phase.completed_at),
        "revision_round": phase.revision_round,
        "active_review_id": phase.active_review_id,
    }


def _review(review: Review, verdicts: tuple[Verdict, ...]) -> dict[str, Any]:
    return _extra(review.extra) | {
        "review_id": review.review_id,
        "phase_index": review.phase_index,
        "phase_id": review.phase_id,
        "status": str(review.status),
        "num_reviewers": review.num_reviewers,
        "reviewers": [{"agent_id": name} for name in review.reviewers],
        "verdicts": [
            {
                "reviewer_agent_id": v.reviewer_id,
                "verdict": v.verdict,
                "findings": json_text.parse_trusted(v.findings.encode()),
                "reviewer_notes": v.notes,
                "submitted_at": _at(v.submitted_at),
            }
            for v in verdicts
            if v.review_id == review.review_id
        ],
        "created_at": _at(review.created_at),
        "completed_at": _at(review.completed_at),
        "final_verdict": review.verdict,
    }


def _extra(text: str) -> dict[str, Any]:
    value = json_text.parse_trusted(text.encode())
    return value if isinstance(value, dict) else {}


def _at(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
