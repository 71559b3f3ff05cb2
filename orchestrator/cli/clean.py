"""``clean``: archive and remove logs of agents that have ended."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from cyclopts import Parameter

from orchestrator.cli.app import Json, Workspace, app, opened, print_json
from registry_api.workspace.server_cli import OK

__all__ = ["clean"]


@app.command
def clean(
    *,
    workspace: Workspace = None,
    dry_run: Annotated[bool, Parameter(negative="", help="only say what would be done")] = False,
    json: Json = False,
) -> int:
    """Move the logs of agents that ended long ago to their task's archive, and remove old ones.

    The health daemon of a server does this at its start and then once an hour. Archived logs are
    shown as before; what is removed, and when, are settings (archive_logs_after, remove_logs_after,
    logs_max_bytes).

    Example: registry-orchestrator clean --dry-run
    """
    with opened(workspace) as service:
        from orchestrator.log_retention import apply_retention

        done = apply_retention(service, dry_run=dry_run)
    if json:
        print_json({"dry_run": dry_run, **dataclasses.asdict(done)})
        return OK
    would = "would be " if dry_run else ""
    for what, files in (("archived", done.archived), ("removed", done.removed)):
        for name in files:
            print(f"{would}{what}: {name}")
    print(
        f"{len(done.archived)} file(s) {would}archived, {len(done.removed)} removed, "
        f"{done.freed:,} bytes"
    )
    if done.skipped:
        print(f"{done.skipped} file(s) could not be moved or removed")
    return OK
