"""``registry-backend recover``."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

from cyclopts import Parameter

from backends.admin.app import Json, Workspace, answer, app
from backends.admin.registry import is_unrecorded, refuse_no_registry


@app.command
def recover(
    *,
    workspace: Workspace = None,
    json: Json = False,
    dry_run: Annotated[bool, Parameter(negative="", help="only print what would be done")] = False,
    take_over: Annotated[
        bool, Parameter(negative="", help="make this workspace the owner of its move's stores")
    ] = False,
) -> int:
    """Finish interrupted switches and writes now; otherwise the next operation does.

    With --take-over a copy of a workspace may use the stores outside it that the original used, and
    a store that was restored from a backup gets its role in the move again. First make sure that
    the original is no longer used.

    Example: registry-backend recover --dry-run
    """
    from backends.admin.show_move import show_recovered
    from registry_api import load_settings, open_migration, open_store

    settings = load_settings(workspace)
    refuse_no_registry(settings)
    notes: tuple[str, ...] = ()
    if is_unrecorded(settings):
        with closing(open_store(settings, read_only=dry_run)) as store:
            store.counts()  # any operation finishes interrupted writes
    else:
        with closing(open_migration(settings)) as migration:
            if take_over and not dry_run:
                notes = migration.take_over()
            notes += migration.recover(dry_run=dry_run)
    return answer({"recovered": list(notes), "dry_run": dry_run}, show_recovered, as_json=json)
