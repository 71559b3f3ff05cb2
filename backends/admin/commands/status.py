"""``registry-backend status``, also without a command."""

from __future__ import annotations

import shlex
from contextlib import closing
from typing import Any

from backends.admin.app import Json, Workspace, answer, app


@app.default
def summary(*, workspace: Workspace = None, json: Json = False) -> int:
    """Show the status: migration phase, actual and stored counts, silent agents."""
    return status(workspace=workspace, json=json)


@app.command
def status(*, workspace: Workspace = None, json: Json = False) -> int:
    """Show the migration phase, actual and stored counts, and silent agents.

    "Stored" are the counters in legacy files. If no move is recorded, this writes nothing;
    otherwise it absorbs what legacy programs wrote.

    Example: registry-backend status --workspace .agent-workspace --json
    """
    from backends.admin.status import collect
    from registry_api import load_settings, open_store

    settings = load_settings(workspace)
    with closing(open_store(settings, read_only=True)) as store:
        found = collect(store, settings)
    if workspace is not None and found["next"] and not json:
        found["next"] += f" --workspace {shlex.quote(str(workspace))}"
    return answer(found, _show_status, as_json=json)


def _show_status(found: dict[str, Any]) -> None:
    from rich.console import Console

    from backends.admin.show_status import show_status

    show_status(found, Console(highlight=False, emoji=False))
