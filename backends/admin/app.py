"""The command-line application: its options, exit codes and output; commands register here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Any

from cyclopts import App, Parameter

from registry_api.workspace.server_cli import Workspace

__all__ = ["Json", "Workspace", "answer", "app", "print_json"]

OK, ERROR, USAGE, MISMATCH, BUSY, TIMED_OUT, REFUSED = range(7)

Json = Annotated[
    bool, Parameter(negative="", help="print one JSON object and nothing else on stdout")
]

app = App(
    name="registry-backend",
    help="Show the status of an agent registry, and move it from one store to another.\n\n"
    "Example: registry-backend --workspace .agent-workspace",
    version=lambda: version("registry-backend"),
    version_flags=["--version"],
)


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
