"""``agents`` and ``agent``: agents of all tasks, and one of them."""

from __future__ import annotations

import dataclasses
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from orchestrator.cli.app import (
    AgentId,
    Json,
    OfTask,
    Workspace,
    app,
    opened,
    print_json,
)
from registry_api.workspace.server_cli import OK

if TYPE_CHECKING:
    from rich.table import Table

    from orchestrator.queries.agent_rows import AgentRow
    from orchestrator.service import Orchestrator
    from registry_api import Agent

__all__ = ["agent", "agents", "agents_table"]

_REPORTS = 10  # newest reports of an agent that are shown


@app.command
def agents(
    *,
    workspace: Workspace = None,
    task: Annotated[str | None, Parameter(help="only agents of this task")] = None,
    all: Annotated[bool, Parameter(negative="", help="those that have ended too")] = False,  # noqa: A002  (the option's name)
    json: Json = False,
) -> int:
    """List the active agents with the state of their processes, longest silent first.

    Example: registry-orchestrator agents
    """
    with opened(workspace) as service:
        from orchestrator.queries.agent_rows import agent_rows

        rows = agent_rows(service, task_id=task, ended=all)
    if json:
        print_json({"agents": [dataclasses.asdict(row) for row in rows]})
        return OK
    from rich.console import Console

    console = Console(highlight=False)
    console.print(agents_table(rows) if rows else "No agents" if all else "No active agents")
    return OK


@app.command
def agent(
    agent_id: AgentId, *, workspace: Workspace = None, task: OfTask = None, json: Json = False
) -> int:
    """Show an agent: its attempts, its newest reports, and why it ended.

    Example: registry-orchestrator agent builder-131415-95ffd1
    """
    with opened(workspace) as service:
        from orchestrator.queries.agent_rows import find_agent

        found = _details(service, find_agent(service, agent_id, task))
    if json:
        print_json(found)
    else:
        _show(found)
    return OK


def agents_table(rows: list[AgentRow]) -> Table:
    """Return the table of agents, also of ``top``."""
    from orchestrator.cli.table import table
    from orchestrator.cli.text import bar, duration, status_text
    from orchestrator.health.hosts import AWAY

    shown = table("agent", "status", "process", "progress", "silent", "running", "last message")
    for row in rows:
        number = f" ({row.attempt})" if row.attempt > 1 else ""
        shown.add_row(
            row.agent_id + number,
            status_text(row.status),
            status_text(row.process, where=row.host if row.process in AWAY else ""),
            bar(row.progress),
            duration(row.silent) if row.is_active else "",
            duration(row.running),
            row.message if row.is_active else row.reason or row.message,
        )
    return shown


def _details(service: Orchestrator, agent: Agent) -> dict[str, Any]:
    from orchestrator.queries.agent_rows import agent_row
    from orchestrator.rules.attempts import retried_by, retry_of
    from orchestrator.rules.draft import extra_of
    from registry_api import Kind, ProgressEntry, RecordQuery, all_records

    query = RecordQuery(task_id=agent.task_id, agent_id=agent.agent_id, newest_first=True)
    reports = islice(all_records(service.store, Kind.PROGRESS, query), _REPORTS)
    extra = extra_of(agent)
    return {
        **dataclasses.asdict(agent_row(service, agent)),
        "kind": extra.get("agent_kind"),
        "model": agent.model,
        "launcher": extra.get("launcher"),
        "parent": agent.parent,
        "retry_of": retry_of(agent),
        "retried_by": retried_by(agent),
        "last_output": said if isinstance(said := extra.get("last_output"), str) else None,
        "reports": [
            {
                "at": report.timestamp.isoformat(),
                "status": report.status,
                "progress": report.progress,
                "message": report.message,
            }
            for report in reports
            if isinstance(report, ProgressEntry)
        ],
    }


def _show(found: dict[str, Any]) -> None:
    import shlex

    from rich.console import Console

    from orchestrator.cli.table import table
    from orchestrator.cli.text import bar, duration, plain, status_text

    console = Console(highlight=False)
    rows = table("", "")
    rows.show_header = False
    rows.columns[1].no_wrap = False
    process = f", process {found['process']}" if found["process"] else ""
    rows.add_row("agent", found["agent_id"])
    rows.add_row("task", found["task_id"])
    rows.add_row("status", status_text(found["status"]) + process)
    rows.add_row("progress", bar(found["progress"]))
    rows.add_row("running for", duration(found["running"]))
    if found["process"]:
        rows.add_row("silent for", duration(found["silent"]))
    for name in ("kind", "model", "host", "launcher", "parent", "retry_of", "retried_by", "reason"):
        if found[name]:
            rows.add_row(name.replace("_", " "), str(found[name]))
    if found["attempt"] > 1:
        rows.add_row("attempt", str(found["attempt"]))
    if found["attach"]:
        rows.add_row("attach", shlex.join(found["attach"]))
    console.print(rows)
    if found["last_output"]:
        console.print("Last output:")
        for line in found["last_output"].splitlines():
            console.print(f"  {plain(line)}", markup=False, soft_wrap=True)
    if found["reports"]:
        reports = table("reported", "status", "progress", "message")
        for report in found["reports"]:
            at = report["at"][:19].replace("T", " ")
            reports.add_row(at, report["status"], bar(report["progress"]), report["message"])
        console.print(reports)
