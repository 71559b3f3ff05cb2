"""``tail``: what happens in the registry, as it happens."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from orchestrator.cli.app import Json, Workspace, app, opened, print_json
from registry_api.workspace.server_cli import OK

if TYPE_CHECKING:
    from registry_api import Change, RegistryStore

__all__ = ["tail"]


@app.command
def tail(
    *,
    workspace: Workspace = None,
    task: Annotated[str | None, Parameter(help="only of this task")] = None,
    history: Annotated[
        bool, Parameter(negative="", help="what the feed still holds, and then end")
    ] = False,
    json: Json = False,
) -> int:
    """Print each change as it is recorded, one line a record, until Ctrl-C.

    With --json each line is an object. Example: registry-orchestrator tail
    """
    from orchestrator.cli.text import plain
    from orchestrator.rules.events import events_of
    from registry_api.client import end_of_feed, follow

    with opened(workspace) as service:
        store = service.store
        if task is not None:
            store.load(task)
        if history:
            changes = _history(store, task)
        else:
            changes = follow(store, end_of_feed(store), task_id=task)
        for change in changes:
            for event in events_of(change.changeset):
                if json:
                    print_json({**dataclasses.asdict(event), "at": event.at.isoformat()})
                    sys.stdout.flush()
                else:
                    at = f"{event.at.astimezone():%H:%M:%S}"
                    print(f"{at} {event.task_id} {plain(event.what)}", flush=True)
    return OK


def _history(store: RegistryStore, task_id: str | None) -> Iterator[Change]:
    after = None
    while changes := store.changes(after, task_id=task_id):
        yield from changes
        after = changes[-1].cursor
