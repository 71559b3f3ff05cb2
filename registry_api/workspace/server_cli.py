"""Shared code of the programs for a workspace: options, output, running a command, listening."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import App, Parameter

from registry_api.errors import RegistryError, UsageError

__all__ = [
    "LOOPBACK",
    "OK",
    "Json",
    "Workspace",
    "answer",
    "listening",
    "parse_address",
    "print_json",
    "printable",
    "run_app",
    "url_of",
]

OK, ERROR, USAGE = range(3)

Workspace = Annotated[
    Path | None,
    Parameter(
        help="base directory; default: REGISTRY_WORKSPACE, else the nearest registry at or above "
        "the current directory"
    ),
]

Json = Annotated[
    bool, Parameter(negative="", help="print one JSON object and nothing else on stdout")
]

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (names to replace, not to bind)


def run_app(app: App, tokens: list[str] | None = None) -> int:
    """Run a program's command; returns the exit code: 0 ok, 1 error, 2 usage."""
    tokens = sys.argv[1:] if tokens is None else tokens
    try:
        code = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except RegistryError as error:
        _tell(error.code, error.message, error.next_step, as_json="--json" in tokens)
        return USAGE if isinstance(error, UsageError) else ERROR
    except cyclopts.CycloptsError as error:
        _tell("usage", str(error), f"{app.name[0]} --help", as_json="--json" in tokens)
        return USAGE
    except BrokenPipeError:  # e.g. `| head`: the caller deals with it
        raise
    except OSError as error:
        _tell("os_error", str(error), "", as_json="--json" in tokens)
        return ERROR
    except KeyboardInterrupt:
        return OK
    return code if isinstance(code, int) else OK


def _tell(code: str, message: str, next_step: str, *, as_json: bool) -> None:
    """Write a refusal: as JSON on standard output, else as text on standard error."""
    if as_json:
        print_json({"error": {"code": code, "message": message, "next": next_step}})
    else:
        text = f"{code}: {message}{f'. {next_step}' if next_step else ''}"
        # A message may quote what another program wrote: nothing in it steers the terminal.
        sys.stderr.write(printable(text, keep="\n") + "\n")


def printable(text: str, *, keep: str = "") -> str:
    """Return a text with a blank for each control character but those to ``keep``."""
    return "".join(c if c.isprintable() or c in keep else " " for c in text)


def parse_address(text: str, *, option: str, remote: bool = False) -> tuple[str, int]:
    """Parse ``HOST:PORT``; raises UsageError, also for other than loopback unless ``remote``."""
    host, colon, port = text.rpartition(":")
    host = host.strip("[]")
    if not colon or not host or not (port.isascii() and port.isdigit() and int(port) < 2**16):
        raise UsageError(f"{option} {text[:80]} is not HOST:PORT", next_step="E.g. 127.0.0.1:8766")
    if not remote and host not in LOOPBACK:
        raise UsageError(
            f"{option} {host} can be reached from other machines",
            next_step="Use 127.0.0.1; serve --http also takes --remote, with an --allow-host for "
            "each name",
        )
    return host, int(port)


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


def print_json(value: dict[str, Any]) -> None:
    """Write one JSON object to stdout, with its version; ASCII if stdout cannot encode it."""
    import orjson

    try:
        text = orjson.dumps({"version": 1, **value})
    except TypeError:  # a lone surrogate, e.g. from an argument that is not UTF-8
        import json

        text = json.dumps({"version": 1, **value}, default=str).encode()
    try:
        shown = text.decode()
        shown.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # escape: a question mark in its place would change the value
        import json

        shown = json.dumps(orjson.loads(text))
    sys.stdout.write(shown + "\n")


def answer(
    found: dict[str, Any], show: Callable[[dict[str, Any]], None], *, as_json: bool, code: int = OK
) -> int:
    """Write a command's result as JSON or with ``show``, and return its exit code."""
    if as_json:
        print_json(found)
    else:
        show(found)
    return code
