"""Shared code of the programs for a workspace: the option, running a command, listening."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import App, Parameter

from registry_api.errors import RegistryError, UsageError

__all__ = ["LOOPBACK", "OK", "Workspace", "listening", "run_app", "url_of"]

OK, ERROR, USAGE = range(3)

Workspace = Annotated[
    Path | None,
    Parameter(
        help="base directory; default: REGISTRY_WORKSPACE, else the nearest registry at or above "
        "the current directory"
    ),
]


LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (names to replace, not to bind)


def run_app(app: App, tokens: list[str] | None = None) -> int:
    """Run a program's command; returns the exit code: 0 ok, 1 error, 2 usage."""
    tokens = sys.argv[1:] if tokens is None else tokens
    try:
        code = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except RegistryError as error:
        sys.stderr.write(f"{error.code}: {error}\n")
        return USAGE if isinstance(error, UsageError) else ERROR
    except cyclopts.CycloptsError as error:
        sys.stderr.write(f"usage: {error}\n{app.name[0]} --help\n")
        return USAGE
    except OSError as error:
        sys.stderr.write(f"os_error: {error}\n")
        return ERROR
    except KeyboardInterrupt:
        return OK
    return code if isinstance(code, int) else OK


@contextmanager
def listening(host: str, port: int) -> Iterator[tuple[socket.socket, str]]:
    """Listen on an address (port 0: any free port); yields the socket and its URL."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as taken:
        # Connections inherit the option. asyncio sets it only if the socket states its protocol,
        # which one of create_server does not: each answer then waited 40 ms for the client's
        # delayed ACK.
        taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield taken, url_of(host, taken.getsockname()[1])


def url_of(host: str, port: int) -> str:
    """Return the URL at which this machine reaches a server on that address."""
    reached = _EVERYWHERE.get(host, host)
    return f"http://{f'[{reached}]' if ':' in reached else reached}:{port}"
