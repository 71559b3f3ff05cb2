"""The functions of the legacy state database under their original names, over the configured store.

Each takes the workspace as its first argument, positional or by keyword, opens the store that the
workspace uses (JSON, SQLite, a move in any phase), and closes it. A program that calls often should
hold a store instead: ``open_store``, ``load``. The results use the legacy column names
(``docs/report.md``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from orchestrator.errors import PhaseNotFound
from orchestrator.opening import open_orchestrator
from orchestrator.rules.phases import DONE
from registry_api import (
    Agent,
    AgentStatus,
    Logged,
    Phase,
    ProgressEntry,
    RegistryStore,
    TaskSnapshot,
    find_capability,
    load_settings,
    open_store,
)
from registry_api.errors import InvalidInput, TaskNotFound
from registry_api.migration import PhaseFile
from registry_api.records import ACTIVE_AGENT, agent_status
from registry_api.workspace import STATE_DIR

__all__ = [
    "ensure_db",
    "load_phase_snapshot",
    "load_recent_progress_latest",
    "load_task_snapshot",
    "reconcile_task_workspace",
    "record_progress",
]

_SAID = {
    AgentStatus.TERMINATED: AgentStatus.FAILED,
    AgentStatus.KILLED: AgentStatus.FAILED,
    AgentStatus.PHASE_COMPLETED: AgentStatus.COMPLETED,
}
Place = str | os.PathLike[str]


def ensure_db(workspace_base: Place) -> str:
    """Open the workspace's store, creating or upgrading it; returns its location."""
    with _opened(workspace_base) as store:
        return store.info.location


def record_progress(  # noqa: PLR0917  (the legacy signature)
    workspace_base: Place,
    task_id: str,
    agent_id: str,
    timestamp: str | datetime,
    status: str,
    message: str,
    progress: int,
) -> None:
    """Record an agent's report; a terminal status ends the agent and may open its phase's review.

    A timestamp without a time zone is in the zone that is recorded or configured for the workspace,
    else in that of this machine. An unknown status counts as working; terminated and killed count
    as failed, phase_completed as completed, since an agent cannot report these of itself. Raises
    TaskNotFound, AgentNotFound, or AgentEnded if the agent had ended; then the report is kept.
    """
    settings = load_settings(workspace_base)
    recorded = PhaseFile(settings.workspace / STATE_DIR).read()
    at = _moment(timestamp, (recorded.zone if recorded else None) or settings.legacy_tz)
    with open_orchestrator(settings) as service:
        word = agent_status(status)
        service.report(task_id, agent_id, _SAID.get(word, word), message, progress, at=at)


def reconcile_task_workspace(task_workspace: Place) -> str | None:
    """Import the lines that other programs appended to the logs, each once.

    Returns the store's location, None if the folder or its task does not exist. Reading never
    changes a task's state: imported lines go through the rules of the store.
    """
    folder = Path(task_workspace)
    if not folder.is_dir():
        return None
    with _opened(folder.parent) as store:
        if not store.head(folder.name).revision:
            return None
        logged = find_capability(store, Logged)
        if logged is not None:
            logged.reconcile()
        return store.info.location


def load_task_snapshot(workspace_base: Place, task_id: str) -> dict[str, Any] | None:
    """Return a task with ``phases``, ``agents`` and ``counts``; None if there is no such task.

    ``status`` is derived from the records, ``recorded_status`` is what was written.
    """
    with _opened(workspace_base) as store:
        try:
            snapshot = store.load(task_id)
        except TaskNotFound:
            return None
    task = snapshot.task
    return {
        "task_id": task.task_id,
        "workspace": task.workspace,
        "workspace_base": task.workspace_base,
        "description": task.description,
        "status": str(snapshot.status),
        "recorded_status": str(task.recorded_status),
        "priority": task.priority,
        "client_cwd": task.client_cwd,
        "created_at": task.created_at.isoformat(),
        "updated_at": snapshot.updated_at.isoformat(),
        "current_phase_index": task.current_phase_index,
        "phases": [_phase(p) for p in snapshot.phases],
        "agents": _agents(snapshot.agents, snapshot),
        "counts": _counts(snapshot.agents),
    }


