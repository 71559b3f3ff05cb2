"""The HTML pages: rendered on the server, complete without JavaScript, fetched again on changes."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates

from dashboard.api.read import (
    AgentId,
    Configured,
    Cursor,
    Present,
    Store,
    TaskId,
    find_agent,
    migration,
)
from dashboard.errors import Refusal
from dashboard.live.activity_history import ACTIVE, EVERY
from dashboard.pages import charts
from dashboard.views import logs
from dashboard.views.attempts import attempt_of
from dashboard.views.reviews import OPEN, reviews_of
from dashboard.views.summary import look
from orchestrator.health.hosts import Hosts
from registry_api import (
    Agent,
    AgentStatus,
    Kind,
    Phase,
    RecordQuery,
    TaskQuery,
    TaskSnapshot,
    TaskStatus,
)
from registry_api.client import gave_sign, is_silent, last_sign
from registry_api.errors import Unavailable
from registry_api.records import ACTIVE_AGENT, Severity, json_text

__all__ = ["router"]

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
_templates = Jinja2Templates(FilePath(__file__).parent / "templates")
SEVERITIES = [str(severity) for severity in reversed(Severity)]


def _ago(moment: datetime | None) -> str:
    """Return how long ago a moment was, in the largest unit that fits."""
    if moment is None:
        return "never"
    seconds = max(0, int((datetime.now(UTC) - moment).total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


_templates.env.filters["ago"] = _ago


def _silent(agent: Agent, before: datetime) -> bool:
    return agent.status in ACTIVE_AGENT and not gave_sign(agent, before)


_templates.env.globals["last_sign"] = last_sign
_templates.env.globals["silent"] = _silent
_templates.env.globals["ACTIVE"] = ACTIVE_AGENT


def _page(request: Request, name: str, **context: Any) -> HTMLResponse:
    return _templates.TemplateResponse(
        request, name, {**context, "role": request.scope.get("role"), "path": request.url.path}
    )


@router.get("/")
def overview(
    request: Request,
    store: Store,
    present: Present,
    settings: Configured,
    status: TaskStatus | Literal[""] = "",
    text: Annotated[str | None, Query(max_length=1000)] = None,
    severity: Annotated[str | None, Query(max_length=100)] = None,
    agents: AgentStatus | Literal[""] = "",
    cursor: Cursor = None,
) -> HTMLResponse:
    """Return the overview: headline, counts, tasks, agents, recent findings."""
    now = datetime.now(UTC)
    summary = look(present, settings, now)
    query = TaskQuery(status=status or None, text=text or None, newest_first=True)
    tasks = store.list_tasks(query, after=cursor, limit=25)
    newest = RecordQuery(newest_first=True, severity=severity or None)
    found = store.list_records(Kind.FINDING, newest, limit=10)
    rows = list(request.app.state.activity_history.rows)
    asked = RecordQuery(status=agents) if agents else RecordQuery(active=True)
    page = store.list_records(Kind.AGENT, asked, limit=25)
    return _page(
        request,
        "overview.html",
        summary=summary,
        lost=Hosts(store).is_lost,
        numbers=summary.numbers(),
        tasks=tasks,
        silent_tasks=summary.quiet.tasks,
        before=now - timedelta(seconds=settings.silent_after),
        findings=found.items,
        severity=severity or "",
        severities=SEVERITIES,
        activity_history=list(zip(ACTIVE, rows[-1], charts.stacked(rows), strict=True))
        if rows[1:]
        else [],
        minutes=round(len(rows) * EVERY / 60),
        most=max(map(sum, rows), default=0),
        agents=[a for a in page.items if isinstance(a, Agent)],
        more_agents=page.next is not None,
        chosen=agents,
        status=status,
        text=text or "",
        statuses=list(TaskStatus),
    )


@router.get("/tasks/{task_id}")
def task(
    request: Request,
    store: Store,
    settings: Configured,
    task_id: TaskId,
    status: AgentStatus | Literal[""] = "",
    text: Annotated[str, Query(max_length=1000)] = "",
) -> HTMLResponse:
    """Return the page of a task: phases with reviews, agents, their reports and findings.

    ``status`` and ``text`` (a part of an id or a type) filter the agents.
    """
    snapshot = store.load(task_id)
    now = datetime.now(UTC)
    newest = RecordQuery(task_id=task_id, newest_first=True)
    return _page(
        request,
        "task.html",
        task=snapshot.task,
        snapshot=snapshot,
        is_silent=is_silent(snapshot, now - timedelta(seconds=settings.silent_after)),
        before=now - timedelta(seconds=settings.silent_after),
        lost=Hosts(store).is_lost,
        forced={p.phase_index: _forced(p) for p in snapshot.phases},
        bars=charts.timeline(snapshot, now),
        tree=[
            (depth, a)
            for depth, a in _tree(snapshot)
            if (not status or a.status == status) and (text in a.agent_id or text in a.type)
        ],
        status=status,
        text=text,
        statuses=list(AgentStatus),
        OPEN=OPEN,
        reports=store.list_records(Kind.PROGRESS, newest, limit=20).items,
        findings=store.list_records(Kind.FINDING, newest, limit=20).items,
    )


@router.get("/tasks/{task_id}/agents/{agent_id}")
def agent(
    request: Request,
    store: Store,
    settings: Configured,
    task_id: TaskId,
    agent_id: AgentId,
    before: Annotated[int | None, Query(ge=0)] = None,
) -> HTMLResponse:
    """Return the page of an agent: progress curve, reports, findings, the end of its output."""
    found = find_agent(store, task_id, agent_id)
    of = RecordQuery(task_id=task_id, agent_id=agent_id, newest_first=True)
    reports = store.list_records(Kind.PROGRESS, of, limit=100).items
    text, unreadable, start, size = "", "", 0, 0
    try:
        text, start, size = logs.tail(
            settings.workspace, task_id, agent_id, limit=16_384, before=before
        )
        errors = logs.errors(settings.workspace, task_id, agent_id)
    except Unavailable as error:
        errors, unreadable = "", str(error)
    return _page(
        request,
        "agent.html",
        agent=found,
        lost=Hosts(store).is_lost,
        reports=reports[:20],
        curve=charts.curve([r.progress for r in reversed(reports) if hasattr(r, "progress")]),
        findings=store.list_records(Kind.FINDING, of, limit=20).items,
        lines=text.removesuffix("\n").split("\n") if text else [],
        log_start=start,
        at_end=before is None,
        silent_before=datetime.now(UTC) - timedelta(seconds=settings.silent_after),
        errors=errors,
        unreadable=unreadable,
        attempt=attempt_of(found),
        log_size=size,
    )


@router.get("/reviews")
def reviews(request: Request, store: Store) -> HTMLResponse:
    """Return the page of escalated phases, open reviews and recently decided ones."""
    return _page(request, "reviews.html", reviews=reviews_of(store))


@router.get("/system")
def system(request: Request, store: Store) -> HTMLResponse:
    """Return the page of the store, the plugins and the problems that doctor finds."""
    return _page(request, "system.html", system=request.app.state.system.to_dict(store))


@router.get("/migration")
def move(request: Request, store: Store) -> HTMLResponse:
    """Return the page of the migration."""
    return _page(request, "migration.html", move=migration(request, store))


def _forced(phase: Phase) -> str:
    """Return why a phase was force-approved; empty if it was not."""
    noted = json_text.parse_trusted(phase.extra.encode())
    why = noted.get("force_reason") if isinstance(noted, dict) else None
    return why if isinstance(why, str) else ""


def refused(request: Request, said: Refusal, status: int) -> HTMLResponse:
    """Return a page that says what is wrong and what to do next."""
    page = _page(request, "refused.html", said=said)
    page.status_code = status
    return page


def _tree(snapshot: TaskSnapshot) -> list[tuple[int, Agent]]:
    """Return the agents with their depths, each after the one that deployed it."""
    known = {a.agent_id for a in snapshot.agents}
    children: dict[str, list[Agent]] = defaultdict(list)
    for agent in snapshot.agents:
        children[agent.parent if agent.parent in known else ""].append(agent)
    found: list[tuple[int, Agent]] = []
    seen, waiting = set[str](), [(1, a) for a in reversed(children[""])]
    while waiting:
        depth, agent = waiting.pop()
        found.append((depth, agent))
        seen.add(agent.agent_id)
        waiting += [(depth + 1, a) for a in reversed(children[agent.agent_id])]
    # Legacy programs write any parent: agents whose parents form a cycle are shown too.
    return found + [(1, a) for a in snapshot.agents if a.agent_id not in seen]
