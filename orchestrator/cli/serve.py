"""``serve``: serve a workspace to agents and their conductor, with the health daemon beside."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from orchestrator.cli.app import Workspace, app, configure_log_from, need
from registry_api import load_settings
from registry_api.errors import UsageError
from registry_api.workspace.server_cli import OK, listening, parse_address

__all__: list[str] = []


@app.command
def serve(
    *,
    workspace: Workspace = None,
    http: Annotated[
        str | None, Parameter(help="HOST:PORT; default: standard input and output")
    ] = None,
    remote: Annotated[
        bool, Parameter(negative="", help="allow an address that is not loopback")
    ] = False,
    allow_host: Annotated[tuple[str, ...], Parameter(help="another host name of this server")] = (),
    dashboard: Annotated[
        bool, Parameter(negative="", help="also serve the dashboard; standard error shows its link")
    ] = False,
    dashboard_port: Annotated[int, Parameter(help="the dashboard's port; 0: any free port")] = 8765,
    agent: Annotated[
        bool, Parameter(negative="", help="serve one agent: allow only what its secret permits")
    ] = False,
) -> int:
    """Serve MCP on standard input and output, or over HTTP with the token in .registry/token.

    Example: registry-orchestrator serve --http 127.0.0.1:8766
    """
    _open_standard_streams()
    need("mcp", "psutil")
    from orchestrator.agents.client_config import Endpoint
    from orchestrator.health.daemon import running_daemon, scan_at_start
    from orchestrator.opening import open_orchestrator

    settings = load_settings(workspace)
    configure_log_from(settings)
    if agent and http is not None:
        raise UsageError(
            "--agent works only on standard input",
            next_step="Leave out --agent: over HTTP an agent sends its secret as the token",
        )
    beside = partial(_dashboard, port=dashboard_port) if dashboard else nullcontext
    if http is None:
        from orchestrator.mcp.stdio_transport import serve_stdio

        with open_orchestrator(settings) as service, beside(settings.workspace):
            scan_at_start(service)
            with nullcontext() if agent else running_daemon(service):
                serve_stdio(service, agent=agent)
        return OK
    from orchestrator.mcp import http_transport
    from orchestrator.metrics import Metrics
    from registry_api.workspace import operator_token

    host, port = parse_address(http, option="--http", remote=remote)
    token = operator_token(settings.workspace)
    with (
        listening(host, port) as (taken, url),
        open_orchestrator(
            settings,
            endpoint=Endpoint(url=url + http_transport.PATH, token=token),
            observer_of=lambda store: Metrics(store, settings),
        ) as service,
        beside(settings.workspace),
        ExitStack() as opened,
    ):
        scan_at_start(service)
        opened.enter_context(running_daemon(service))
        assert isinstance(service.observer, Metrics)
        made = http_transport.http_app(
            service, token=token, hosts=(host, *allow_host), metrics=service.observer
        )
        print(url + http_transport.PATH, flush=True)
        http_transport.serve(made, taken)
    return OK


@contextmanager
def _dashboard(workspace: Path, *, port: int) -> Iterator[None]:
    """Run the dashboard as a separate process, which ends with this one, even if this is killed."""
    command = [sys.executable, "-P", "-m", "dashboard", "serve", "--child"]
    where = ["--workspace", str(workspace), "--port", str(port)]
    process = subprocess.Popen(  # noqa: S603  (a list of arguments, no shell)
        [*command, *where], stdin=subprocess.PIPE, stdout=sys.stderr
    )
    try:
        yield
    finally:
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=10)
        process.kill()
        process.wait()


def _open_standard_streams() -> None:
    """Open the standard streams that were closed when this program was started.

    Otherwise a file of the store could get descriptor 0 and be read as the client's messages.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
