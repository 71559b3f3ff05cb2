"""The HTTP API for looking: what the older dashboard's routes gave, and what they could not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from sse_starlette import EventSourceResponse, ServerSentEvent

from dashboard import legacy, logs
from dashboard.feed import Hub, Reset, cursor_of, name_of
from dashboard.truth import look
from registry_api import (
    Agent,
    Change,
    Finding,
    Kind,
    ProgressEntry,
    RecordQuery,
    RegistryStore,
    Settings,
    TaskQuery,
    TaskStatus,
    TaskSummary,
    jsontext,
    open_migration,
)
from registry_api.control import FileControl
from registry_api.errors import InvalidQuery, RegistryError
from registry_api.models import KINDS
from registry_api.status import ACTIVE_AGENT, AgentStatus

__all__ = ["router"]

router = APIRouter(prefix="/api")
NEXT = "X-Next-Cursor"

_ID = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$"
TaskId = Annotated[str, Path(pattern=_ID)]
AgentId = Annotated[str, Path(pattern=_ID)]
Limit = Annotated[int, Query(ge=1, le=1000)]
Cursor = Annotated[str | None, Query(max_length=1000)]


class NotThere(RegistryError, LookupError):
    """A task that has no such agent or phase."""

    code = "not_found"


def _store(request: Request) -> RegistryStore:
    store: RegistryStore = request.app.state.store
    return store


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


Store = Annotated[RegistryStore, Depends(_store)]
Configured = Annotated[Settings, Depends(_settings)]


def task_line(task: TaskSummary) -> dict[str, Any]:
    """Return a task of a list, in the older shape."""
    done = task.agents - task.active_agents
    return {
        "task_id": task.task_id,
        "description": task.description,
        "created_at": task.created_at.isoformat(),
        "updated_at": task.updated_at.isoformat(),
        "status": str(task.status),
        "priority": task.priority,
        "current_phase": task.current_phase_index,
        "phases": task.phases,
        "agent_count": task.agents,
        "active_agents": task.active_agents,
        "progress": round(100 * done / task.agents) if task.agents else 0,
    }


@router.get("/tasks")
def tasks(
    store: Store,
    response: Response,
    status: TaskStatus | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    text: Annotated[str | None, Query(max_length=1000)] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> list[dict[str, Any]]:
    """The tasks, newest first; the header X-Next-Cursor continues the list."""
    query = TaskQuery(status=status, since=since, until=until, text=text or None, newest_first=True)
    page = store.list_tasks(query, after=cursor, limit=limit)
    if page.next:
        response.headers[NEXT] = page.next
    return [task_line(t) for t in page.items]


@router.get("/tasks/summary/dashboard")
def summary(
    store: Store, settings: Configured, limit: Annotated[int, Query(ge=1, le=100)] = 20
) -> dict[str, Any]:
    """True counts, the newest tasks, who is at work; its cost follows what is active."""
    truth = look(store, settings, datetime.now(UTC))
    recent = store.list_tasks(TaskQuery(newest_first=True), limit=limit)
    active = store.list_records(Kind.AGENT, RecordQuery(active=True), limit=limit)
    return {
        "headline": truth.headline(),
        "global_counts": truth.numbers(),
        "claimed": truth.claimed,
        "recent_tasks": [task_line(t) for t in recent.items],
        "active_agents": [
            {"task_id": a.task_id, **legacy.agent_data(a)}
            for a in active.items
            if isinstance(a, Agent)
        ],
        "task_status_distribution": {str(k): n for k, n in truth.counts.tasks.items()},
    }


@router.get("/tasks/{task_id}")
def task(store: Store, task_id: TaskId) -> dict[str, Any]:
    """A task with all that it holds but its histories."""
    snapshot = store.load(task_id)
    shown = legacy.document(snapshot)
    return shown | {
        "description": snapshot.task.description,
        "recorded_status": str(snapshot.task.recorded_status),
        "revision": snapshot.revision,
        "updated_at": snapshot.updated_at.isoformat(),
        "handovers": [
            {
                "from_phase_index": h.from_phase_index,
                "to_phase_index": h.to_phase_index,
                "summary": h.summary,
                "key_findings": h.key_findings,
                "blockers": h.blockers,
                "recommendations": h.recommendations,
                "created_at": h.created_at.isoformat(),
            }
            for h in snapshot.handovers
        ],
    }


@router.get("/tasks/{task_id}/registry")
def registry(store: Store, task_id: TaskId) -> dict[str, Any]:
    """The task as AGENT_REGISTRY.json has it."""
    return legacy.document(store.load(task_id))


@router.get("/agents/{task_id}")
def agents(
    store: Store,
    task_id: TaskId,
    status: AgentStatus | None = None,
    phase_index: Annotated[int | None, Query(ge=-1, le=2**31)] = None,
) -> list[dict[str, Any]]:
    """A task's agents."""
    return [
        legacy.agent_data(a)
        for a in store.load(task_id).agents
        if (status is None or a.status == status)
        and (phase_index is None or a.phase_index == phase_index)
    ]


