"""The read-only HTTP API: the routes of the legacy dashboard, and further ones."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import PlainTextResponse
from fastapi.routing import APIRoute
from sse_starlette import EventSourceResponse

from dashboard.answers import ExactRoute
from dashboard.api import legacy
from dashboard.errors import REFUSALS, STREAM, NotThere
from dashboard.live.activity_index import ActivityIndex
from dashboard.live.event_hub import Hub, cursor_of
from dashboard.live.jobs import JobState
from dashboard.views import logs
from dashboard.views.summary import look
from orchestrator.health.hosts import Hosts
from registry_api import (
    Agent,
    Finding,
    Kind,
    ProgressEntry,
    RecordQuery,
    RegistryStore,
    Settings,
    TaskQuery,
    TaskStatus,
    TaskSummary,
)
from registry_api.client import last_sign
from registry_api.diagnostics import metrics as process_metrics
from registry_api.errors import InvalidQuery
from registry_api.records import ACTIVE_AGENT, AgentStatus, json_text

__all__ = ["numbers", "router"]


def only_known(request: Request) -> None:
    """Refuse an unknown query parameter, so that a misspelt one is not silently ignored."""
    route: APIRoute = request.scope["route"]
    known = {p.alias for p in route.dependant.query_params}
    unknown = sorted(set(request.query_params) - known)
    if unknown:
        raise InvalidQuery(
            f"this route has no parameter {unknown[0][:80]!r}",
            next_step=f"Known: {', '.join(sorted(known)) or 'none'}",
        )


router = APIRouter(
    prefix="/api",
    dependencies=[Depends(only_known)],
    responses=REFUSALS,
    route_class=ExactRoute,
)
numbers = APIRouter(dependencies=[Depends(only_known)], responses=REFUSALS)
NEXT = "X-Next-Cursor"

_ID = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$"
TaskId = Annotated[str, Path(pattern=_ID)]
AgentId = Annotated[str, Path(pattern=_ID)]
Limit = Annotated[int, Query(ge=1, le=1000)]
Cursor = Annotated[str | None, Query(max_length=1000)]


def _store(request: Request) -> RegistryStore:
    store: RegistryStore = request.app.state.store
    return store


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


def _activity_index(request: Request) -> ActivityIndex:
    activity_index: ActivityIndex = request.app.state.activity_index
    return activity_index


Present = Annotated[ActivityIndex, Depends(_activity_index)]
Store = Annotated[RegistryStore, Depends(_store)]
Configured = Annotated[Settings, Depends(_settings)]


def task_line(task: TaskSummary) -> dict[str, Any]:
    """Return a task of a list, in the format of the legacy dashboard."""
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
    """Return the tasks, newest first; the header X-Next-Cursor continues the list."""
    query = TaskQuery(status=status, since=since, until=until, text=text or None, newest_first=True)
    page = store.list_tasks(query, after=cursor, limit=limit)
    if page.next:
        response.headers[NEXT] = page.next
    return [task_line(t) for t in page.items]


@router.get("/tasks/summary/dashboard")
def summary(
    store: Store,
    present: Present,
    settings: Configured,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> dict[str, Any]:
    """Return actual counts, newest tasks and active agents; the cost grows with recent changes."""
    summary = look(present, settings, datetime.now(UTC))
    recent = store.list_tasks(TaskQuery(newest_first=True), limit=limit)
    active = store.list_records(Kind.AGENT, RecordQuery(active=True), limit=limit)
    return {
        "headline": summary.headline(),
        "global_counts": summary.numbers(),
        "claimed": summary.stored,
        "recent_tasks": [task_line(t) for t in recent.items],
        "active_agents": [
            {"task_id": a.task_id, **legacy.agent_data(a)}
            for a in active.items
            if isinstance(a, Agent)
        ],
        "task_status_distribution": {str(k): n for k, n in summary.counts.tasks.items()},
    }


@router.get("/tasks/{task_id}")
def task(store: Store, task_id: TaskId) -> dict[str, Any]:
    """Return a task with all of its records except progress and findings."""
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
    """Return the task in the format of AGENT_REGISTRY.json."""
    return legacy.document(store.load(task_id))


@router.get("/agents/{task_id}")
def agents(
    store: Store,
    task_id: TaskId,
    status: AgentStatus | None = None,
    phase_index: Annotated[int | None, Query(ge=-1, le=2**31)] = None,
) -> list[dict[str, Any]]:
    """Return a task's agents."""
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
            f"task {task_id} has no agent {agent_id!r}", next_step=f"See /api/agents/{task_id}"
        )
    return found


@router.get("/agents/{task_id}/{agent_id}")
def agent(store: Store, task_id: TaskId, agent_id: AgentId) -> dict[str, Any]:
    """Return one agent."""
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
    """Return an agent's reports, oldest first."""
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
    """Return an agent's findings, oldest first."""
    find_agent(store, task_id, agent_id)
    query = RecordQuery(task_id=task_id, agent_id=agent_id, severity=severity or None)
    page = store.list_records(Kind.FINDING, query, after=cursor, limit=limit)
    if page.next:
        response.headers[NEXT] = page.next
    return [finding_line(f) for f in page.items if isinstance(f, Finding)]


