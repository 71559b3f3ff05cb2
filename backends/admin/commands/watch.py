"""``registry-backend watch``."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from backends.admin.app import OK, Json, Workspace, answer, app
from registry_api.errors import (
    UsageError,
)


@app.command
def watch(
    *,
    workspace: Workspace = None,
    json: Json = False,
    every: Annotated[float, Parameter(help="refresh interval in seconds")] = 1.0,
    count: Annotated[int, Parameter(help="refreshes until it ends; 0: until interrupted")] = 0,
) -> int:
    """Show live what the processes of a workspace do; with --json, print one interval and end.

    Shows writes and reads per second, the 99th percentile of their latency and of the wait for the
    gate (the lock that a switch takes), and how many tasks are behind in the target.

    Example: registry-backend watch --every 2
    """
    from backends.admin.watch import looks, show_looks
    from registry_api import load_settings

    if not 0.1 <= every <= 3600 or count < 0:
        raise UsageError(
            "--every is 0.1 to 3600 seconds, --count 0 or more",
            next_step="registry-backend watch --help",
        )
    found = looks(load_settings(workspace), every=every, count=1 if json else count)
    if json:
        return answer(next(found), lambda _: None, as_json=True)
    show_looks(found)
    return OK
