"""The HTML pages: rendered on the server, complete without JavaScript, fetched again on changes."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response
from fastapi.templating import Jinja2Templates
from pydantic import AfterValidator

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
from dashboard.last_record import last_record
from dashboard.live.event_hub import Hub
from dashboard.live.last_day import Recent
from dashboard.pages import charts
from dashboard.pages.formatting import duration, exact, machine, short
from dashboard.pages.markdown import rendered
from dashboard.pages.terminal_text import styled
from dashboard.views import logs
from dashboard.views.attempts import attempt_of
from dashboard.views.foreign_writes import foreign_writes
from dashboard.views.log_levels import LEVELS
from dashboard.views.reviews import reviews_of
from dashboard.views.stream import KINDS, stream_of
from dashboard.views.summary import Summary, look
from dashboard.views.task_rows import TaskRow, TaskRows
from dashboard.views.waiting import waiting_of
from orchestrator.health.hosts import Hosts
from registry_api import (
    Agent,
    AgentStatus,
    Finding,
    Kind,
    Phase,
    PhaseStatus,
    ProgressEntry,
    Record,
    RecordQuery,
    RegistryStore,
    ReviewStatus,
    TaskQuery,
    TaskSnapshot,
    TaskStatus,
)
from registry_api.client import end_of_feed, gave_sign, is_silent, last_sign
from registry_api.errors import RegistryError, Unavailable
from registry_api.records import ACTIVE_AGENT, Severity, json_text, utc
from registry_api.settings import in_force
from registry_api.workspace import at_most

__all__ = ["router"]

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
_templates = Jinja2Templates(FilePath(__file__).parent / "templates")
_templates.env.trim_blocks = True
SEVERITIES = [str(severity) for severity in reversed(Severity)]
_LISTED = 25  # tasks or agents of a list
_AGENTS = 300  # of a task
_MATCHES = 10  # of each kind, for a text
_LINES = 200  # of a log, for a text
_HANDOVERS = 20  # of a task
_READING = 0.1  # seconds to wait for locks: a page must not wait for a switch
_SEARCHED = timedelta(days=30)  # how far back findings are searched


def _silent(agent: Agent, before: datetime) -> bool:
    return agent.status in ACTIVE_AGENT and not gave_sign(agent, before)


_TONES = frozenset(
    word.lower()
    for words in (AgentStatus, PhaseStatus, TaskStatus, ReviewStatus, Severity)
    for word in words
) | {"approved", "rejected", "needs_revision"}


def _tone(word: str) -> str:
    """Return the class of the style for a status, verdict or severity, empty for another word."""
    return word.lower() if word.lower() in _TONES else ""


def _worked(agent: Agent) -> str:
    """Return how long an agent has worked, or had."""
    if agent.started_at is None:
        return ""
    end = agent.completed_at or (datetime.now(UTC) if agent.status in ACTIVE_AGENT else None)
    return duration((end - agent.started_at).total_seconds()) if end else ""


_templates.env.filters["tone"] = _tone
_templates.env.filters["short"] = short
_templates.env.filters["exact"] = exact
_templates.env.filters["machine"] = machine
_templates.env.filters["markdown"] = rendered
_templates.env.globals["worked"] = _worked
_templates.env.globals["last_sign"] = last_sign
_templates.env.globals["silent"] = _silent
_templates.env.globals["ACTIVE"] = ACTIVE_AGENT


def _page(request: Request, name: str, **context: Any) -> HTMLResponse:
    shown = {"role": request.scope.get("role"), "path": request.url.path}
    if "waiting" not in context:
        shown["waiting"] = request.app.state.waiting_count()
    return _templates.TemplateResponse(request, name, shown | context)


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
    silent: bool = False,
    ended: Literal["", "COMPLETED", "FAILED"] = "",
    cursor: Cursor = None,
) -> HTMLResponse:
    """Return the overview: headline, counts, tasks, agents, recent findings.

    ``silent``: only the silent tasks; ``ended``: only those that ended so within the last day; at
    most 25.
    """
    now = datetime.now(UTC)
    summary = look(present, settings, now)
    recent = present.last_day.recent(
        now, most=_LISTED
    )  # after the look, which hands on what has changed
    task_rows: TaskRows = request.app.state.task_rows
    older, tasks = None, list[TaskRow]()
    if silent or ended:
        names = summary.quiet.longest_tasks(_LISTED)
        if ended:
            names = recent.newest[TaskStatus(ended)] if recent else []
        shown = task_rows.of(names)
        tasks = [
            row for row in shown if not text or text in row.task.description + row.task.task_id
        ]
    else:
        query = TaskQuery(status=status or None, text=text or None, newest_first=True)
        found = store.list_tasks(query, after=cursor, limit=_LISTED)
        older, tasks = found.next, task_rows.rows(found.items)
    newest = RecordQuery(newest_first=True, severity=severity or None)
    asked = RecordQuery(status=agents) if agents else RecordQuery(active=True)
    page = store.list_records(Kind.AGENT, asked, limit=_LISTED)
    listed = [a for a in page.items if isinstance(a, Agent)]
    if not agents:  # those that need somebody first
        quiet = summary.quiet.longest(_LISTED)
        known = {(a.task_id, a.agent_id) for a in quiet}
        listed = [*quiet, *(a for a in listed if (a.task_id, a.agent_id) not in known)][:_LISTED]
    return _page(
        request,
        "overview.html",
        summary=summary,
        lost=Hosts(store).is_lost,
        numbers=summary.numbers(),
        rows=tasks,
        older=older,
        paged=cursor is not None,
        task_tabs=_task_tabs(summary, status, silent=silent, ended=ended),
        agent_tabs=[
            (f"/?{urlencode({'agents': s})}#agents", s or "active", None, s == agents)
            for s in ("", *_AGENT_TABS)
        ],
        severity_tabs=[
            (f"/?{urlencode({'severity': s})}#findings", s or "all", None, s == (severity or ""))
            for s in ("", *SEVERITIES)
        ],
        silent_tasks=summary.quiet.tasks,
        silent_only=silent,
        ended=ended,
        before=now - timedelta(seconds=settings.silent_after),
        findings=store.list_records(Kind.FINDING, newest, limit=10).items,
        matching=_matching(store, text, now) if text else [],
        recent=recent,
        activity=_activity(recent) if recent else [],
        listed=listed,
        more_agents=page.next is not None,
        chosen=agents,
        status=status,
        text=text or "",
    )


def _activity(recent: Recent) -> list[tuple[str, list[str], int]]:
    """Return the charts of the last hour and day: (length, areas, most active agents)."""
    charted = (("1 h", recent.hour), ("24 h", recent.day))
    return [(name, charts.stacked(rows), max(row[0] for row in rows)) for name, rows in charted]


_AGENT_TABS = ("blocked", "failed", "error", "terminated", "killed", "completed", "unknown")


def _task_tabs(
    summary: Summary, status: str, *, silent: bool, ended: str
) -> list[tuple[str, str, int | None, bool]]:
    """Return the tabs above the tasks: (link, name, number, whether it is chosen)."""
    counts = summary.counts
    tabs = [("/#tasks", "all", counts.total_tasks, not (status or silent or ended))]
    for each in TaskStatus:
        number = counts.tasks.get(each, 0)
        if number or each == status:
            tabs.append((f"/?status={each}#tasks", each, number, each == status))
    return [*tabs, ("/?silent=true#tasks", "silent", len(summary.quiet.tasks), silent)]


def _matching(store: RegistryStore, text: str, now: datetime) -> list[Record]:
    """Return active agents and recent findings with a text, at most ten of each."""
    queries = {
        Kind.AGENT: RecordQuery(text=text, active=True),
        Kind.FINDING: RecordQuery(text=text, since=now - _SEARCHED, newest_first=True),
    }
    found = (store.list_records(kind, q, limit=_MATCHES).items for kind, q in queries.items())
    return [record for items in found for record in items]


@router.get("/tasks/{task_id}")
def task(
    request: Request,
    store: Store,
    settings: Configured,
    task_id: TaskId,
    status: AgentStatus | Literal[""] = "",
    text: Annotated[str, Query(max_length=1000)] = "",
    show: Literal["", "reports", "findings", "verdicts", "handovers"] = "",
    since: Annotated[datetime, AfterValidator(utc)] | None = None,
) -> HTMLResponse:
    """Return the page of a task: phases with reviews, agents, what happened, findings.

    ``status`` and ``text`` (a part of an id or a type) filter the agents, ``show`` and ``since``
    what happened.
    """
    snapshot = store.load(task_id)
    now = datetime.now(UTC)
    before = now - timedelta(seconds=settings.silent_after)
    newest = RecordQuery(task_id=task_id, newest_first=True)
    page = store.list_records(Kind.FINDING, newest, limit=20)
    findings = [found for found in page.items if isinstance(found, Finding)]
    tree = [
        (depth, a)
        for depth, a in _tree(snapshot)
        if (not status or a.status == status) and (text in a.agent_id or text in a.type)
    ]
    return _page(
        request,
        "task.html",
        task=snapshot.task,
        snapshot=snapshot,
        changed=last_record(snapshot, findings[0].timestamp if findings else None),
        active=sum(a.status in ACTIVE_AGENT for a in snapshot.agents),
        is_silent=is_silent(snapshot, before),
        quiet=sorted((a for a in snapshot.agents if _silent(a, before)), key=_longest_silent),
        before=before,
        waits=waiting_of(snapshot, before),
        handovers=sorted(snapshot.handovers, key=lambda h: h.created_at)[-_HANDOVERS:],
        lost=Hosts(store).is_lost,
        forced={p.phase_index: _forced(p) for p in snapshot.phases},
        took={
            p.phase_index: duration(((p.completed_at or now) - p.started_at).total_seconds())
            for p in snapshot.phases
            if p.started_at
        },
        gantt=charts.gantt(snapshot, now),
        axis=charts.AXIS,
        tree=tree[:_AGENTS],
        matching=len(tree),
        attempts={a.agent_id: attempt_of(a).number for _, a in tree[:_AGENTS]},
        messages={entry.agent_id: entry.message for entry in snapshot.latest},
        known={a.agent_id for a in snapshot.agents},
        status=status,
        text=text,
        statuses=list(AgentStatus),
        stream=stream_of(store, snapshot, show, since),
        since=since,
        activity_tabs=[
            (f"?show={kind}#activity", kind or "all", None, kind == show) for kind in ("", *KINDS)
        ],
        findings=sorted(findings, key=_severity),
    )


def _longest_silent(agent: Agent) -> datetime:
    return last_sign(agent) or datetime.min.replace(tzinfo=UTC)


def _severity(finding: Finding) -> int:
    known = finding.severity in SEVERITIES
    return SEVERITIES.index(finding.severity) if known else len(SEVERITIES)


@router.get("/tasks/{task_id}/agents/{agent_id}")
def agent(
    request: Request,
    store: Store,
    settings: Configured,
    task_id: TaskId,
    agent_id: AgentId,
    before: Annotated[int | None, Query(ge=0)] = None,
    find: Annotated[str, Query(max_length=200)] = "",
    level: Literal["", "warning", "error"] = "",
) -> HTMLResponse:
    """Return the page of an agent: progress curve, reports, findings, its output.

    Of the output the end is shown, what ends at the byte ``before``, or the last lines that hold
    the text ``find`` and are of the ``level`` or a higher one.
    """
    found = find_agent(store, task_id, agent_id)
    of = RecordQuery(task_id=task_id, agent_id=agent_id, newest_first=True)
    reports = store.list_records(Kind.PROGRESS, of, limit=100).items
    place = settings.workspace, task_id, agent_id
    lines, unreadable, start, searched, size = list[str](), "", 0, 0, 0
    try:
        if find or level:
            lines, searched, size = logs.matching(*place, find, limit=_LINES, level=level)
        else:
            text, start, size = logs.tail(*place, limit=16_384, before=before)
            lines = text.removesuffix("\n").split("\n") if text else []
        errors = logs.errors(*place)
    except Unavailable as error:
        errors, unreadable = "", str(error)
    return _page(
        request,
        "agent.html",
        agent=found,
        lost=Hosts(store).is_lost,
        reports=reports[:20],
        curve=charts.curve([r for r in reversed(reports) if isinstance(r, ProgressEntry)]),
        findings=store.list_records(Kind.FINDING, of, limit=20).items,
        lines=[styled(line) for line in lines],
        log_start=start,
        find=find,
        level=level,
        levels=LEVELS,
        more=len(lines) == _LINES,
        searched=searched,
        at_end=before is None and not (find or level),
        silent_before=datetime.now(UTC) - timedelta(seconds=settings.silent_after),
        errors=errors,
        unreadable=unreadable,
        attempt=attempt_of(found),
        log_size=size,
    )


@router.get("/icon.svg")
def icon(waiting: Annotated[int, Query(ge=0, le=99)] = 0) -> Response:
    """Return the icon of a tab, which shows how many phases wait for a human."""
    page = _templates.get_template("icon.svg").render(waiting=waiting)
    return Response(page, media_type="image/svg+xml", headers={"cache-control": "max-age=86400"})


@router.get("/reviews")
def reviews(request: Request, store: Store) -> HTMLResponse:
    """Return the page of escalated phases, open reviews and recently decided ones."""
    return _page(request, "reviews.html", reviews=reviews_of(store))


@router.get("/system")
def system(request: Request, store: Store) -> HTMLResponse:
    """Return the page of the store, the plugins and the problems that doctor finds."""
    state = request.app.state
    return _page(
        request,
        "system.html",
        system=state.system.to_dict(store),
        programs=state.programs.rows(),
        feed=_feed(store, state.hub),
        in_force=in_force(request.app.state.settings),
    )


def _feed(store: RegistryStore, hub: Hub) -> tuple[int, int | None] | None:
    """Return the number of the newest change, and how many of them listeners have not been told.

    None if it cannot be read now; the second is None while nobody listens.
    """
    at = hub.at if hub.listeners else None  # first: it may go on meanwhile
    try:
        with at_most(_READING):
            end = end_of_feed(store)
    except RegistryError:
        return None
    if end is None:
        return 0, None
    known = at is not None and at.feed_id == end.feed_id
    return end.number, max(0, end.number - at.number) if at and known else None


@router.get("/migration")
def move(request: Request, store: Store) -> HTMLResponse:
    """Return the page of the migration."""
    shown = migration(request, store)
    history = request.app.state.move_history
    busy = shown["job"] is not None and shown["job"]["state"] == "running"
    rows = list(history.rows)
    return _page(
        request,
        "migration.html",
        move=shown,
        foreign=None if busy else foreign_writes(store),
        pauses=charts.pauses([switch["pause_ms"] for switch in shown["history"]]),
        writes=charts.stacked([row[:2] for row in rows]),
        reads=charts.stacked([row[2:] for row in rows]),
        totals=[sum(column) for column in zip(*rows, strict=True)],
        minutes=round(len(rows) * history.every / 60),
    )


def _forced(phase: Phase) -> str:
    """Return why a phase was force-approved; empty if it was not."""
    noted = json_text.parse_trusted(phase.extra.encode())
    why = noted.get("force_reason") if isinstance(noted, dict) else None
    return why if isinstance(why, str) else ""


def refused(request: Request, said: Refusal, status: int) -> HTMLResponse:
    """Return a page that says what is wrong and what to do next."""
    page = _page(request, "refused.html", said=said, waiting=0)  # in the event loop: no reading
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