def find_agent(store: RegistryStore, task_id: str, agent_id: str) -> Agent:
    """Return one agent; raises TaskNotFound or NotThere."""
    found = store.load(task_id).agent(agent_id)
    if found is None:
        raise NotThere(
            f"task {task_id} has no agent {agent_id!r}", next_step=f"/api/agents/{task_id} has them"
        )
    return found


@router.get("/agents/{task_id}/{agent_id}")
def agent(store: Store, task_id: TaskId, agent_id: AgentId) -> dict[str, Any]:
    """One agent."""
    return legacy.agent_data(find_agent(store, task_id, agent_id))


@router.get("/agents/{task_id}/{agent_id}/progress")
def progress(
    store: Store,
    response: Response,
    task_id: TaskId,
    agent_id: AgentId,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> list[dict[str, Any]]:
    """An agent's reports, oldest first."""
    find_agent(store, task_id, agent_id)
    query = RecordQuery(task_id=task_id, agent_id=agent_id)
    page = store.list_records(Kind.PROGRESS, query, after=cursor, limit=limit)
    if page.next:
        response.headers[NEXT] = page.next
    return [
        {
            "timestamp": e.timestamp.isoformat(),
            "agent_id": e.agent_id,
            "status": e.status,
            "message": e.message,
            "progress": e.progress,
        }
        for e in page.items
        if isinstance(e, ProgressEntry)
    ]


@router.get("/agents/{task_id}/{agent_id}/findings")
def findings(
    store: Store,
    response: Response,
    task_id: TaskId,
    agent_id: AgentId,
    severity: Annotated[str | None, Query(max_length=100)] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> list[dict[str, Any]]:
    """What an agent found, oldest first."""
    find_agent(store, task_id, agent_id)
    query = RecordQuery(task_id=task_id, agent_id=agent_id, severity=severity or None)
    page = store.list_records(Kind.FINDING, query, after=cursor, limit=limit)
    if page.next:
        response.headers[NEXT] = page.next
    return [finding_line(f) for f in page.items if isinstance(f, Finding)]


def finding_line(finding: Finding) -> dict[str, Any]:
    """Return a finding in the older shape."""
    return {
        "timestamp": finding.timestamp.isoformat(),
        "task_id": finding.task_id,
        "agent_id": finding.agent_id,
        "finding_type": finding.finding_type,
        "severity": finding.severity,
        "message": finding.message,
        "data": jsontext.parse_trusted(finding.data.encode()),
    }


@router.get("/agents/{task_id}/{agent_id}/logs")
def agent_log(
    store: Store,
    settings: Configured,
    task_id: TaskId,
    agent_id: AgentId,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 200,
) -> list[dict[str, Any]]:
    """The last lines of an agent's output, each read as JSON where it is."""
    find_agent(store, task_id, agent_id)
    return logs.last_lines(settings.workspace, task_id, agent_id, limit=limit)


@router.get("/agents/{task_id}/{agent_id}/output")
def output(
    store: Store,
    settings: Configured,
    task_id: TaskId,
    agent_id: AgentId,
    max_bytes: Annotated[int, Query(ge=1, le=2**20)] = 65_536,
    before: Annotated[int | None, Query(ge=0)] = None,
) -> dict[str, Any]:
    """The end of an agent's output as text, or what stands before a place in it."""
    find_agent(store, task_id, agent_id)
    text, start, size = logs.tail(
        settings.workspace, task_id, agent_id, limit=max_bytes, before=before
    )
    return {"output": text, "metadata": {"start": start, "size": size}}


@router.get("/phases/{task_id}")
def phases(store: Store, task_id: TaskId) -> list[dict[str, Any]]:
    """A task's phases."""
    shown: list[dict[str, Any]] = legacy.document(store.load(task_id))["phases"]
    return shown


@router.get("/phases/{task_id}/current")
def current_phase(store: Store, task_id: TaskId) -> dict[str, Any]:
    """Where the task's work stands."""
    snapshot = store.load(task_id)
    index = snapshot.task.current_phase_index or 0
    phase = snapshot.phase(index)
    if phase is None:
        raise NotThere(
            f"task {task_id} has no phase {index}", next_step=f"/api/phases/{task_id} has them"
        )
    bound = [a for a in snapshot.agents if a.phase_index == index and a.review_id is None]
    active = sum(a.status in ACTIVE_AGENT for a in bound)
    completed = sum(a.status is AgentStatus.COMPLETED for a in bound)
    return {
        "phase_index": index,
        "phase_name": phase.name,
        "status": str(phase.status),
        "total_phases": len(snapshot.phases),
        "agent_stats": {
            "total": len(bound),
            "completed": completed,
            "working": active,
            "failed": len(bound) - active - completed,
        },
        "is_final_phase": index == len(snapshot.phases) - 1,
    }


@router.get("/migration")
def migration(settings: Configured, store: Store) -> dict[str, Any]:
    """Where the move stands, if there is one; changes nothing."""
    if FileControl(settings.workspace / ".registry").read() is None:
        return {"phase": None, "writer_of_record": store.info.name, "history": []}
    with closing(open_migration(settings)) as moving:
        status = moving.status()
        history = moving.history()
    record = status.record
    return {
        "phase": int(record.phase),
        "name": record.phase.name,
        "epoch": record.epoch,
        "source": record.source,
        "target": record.target,
        "writer_of_record": record.writer,
        "verified": record.verified,
        "dirty": status.dirty,
        "notes": status.notes,
        "stragglers": status.stragglers,
        "history": history[-50:],
    }


@router.get("/health")
def health(store: Store, settings: Configured) -> dict[str, Any]:
    """The store that answers, and who is silent."""
    truth = look(store, settings, datetime.now(UTC))
    return {
        "store": store.info.name,
        "contract": store.info.contract_version,
        "silent_tasks": list(truth.silence.tasks),
        "silent_agents": [
            {"task_id": a.task_id, "agent_id": a.agent_id, "status": str(a.status)}
            for a in truth.silence.agents
        ],
    }


@router.get("/events")
def events(
    request: Request, last_event_id: Annotated[str | None, Header(max_length=200)] = None
) -> EventSourceResponse:
    """The changes as they come (server-sent events), from Last-Event-ID on.

    ``change``: {task_id, revision, at, actor, kinds, agents}. ``reset``: look at everything afresh.
    """
    after = cursor_of(last_event_id)
    if last_event_id and after is None:
        raise InvalidQuery("Last-Event-ID is none of ours", next_step="Leave it out")
    return EventSourceResponse(_stream(request.app.state.hub, after), ping=15)


async def _stream(hub: Hub, after: Any) -> AsyncIterator[ServerSentEvent]:
    yield ServerSentEvent(event="hello", data="{}", retry=1000)
    async for found in hub.listen(after):
        if isinstance(found, Reset):
            name = name_of(found.cursor) if found.cursor else None
            yield ServerSentEvent(event="reset", data="{}", id=name)
        else:
            data = json.dumps(_event(found))
            yield ServerSentEvent(event="change", data=data, id=name_of(found.cursor))


def _event(change: Change) -> dict[str, Any]:
    records = [op.record for op in change.changeset.ops if hasattr(op, "record")]
    return {
        "task_id": change.changeset.task_id,
        "revision": change.revision,
        "at": change.changeset.at.isoformat(),
        "actor": change.changeset.actor,
        "kinds": sorted({str(KINDS[type(r)]) for r in records}),
        "agents": sorted({r.agent_id for r in records if hasattr(r, "agent_id")})[:20],
    }
