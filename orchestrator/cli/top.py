"""``top``: a live screen of the active agents."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from orchestrator.cli.app import Workspace, app, opened
from registry_api.errors import RegistryError, UsageError
from registry_api.workspace.server_cli import OK

if TYPE_CHECKING:
    from rich.console import Group

    from orchestrator.service import Orchestrator

__all__ = ["top"]


@app.command
def top(
    *,
    workspace: Workspace = None,
    interval: Annotated[float, Parameter(help="seconds between two updates")] = 2.0,
    count: Annotated[int, Parameter(help="end after so many updates; 0: never")] = 0,
) -> int:
    """Show the active agents, longest silent first, until Ctrl-C.

    Example: registry-orchestrator top --interval 5
    """
    if not 0.1 <= interval <= 3600 or count < 0:
        raise UsageError("--interval takes 0.1 to 3600 s", next_step="Leave it out: 2 s")
    from rich.live import Live

    with opened(workspace) as service, Live(auto_refresh=False, screen=count == 0) as live:
        done = 0
        while not count or done < count:
            if done:
                time.sleep(interval)
            live.update(_screen(service), refresh=True)
            done += 1
    if not live.console.is_terminal:
        live.console.print()  # on a terminal rich itself ends the last line
    return OK


def _screen(service: Orchestrator) -> Group:
    from rich.console import Group
    from rich.text import Text

    from orchestrator.cli.agents import agents_table
    from orchestrator.queries.agent_rows import agent_rows

    try:
        counts = service.store.counts()
        rows = agent_rows(service)
    except RegistryError as error:  # a store that is away for a time ends nothing
        return Group(Text(f"{service.now().astimezone():%H:%M:%S}  {error}", style="red"))
    silent = sum(row.silence > service.settings.silent_after for row in rows)
    head = (
        f"{service.now().astimezone():%H:%M:%S}  {counts.active_tasks} active tasks, "
        f"{len(rows)} active agents, {silent} of them silent"
    )
    return Group(Text(head, style="bold"), agents_table(rows))
