"""``tasks`` and ``task``: the tasks of a workspace, and one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from orchestrator.cli.app import Json, Workspace, app, opened, print_json, without_defaults
from registry_api import TaskStatus
from registry_api.workspace.server_cli import OK

if TYPE_CHECKING:
    from orchestrator.queries.answers import TaskAnswer, TasksPage

__all__ = ["task", "tasks"]


@app.command
def tasks(
    *,
    workspace: Workspace = None,
    status: Annotated[TaskStatus | None, Parameter(help="only tasks of this status")] = None,
    text: Annotated[str, Parameter(help="only tasks with this text in the description")] = "",
    limit: Annotated[int, Parameter(help="most tasks in one answer, 1 to 1000")] = 20,
    cursor: Annotated[str | None, Parameter(help="where the last answer ended")] = None,
    json: Json = False,
) -> int:
    """List tasks, newest first.

    Example: registry-orchestrator tasks --status ACTIVE
    """
    with opened(workspace) as service:
        from orchestrator.queries.reading import Reading

        page = Reading(service).tasks(status=status, text=text, cursor=cursor, limit=limit)
    if json:
        print_json(without_defaults(page))
    else:
        _show_tasks(page)
    return OK


@app.command
def task(task_id: str, *, workspace: Workspace = None, json: Json = False) -> int:
    """Show a task: its phases, its agents, and the next step.

    Example: registry-orchestrator task TASK-20260104-221530-1a2b3c4d
    """
    with opened(workspace) as service:
        from orchestrator.queries.reading import Reading

        found = Reading(service).task(task_id)
    if json:
        print_json(without_defaults(found))
    else:
        _show_task(found)
    return OK


def _show_tasks(page: TasksPage) -> None:
    from orchestrator.cli.table import Rows, output
    from orchestrator.cli.text import status_text

    console = output()
    shown = Rows(
        *("task", "status", "agents", "created", "description"), optional=("created", "agents")
    )
    for one in page.tasks:
        active = f"{one.active_agents} of {one.agents}"
        created = one.created_at[:16].replace("T", " ")
        shown.add_row(one.task_id, status_text(one.status), active, created, one.description)
    if page.tasks:
        console.print(shown)
    if page.next_step:
        console.print(page.next_step, markup=False)
    if page.next_cursor:
        console.print(f"More: --cursor {page.next_cursor}", markup=False, soft_wrap=True)


def _show_task(found: TaskAnswer) -> None:
    from orchestrator.cli.table import Rows, output
    from orchestrator.cli.text import bar, plain, status_text

    console = output()
    silent = ", silent" if found.silent else ""
    console.print(plain(found.description), markup=False)
    console.print(status_text(found.status), f"{silent} · {found.task_id}", markup=False)
    if found.phases:
        phases = Rows("", "phase", "status", "revision")
        for phase in found.phases:
            current = "→" if phase.index == found.current_phase else ""
            rounds = str(phase.revision_round or "")
            phases.add_row(current, phase.name, status_text(phase.status), rounds)
        console.print(phases)
    agents = Rows(
        *("agent", "status", "progress", "last message, or why it ended"), optional=("progress",)
    )
    for agent in (*found.agents_active, *found.agents_ended):
        why = agent.reason or agent.message or ""
        agents.add_row(agent.agent_id, status_text(agent.status), bar(agent.progress), why)
    if agents.row_count:
        console.print(agents)
    hidden = found.agents_total - agents.row_count
    if hidden:
        console.print(f"{hidden} more: registry-orchestrator agents --task {found.task_id} --all")
    if found.next_step:
        console.print(f"Next: {found.next_step}", markup=False)
