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
    from orchestrator.cli.table import Rows
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
    from orchestrator.cli.table import output

    nothing = "No agents" if all else "No active agents"
    output().print(agents_table(rows) if rows else nothing)
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


def agents_table(rows: list[AgentRow]) -> Rows:
    """Return the table of agents, also of ``top``."""
    from orchestrator.cli.table import Rows
    from orchestrator.cli.text import bar, duration, status_text
    from orchestrator.health.hosts import AWAY

    shown = Rows(
        *("agent", "status", "process", "progress", "silent", "running", "last message"),
        optional=("running", "process", "progress", "silent"),
    )
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

    from rich.table import Table
    from rich.text import Text

    from orchestrator.cli.table import Rows, output
    from orchestrator.cli.text import bar, duration, plain, status_text

    console = output()
    facts = Table.grid(padding=(0, 2, 0, 0))
    process = f", process {found['process']}" if found["process"] else ""

    def fact(name: str, value: str | Text) -> None:
        facts.add_row(name, Text(plain(value)) if isinstance(value, str) else value)

    fact("agent", found["agent_id"])
    fact("task", found["task_id"])
    fact("status", status_text(found["status"]) + process)
    fact("progress", bar(found["progress"]))
    fact("running for", duration(found["running"]))
    if found["process"]:
        fact("silent for", duration(found["silent"]))
    for name in ("kind", "model", "host", "launcher", "parent", "retry_of", "retried_by", "reason"):
        if found[name]:
            fact(name.replace("_", " "), str(found[name]))
    if found["attempt"] > 1:
        fact("attempt", str(found["attempt"]))
    if found["attach"]:
        fact("attach", shlex.join(found["attach"]))
    console.print(facts)
    if found["last_output"]:
        console.print("Last output:")
        for line in found["last_output"].splitlines():
            console.print(f"  {plain(line)}", markup=False, soft_wrap=True)
    if found["reports"]:
        reports = Rows(
            *("reported", "status", "progress", "message"), optional=("progress", "status")
        )
        for report in found["reports"]:
            at = report["at"][:19].replace("T", " ")
            reports.add_row(
                at, status_text(report["status"]), bar(report["progress"]), report["message"]
            )
        console.print(reports)
