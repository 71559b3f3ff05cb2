"""``registry-backend complete``."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from backends.admin.app import Json, Workspace, answer, app


@app.command
def complete(*, workspace: Workspace = None, json: Json = False) -> int:
    """End a move that is in phase 4: its target is the workspace's store from then on.

    It cannot be rolled back afterwards; a next move can begin, e.g. back to the first store.

    Example: registry-backend complete && registry-backend switch 1 --to sqlite
    """
    from backends.admin.commands.switch import user
    from registry_api import load_settings, open_migration

    with closing(open_migration(load_settings(workspace))) as migration:
        record = migration.complete(actor=user())
    done = record.completed[-1]
    found = {
        "store": record.source,
        "epoch": record.epoch,
        "source": done.source,
        "target": done.target,
        "archive": done.archive,
    }
    return answer(found, _show, as_json=json)


def _show(found: dict[str, Any]) -> None:
    import sys

    sys.stdout.write(
        f"The move {found['source']} -> {found['target']} is complete: {found['store']} is the "
        "store of this workspace.\n"
    )