def load_phase_snapshot(
    workspace_base: Place, task_id: str, phase_index: int
) -> dict[str, Any] | None:
    """Return the ``agents`` of a phase and their ``counts``; None if there is no such task.

    Raises PhaseNotFound if the task has no such phase.
    """
    with _opened(workspace_base) as store:
        try:
            snapshot = store.load(task_id)
        except TaskNotFound:
            return None
    phase = snapshot.phase(phase_index)
    if phase is None:
        raise PhaseNotFound(
            f"task {task_id} has no phase {phase_index}",
            next_step=f"It has {len(snapshot.phases)} phases, numbered from 0",
        )
    bound = tuple(
        a for a in snapshot.agents if a.phase_index == phase_index and a.review_id is None
    )
    return {
        **_phase(phase),
        "agents": _agents(bound, snapshot),
        "counts": _counts(bound),
    }


def load_recent_progress_latest(
    workspace_base: Place, task_id: str, limit: int = 10
) -> list[dict[str, Any]]:
    """Return each agent's newest report, the newest first, at most ``limit``."""
    if limit < 1:
        raise InvalidInput(f"limit {limit} is below 1", next_step="Ask for at least 1")
    with _opened(workspace_base) as store:
        try:
            latest = store.load(task_id).latest
        except TaskNotFound:
            return []
    newest = sorted(latest, key=lambda e: (e.timestamp, e.entry_id), reverse=True)
    return [_report(entry) for entry in newest[:limit]]


@contextmanager
def _opened(workspace_base: Place) -> Iterator[RegistryStore]:
    with closing(open_store(load_settings(workspace_base))) as store:
        yield store


def _moment(stamp: str | datetime, zone: str | None) -> datetime:
    try:
        moment = datetime.fromisoformat(stamp) if isinstance(stamp, str) else stamp
    except ValueError:
        raise InvalidInput(
            f"timestamp {stamp!r} is not a time", next_step="Give it in ISO 8601"
        ) from None
    if moment.utcoffset() is not None:
        return moment
    return moment.replace(tzinfo=ZoneInfo(zone)) if zone else moment.astimezone()


def _phase(phase: Phase) -> dict[str, Any]:
    return {
        "task_id": phase.task_id,
        "phase_index": phase.phase_index,
        "phase_id": phase.phase_id,
        "name": phase.name,
        "description": phase.description,
        "status": str(phase.status),
        "created_at": phase.created_at.isoformat() if phase.created_at else None,
        "started_at": phase.started_at.isoformat() if phase.started_at else None,
        "completed_at": phase.completed_at.isoformat() if phase.completed_at else None,
        "revision_round": phase.revision_round,
    }


def _agents(agents: tuple[Agent, ...], snapshot: TaskSnapshot) -> list[dict[str, Any]]:
    said = {entry.agent_id: entry.message for entry in snapshot.latest}
    return [_agent(agent) | {"message": said.get(agent.agent_id)} for agent in agents]


def _agent(agent: Agent) -> dict[str, Any]:
    return {
        "agent_id": agent.agent_id,
        "task_id": agent.task_id,
        "type": agent.type,
        "model": agent.model,
        "status": str(agent.status),
        "progress": agent.progress,
        "phase_index": agent.phase_index,
        "parent": agent.parent,
        "depth": agent.depth,
        "tmux_session": agent.tmux_session,
        "started_at": agent.started_at.isoformat() if agent.started_at else None,
        "completed_at": agent.completed_at.isoformat() if agent.completed_at else None,
        "last_update": agent.last_update.isoformat() if agent.last_update else None,
    }


def _report(entry: ProgressEntry) -> dict[str, Any]:
    return {
        "task_id": entry.task_id,
        "agent_id": entry.agent_id,
        "timestamp": entry.timestamp.isoformat(),
        "status": entry.status,
        "progress": entry.progress,
        "message": entry.message,
    }


def _counts(agents: tuple[Agent, ...]) -> dict[str, Any]:
    active = sum(a.status in ACTIVE_AGENT for a in agents)
    completed = sum(a.status in DONE for a in agents)
    return {
        "total": len(agents),
        "active": active,
        "completed": completed,
        "failed": len(agents) - active - completed,
        "pending": active,
        "all_done": bool(agents) and not active,
    }
