"""``handover``: what a phase has left for the next, as a document."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from orchestrator.cli.app import Workspace, app, opened
from registry_api.workspace.server_cli import OK

__all__ = ["handover"]


@app.command
def handover(
    task_id: str,
    *,
    workspace: Workspace = None,
    phase: Annotated[int | None, Parameter(help="its index; default: the newest handover")] = None,
) -> int:
    """Print a phase's handover as Markdown, with its data in a comment at the end.

    Example: registry-orchestrator handover TASK-20260104-221530-1a2b3c4d > handover.md
    """
    with opened(workspace) as service:
        from orchestrator.cli.text import plain
        from orchestrator.queries.reading import Reading
        from orchestrator.rules.handover_document import handover_document

        snapshot = service.store.load(task_id)
        found = Reading(service).newest_handover(snapshot, phase)
        text = handover_document(snapshot, found)
    print("\n".join(map(plain, text.split("\n"))), end="")
    return OK
