"""``registry-backend compact``."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

from cyclopts import Parameter

from backends.admin.app import Json, Workspace, answer, app
from backends.admin.registry import refuse_no_registry


@app.command
def compact(
    *,
    workspace: Workspace = None,
    json: Json = False,
    dry_run: Annotated[bool, Parameter(negative="", help="only print what would be done")] = False,
) -> int:
    """Drop the lines of the feed that are older than 30 days, while writers continue.

    Every commit drops a few old lines of its own task; this drops those of tasks that are no longer
    written. Tasks, progress and findings are kept. Run it once a day in a registry that grows.

    Example: registry-backend compact --dry-run
    """
    from backends.admin.show_move import progress_shown, show_compacted
    from registry_api import load_settings, open_store
    from registry_api.client import compact as compact_feed

    settings = load_settings(workspace)
    refuse_no_registry(settings)
    with closing(open_store(settings)) as store, progress_shown("lines") as shown:
        done = compact_feed(
            store,
            dry_run=dry_run,
            progress=shown and (lambda number, newest: shown("compact", number, newest)),
        )
        found = {"lines": done.lines, "store": store.info.name, "dry_run": dry_run}
    return answer(found, show_compacted, as_json=json)
