"""``registry-backend reconcile``."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

from cyclopts import Parameter

from backends.admin.app import Json, Workspace, answer, app
from backends.admin.registry import recorded_move, refuse_no_registry


@app.command
def reconcile(
    *,
    workspace: Workspace = None,
    json: Json = False,
    dry_run: Annotated[bool, Parameter(negative="", help="only print what would be done")] = False,
) -> int:
    """Absorb foreign edits, and bring the logs and the target of a move up to date.

    A foreign edit is a change to a registry's files by a program that does not use this library.

    Example: registry-backend reconcile --dry-run
    """
    from backends.admin.show_move import progress_shown, show_caught_up
    from registry_api import Logged, find_capability, load_settings, open_migration, open_store
    from registry_api.workspace import has_legacy_registry

    settings = load_settings(workspace)
    refuse_no_registry(settings)
    found = {"healed": 0, "taken": 0, "written": 0, "dry_run": dry_run}
    if recorded_move(settings) is None and not has_legacy_registry(settings.workspace):
        with closing(open_store(settings)) as store:
            logs = find_capability(store, Logged)
            if logs is not None:
                found |= logs.reconcile(dry_run=dry_run).to_dict()
    else:  # not open_store: it catches up itself, so nothing would be left to report
        with closing(open_migration(settings)) as migration, progress_shown() as shown:
            found |= migration.reconcile(dry_run=dry_run, progress=shown).to_dict()
    return answer(found, show_caught_up, as_json=json)