def finding_line(finding: Finding) -> dict[str, Any]:
    """Return a finding in the format of the legacy dashboard."""
    return {
        "timestamp": finding.timestamp.isoformat(),
        "task_id": finding.task_id,
        "agent_id": finding.agent_id,
        "finding_type": finding.finding_type,
        "severity": finding.severity,
        "message": finding.message,
        "data": json_text.parse_trusted(finding.data.encode()),
    }


@router.get("/agents/{task_id}/{agent_id}/logs")
def agent_log(
    store: Store,
    settings: Configured,
    task_id: TaskId,
    agent_id: AgentId,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 200,
) -> list[dict[str, Any]]:
    """Return the last lines of an agent's output, parsed where they are JSON."""
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
    """Return the end of an agent's output as text, or the part before an offset."""
    find_agent(store, task_id, agent_id)
    text, start, size = logs.tail(
        settings.workspace, task_id, agent_id, limit=max_bytes, before=before
    )
    return {"output": text, "metadata": {"start": start, "size": size}}


@router.get("/phases/{task_id}")
def phases(store: Store, task_id: TaskId) -> list[dict[str, Any]]:
    """Return a task's phases."""
    phases: list[dict[str, Any]] = legacy.document(store.load(task_id))["phases"]
    return phases


@router.get("/phases/{task_id}/current")
def current_phase(store: Store, task_id: TaskId) -> dict[str, Any]:
    """Return the task's current phase with counts of its agents."""
    snapshot = store.load(task_id)
    index = snapshot.task.current_phase_index or 0
    phase = snapshot.phase(index)
    if phase is None:
        raise NotThere(
            f"task {task_id} has no phase {index}", next_step=f"See /api/phases/{task_id}"
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
def migration(request: Request, store: Store) -> dict[str, Any]:
    """Return the state of the move, if there is one, and the last job that was started here."""
    state = request.app.state
    job = state.jobs.last
    busy = job is not None and job.state is JobState.RUNNING
    found: dict[str, Any] = state.migration_view.to_dict(store, busy=busy)
    return {**found, "job": job.to_dict() if job else None}


@router.get("/system")
def system(request: Request, store: Store) -> dict[str, Any]:
    """Return the store, the plugins, and the findings of ``registry-backend doctor``."""
    found: dict[str, Any] = request.app.state.system.to_dict(store)
    return found


@numbers.get("/metrics", response_class=PlainTextResponse)
def metrics(request: Request, present: Present, settings: Configured) -> PlainTextResponse:
    """Return counts of the records and of the live processes, in Prometheus's text format."""
    summary = look(present, settings, datetime.now(UTC))
    lines = list(process_metrics(settings))
    for name, counts in (("tasks", summary.counts.tasks), ("agents", summary.counts.agents)):
        lines.append(f"# TYPE registry_{name} gauge")
        lines += [f'registry_{name}{{status="{status}"}} {n}' for status, n in counts.items()]
    for name, number in summary.numbers().items():
        if name.startswith("silent"):
            lines += [f"# TYPE registry_{name} gauge", f"registry_{name} {number}"]
    streams = request.app.state.hub.listeners
    lines += ["# TYPE registry_dashboard_streams gauge", f"registry_dashboard_streams {streams}"]
    return PlainTextResponse("\n".join(lines) + "\n")


@router.get("/health")
def health(store: Store, present: Present, settings: Configured) -> dict[str, Any]:
    """Return the store's name, the silent tasks, and the silent agents, longest silent first.

    An agent is ``lost`` if its host runs no health daemon: nobody can say whether it runs.
    """
    quiet = look(present, settings, datetime.now(UTC)).quiet
    hosts = Hosts(store)
    return {
        "store": store.info.name,
        "contract": store.info.contract_version,
        "silent_tasks": sorted(quiet.tasks),
        "silent_agents": [
            {
                "task_id": a.task_id,
                "agent_id": a.agent_id,
                "status": str(a.status),
                "lost": hosts.is_lost(a),
            }
            for a in sorted(quiet.agents, key=_longest)
        ],
    }


def _longest(agent: Agent) -> tuple[datetime, str, str]:
    return last_sign(agent) or datetime.min.replace(tzinfo=UTC), agent.task_id, agent.agent_id


@router.get("/events", responses=STREAM)
def events(
    request: Request, last_event_id: Annotated[str | None, Header(max_length=200)] = None
) -> EventSourceResponse:
    """Stream the changes as server-sent events, from Last-Event-ID on.

    ``hello``: every change from now on is sent. ``change``: {task_id, revision, at, actor, kinds,
    agents}. ``reset``: some changes were missed; fetch everything again. From this server only,
    without ids: ``migration``: the record of the move has changed; ``job``: the state of an
    operator's job, as in /api/migration.
    """
    after = cursor_of(last_event_id)
    if last_event_id and after is None:
        raise InvalidQuery("Last-Event-ID is not an id of this stream", next_step="Leave it out")
    hub: Hub = request.app.state.hub
    ending = anyio.Event()
    return EventSourceResponse(
        hub.listen(after, ending), ping=15, shutdown_event=ending, shutdown_grace_period=2
    )
