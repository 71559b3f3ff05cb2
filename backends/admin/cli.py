"""``registry-backend``: look at a registry and move it.

rich and the stores are imported inside the commands: a cold ``status --json`` is asked for by
scripts, and importing them would be most of its time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import App, Parameter

from registry_api.errors import (
    BackendMismatch,
    Busy,
    PreflightFailed,
    RegistryError,
    VerificationFailed,
)

__all__ = ["app", "main"]

OK, ERROR, USAGE, MISMATCH, BUSY, TIMED_OUT, REFUSED = range(7)
_EXIT: tuple[tuple[type[RegistryError], int], ...] = (
    (VerificationFailed, MISMATCH),
    (PreflightFailed, REFUSED),
    (BackendMismatch, ERROR),
    (Busy, BUSY),
)

Workspace = Annotated[
    Path | None, Parameter(help="base directory; default: found as docs/configuration.md says")
]
Json = Annotated[bool, Parameter(negative="", help="one JSON object on stdout, nothing else")]

app = App(
    name="registry-backend",
    help="What is true in an agent registry, and its move from one store to another.",
    help_epilogue="Example: registry-backend --workspace .agent-workspace",
    version_flags=["--version"],
)


def main(tokens: list[str] | None = None) -> int:
    """Run the command; returns the exit code.

    0 ok, 1 error, 2 usage, 3 mismatch or conflict, 4 busy, 5 timed out, 6 preflight refused.
    """
    tokens = sys.argv[1:] if tokens is None else tokens
    try:
        code = app(
            tokens,
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
    except RegistryError as error:
        _report_error(error.code, error.message, error.next_step, as_json="--json" in tokens)
        return next((code for kind, code in _EXIT if isinstance(error, kind)), ERROR)
    except cyclopts.CycloptsError as error:
        _report_error("usage", str(error), "registry-backend --help", as_json="--json" in tokens)
        return USAGE
    except OSError as error:
        what = f"{error.strerror}: {error.filename}" if error.filename else str(error)
        _report_error("os_error", what, "", as_json="--json" in tokens)
        return ERROR
    return code if isinstance(code, int) else OK


def _report_error(code: str, message: str, next_step: str, *, as_json: bool) -> None:
    if as_json:
        _print_json({"error": {"code": code, "message": message, "next": next_step}})
    else:
        sys.stderr.write(f"registry-backend: {message}\n")
        if next_step:
            sys.stderr.write(f"  next: {next_step}\n")


def _print_json(value: dict[str, Any]) -> None:
    import orjson

    sys.stdout.write(orjson.dumps({"version": 1, **value}).decode() + "\n")


@app.default
def summary(*, workspace: Workspace = None, json: Json = False) -> int:
    """Show what is true here: phase, true counts beside the claimed ones, who is silent."""
    return status(workspace=workspace, json=json)


@app.command
def status(*, workspace: Workspace = None, json: Json = False) -> int:
    """Show phase, true counts beside the claimed ones, and who is silent; writes nothing.

    Example: registry-backend status --workspace .agent-workspace --json
    """
    from backends.admin.status import collect
    from registry_api import load_settings, open_store

    settings = load_settings(workspace)
    with closing(open_store(settings, read_only=True)) as store:
        found = collect(store, settings)
    return _answer(found, _show_status, as_json=json)


def _show_status(found: dict[str, Any]) -> None:
    from rich.console import Console

    from backends.admin.show import show_status

    show_status(found, Console(highlight=False))


@app.command
def plugins(*, json: Json = False) -> int:
    """List the plugins, the stores they bring, and why one is broken.

    Example: registry-backend plugins
    """
    from registry_api import load_plugins

    found = [
        {
            "name": p.name,
            "distribution": p.distribution,
            "version": p.version,
            "stores": list(p.schemes),
            "broken": p.broken or None,
        }
        for p in load_plugins().loaded
    ]
    return _answer({"plugins": found}, _show_plugins, as_json=json)


def _show_plugins(found: dict[str, Any]) -> None:
    for p in found["plugins"]:
        what = f"BROKEN: {p['broken']}" if p["broken"] else ", ".join(p["stores"])
        sys.stdout.write(f"{p['name']:<20} {p['distribution']} {p['version']}  {what}\n")


def _answer(
    found: dict[str, Any], show: Callable[[dict[str, Any]], None], *, as_json: bool, code: int = OK
) -> int:
    if as_json:
        _print_json(found)
    else:
        show(found)
    return code


def run() -> None:
    """The console script."""
    sys.exit(main())
