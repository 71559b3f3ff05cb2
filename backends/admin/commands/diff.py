"""``registry-backend diff``."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from backends.admin.app import MISMATCH, OK, Json, Workspace, answer, app
from backends.admin.registry import is_unrecorded, open_reader, recorded_move


@app.command
def diff(task: str, *, workspace: Workspace = None, json: Json = False) -> int:
    """Compare one task in both stores of a move; exit 3 on a difference.

    Example: registry-backend diff TASK-20260104-221530-1a2b3c4d
    """
    from dataclasses import asdict

    from backends.admin.show_move import show_verify
    from registry_api import load_settings, open_migration

    settings = load_settings(workspace)
    if is_unrecorded(settings):
        with closing(open_reader(settings)) as store:
            store.load(task)
        found: list[Any] = []
    else:
        with closing(open_migration(settings)) as migration:
            found = [asdict(m) for m in migration.diff(task)]
    recorded = recorded_move(settings)
    compared = recorded is not None and bool(recorded.phase)
    value = {"tasks": 1, "records": None, "mismatches": found, "compared": compared}
    return answer(value, show_verify, as_json=json, code=MISMATCH if found else OK)
