"""``registry-dashboard``: the current state of an agent registry, in a browser."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from registry_api import load_settings, open_store
from registry_api.errors import UsageError
from registry_api.workspace import STATE_DIR, Flock, operator_token, reader_token, replace_file
from registry_api.workspace.server_cli import LOOPBACK, OK, Workspace, listening, run_app, url_of

__all__ = ["app", "main"]

HOST, PORT = "127.0.0.1", 8765
_URL, _LOCK = "dashboard.url", "dashboard.lock"  # the URL is valid while the lock is held
_PATIENCE = 3  # seconds that a shutdown waits for clients that do not read

Host = Annotated[str, Parameter(help="address to listen on")]
Port = Annotated[int, Parameter(help="port; 0: any")]

app = App(
    name="registry-dashboard",
    help="Show the current state of an agent registry in a browser.\n\n"
    "Example: registry-dashboard serve --workspace ~/project/.agent-workspace",
    version=lambda: version("registry-backend"),
    version_flags=["--version"],
)


@app.command
def serve(
    *,
    workspace: Workspace = None,
    host: Host = HOST,
    port: Port = PORT,
    remote: Annotated[
        bool, Parameter(negative="", help="allow an address that other machines can reach")
    ] = False,
    allow_host: Annotated[tuple[str, ...], Parameter(help="a further host name to accept")] = (),
    child: Annotated[bool, Parameter(negative="", show=False)] = False,
) -> int:
    """Serve the dashboard, and print the link that opens it.

    Example: registry-dashboard serve --port 8765
    """
    _need_extra()
    import uvicorn

    from dashboard.app import create_app
    from dashboard.auth import Tokens
    from registry_api import load_plugins

    if not remote and host not in LOOPBACK:
        raise UsageError(
            f"--host {host} can be reached by others",
            next_step=f"Use {HOST}, or add --remote and an --allow-host for each name",
        )
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    settings = load_settings(workspace)
    place = settings.workspace
    plugins = load_plugins()
    with (
        closing(open_store(settings, plugins=plugins)) as store,
        listening(host, port) as (taken, url),
    ):
        (place / STATE_DIR).mkdir(mode=0o700, exist_ok=True)
        tokens = Tokens(operator=operator_token(place), reader=reader_token(place))
        hosts = (host, *allow_host)
        made = create_app(store, settings, tokens=tokens, plugins=plugins, hosts=hosts)
        told, serving = place / STATE_DIR / _URL, Flock(place / STATE_DIR / _LOCK)
        if serving.try_acquire():  # held as long as this process lives
            replace_file(told, url.encode(), aside=told.with_name(f"{_URL}.{os.getpid()}"))
        if child:
            threading.Thread(target=_end_with_parent, daemon=True).start()
        print(_link(url, tokens.operator), flush=True)  # noqa: T201  (the command's output)
        config = uvicorn.Config(
            made,
            log_level="warning",
            access_log=False,
            lifespan="on",
            timeout_graceful_shutdown=_PATIENCE,
        )
        uvicorn.Server(config).run(sockets=[taken])
    return OK


@app.command
def link(
    *,
    workspace: Workspace = None,
    host: Annotated[
        str | None, Parameter(help="host of the link; default: that of the running dashboard")
    ] = None,
    port: Annotated[
        int | None, Parameter(help="port of the link; default: that of the running dashboard")
    ] = None,
    reader: Annotated[bool, Parameter(negative="", help="with the read-only token")] = False,
) -> int:
    """Print the link that opens the dashboard. Example: registry-dashboard link --reader"""
    place = load_settings(workspace).workspace
    if host is None and port is None:
        url = _served_at(place / STATE_DIR)
    else:
        url = url_of(host or HOST, port or PORT)
    token = reader_token(place) if reader else operator_token(place)
    print(_link(url, token))  # noqa: T201  (the command's output)
    return OK


def _served_at(folder: Path) -> str:
    """Return the URL of the running dashboard; raises UsageError if none is running.

    The port of one that has ended may belong to another program, which would get the token.
    """
    free = not (folder / _LOCK).exists()
    if not free:
        lock = Flock(folder / _LOCK)
        free = lock.try_acquire()
        lock.close()
    if free:
        raise UsageError(
            "no dashboard is running here", next_step="registry-dashboard serve starts one"
        )
    return (folder / _URL).read_text()


def _end_with_parent() -> None:
    """End as by SIGTERM when standard input closes: the parent process has ended."""
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


def _link(url: str, token: str) -> str:
    return f"{url}/?token={token}"


def _need_extra() -> None:
    try:
        import fastapi
        import jinja2
        import sse_starlette
    except ImportError as error:
        raise UsageError(
            f"the dashboard needs {error.name}, which is not installed",
            next_step="pip install 'registry-backend[dashboard]'",
        ) from None
    del fastapi, jinja2, sse_starlette


def main(tokens: list[str] | None = None) -> int:
    """Run the command; returns the exit code: 0 ok, 1 error, 2 usage."""
    return run_app(app, tokens)


def run() -> None:
    """Run as the console script."""
    sys.exit(main())
