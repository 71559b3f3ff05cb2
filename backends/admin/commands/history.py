"""``registry-backend history``."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from backends.admin.app import Json, Workspace, answer, app
from backends.admin.registry import is_unrecorded, open_reader


@app.command
def history(*, workspace: Workspace = None, json: Json = False) -> int:
    """List the switches made so far, oldest first.

    Example: registry-backend history
    """
    from backends.admin.show_move import show_history
    from registry_api import load_settings, open_migration

    settings = load_settings(workspace)
    found: list[dict[str, Any]] = []
    if is_unrecorded(settings):
        open_reader(settings).close()  # raises if there is no registry at all
    else:
        with closing(open_migration(settings)) as migration:
            found = list(migration.history())
    return answer({"switches": found}, show_history, as_json=json)
