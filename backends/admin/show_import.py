"""Text output of ``registry-backend import``."""

from __future__ import annotations

import sys
from typing import Any

from registry_api.workspace.server_cli import printable

__all__ = ["show_import"]

_MOST = 20  # fields of a task that are listed


def _written(text: str) -> None:
    """Write a line; what another program wrote cannot steer the terminal or begin a line."""
    sys.stdout.write(printable(text) + "\n")


def show_import(found: dict[str, Any]) -> None:
    """Print what was imported, a line a task, and the fields that change."""
    out = _written
    for task in found["tasks"]:
        if "error" in task:
            out(f"{task['task_id']}: not imported: {task['error']}")
            continue
        what = "new" if task["created"] else "changed"
        if not task["created"] and not task["put"] + task["appended"] + len(task["changes"]):
            what = "nothing new"
        out(f"{task['task_id']}: {what}, {task['put']} records, {task['appended']} entries")
        for change in task["changes"][:_MOST]:
            before, after = change["before"] or "nothing", change["after"] or "nothing"
            out(f"  {change['record']} {change['field']}: {before} -> {after}")
        if len(task["changes"]) > _MOST:
            out(f"  and {len(task['changes']) - _MOST} more fields: --json lists all")
        for note in task["notes"]:
            out(f"  note: {note}")
    done = [task for task in found["tasks"] if "error" not in task]
    verb = "would be imported" if found["dry_run"] else "imported"
    out(
        f"{len(done)} of {len(found['tasks'])} tasks {verb}: "
        f"{sum(t['put'] for t in done)} records, {sum(t['appended'] for t in done)} entries of "
        f"histories. Times without a zone were read as {found['zone'] or 'local time'}."
    )
