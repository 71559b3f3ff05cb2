"""``registry-backend metrics``."""

from __future__ import annotations

import sys

from backends.admin.app import Json, Workspace, answer, app


def _said(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@app.command
def metrics(*, workspace: Workspace = None, json: Json = False) -> int:
    """Print the counters of the live processes in Prometheus text format. Changes nothing.

    Example: registry-backend metrics > /var/lib/node_exporter/registry.prom
    """
    from registry_api import load_settings
    from registry_api.diagnostics import metrics as lines

    found = {"metrics": list(lines(load_settings(workspace)))}
    return answer(found, lambda f: _said("\n".join(f["metrics"])), as_json=json)
