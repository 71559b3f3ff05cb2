"""The command-line application and its exit codes; commands register here."""

from __future__ import annotations

from importlib.metadata import version

from cyclopts import App

from registry_api.workspace.server_cli import Json, Workspace, answer, print_json

__all__ = ["Json", "Workspace", "answer", "app", "print_json"]

OK, ERROR, USAGE, MISMATCH, BUSY, TIMED_OUT, REFUSED = range(7)

app = App(
    name="registry-backend",
    help="Show the status of an agent registry, and move it from one store to another.\n\n"
    "Example: registry-backend --workspace .agent-workspace",
    version=lambda: version("registry-backend"),
    version_flags=["--version"],
)
