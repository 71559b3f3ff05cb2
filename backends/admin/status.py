"""What is true of a workspace now, as one JSON object (``status --json``)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from registry_api import (
    Agent,
    Kind,
    Legacy,
    RegistryStore,
    Settings,
    facet,
    silent,
)
from registry_api.migration import MigrationPhase
from registry_api.silence import last_sign

__all__ = ["collect"]

_PLURAL = {
    Kind.TASK: "tasks",
    Kind.PHASE: "phases",
    Kind.AGENT: "agents",
    Kind.PROGRESS: "progress",
    Kind.FINDING: "findings",
    Kind.REVIEW: "reviews",
    Kind.VERDICT: "verdicts",
    Kind.HANDOVER: "handovers",
}


def collect(store: RegistryStore, settings: Settings) -> dict[str, Any]:
    """Return the status of an open store: true counts, what older files claim, silence."""
    counts = store.counts()
    before = datetime.now(UTC) - timedelta(seconds=settings.silent_after)
    quiet = silent(store, before)
    legacy: Legacy | None = facet(store, Legacy)
    older = legacy.older_state() if legacy else None
    return {
        "workspace": str(settings.workspace),
        "store": store.info.name,
        "migration": _migration(store),
        "counts": {
            "tasks": {
                "total": counts.total_tasks,
                "active": counts.active_tasks,
                "silent": len(quiet.tasks),
                "by_status": _plain(counts.tasks),
            },
            "agents": {
                "total": counts.total_agents,
                "active": counts.active_agents,
                "silent": len(quiet.agents),
                "by_status": _plain(counts.agents),
            },
        },
        "silent_agents": [_silent_agent(agent) for agent in quiet.agents],
        "silent_tasks": list(quiet.tasks),
        "stored_counts": dict(legacy.stored_counts()) if legacy else {},
        "records": {store.info.name: {_PLURAL[k]: counts.records.get(k, 0) for k in Kind}},
        "warnings": list(legacy.problems()) if legacy else [],
        "older_state_written": older.isoformat() if older else None,
    }


def _plain(counts: Mapping[Any, int]) -> dict[str, int]:
    return {str(key): counts[key] for key in sorted(counts)}


def _silent_agent(agent: Agent) -> dict[str, Any]:
    sign = last_sign(agent)
    return {
        "task_id": agent.task_id,
        "agent_id": agent.agent_id,
        "status": str(agent.status),
        "last_sign": sign.isoformat() if sign else None,
    }


def _migration(store: RegistryStore) -> dict[str, Any]:
    phase = MigrationPhase.JSON_ONLY if store.info.name == "json" else None
    return {
        "phase": phase,
        "name": phase.name if phase is not None else None,
        "epoch": 0,
        "writer_of_record": store.info.name,
        "verified": None,
        "dirty": 0,
        "wish": None,
    }
