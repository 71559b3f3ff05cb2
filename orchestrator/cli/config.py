"""``config``: the configuration of an MCP client."""

from __future__ import annotations

import json
from typing import Annotated

from cyclopts import Parameter

from orchestrator.cli.app import Workspace, app
from registry_api import load_settings
from registry_api.errors import UsageError
from registry_api.workspace.server_cli import OK

__all__: list[str] = []


@app.command
def config(
    *,
    workspace: Workspace = None,
    http: Annotated[str | None, Parameter(help="the URL that serve --http printed")] = None,
) -> int:
    """Print the configuration of an MCP client for this workspace, as JSON.

    Most clients can read it unchanged, e.g. as .mcp.json. With --http URL it contains the URL and
    the token of a running server. Example: registry-orchestrator config > .mcp.json
    """
    from orchestrator.agents.client_config import SERVER, Endpoint, client_config
    from registry_api.workspace import operator_token

    if http is not None and not http.startswith(("http://", "https://")):
        raise UsageError(
            f"--http {http[:80]} is not a URL", next_step="E.g. http://127.0.0.1:8766/mcp"
        )
    place = load_settings(workspace).workspace
    endpoint = Endpoint(url=http, token=operator_token(place)) if http else None
    print(json.dumps({"mcpServers": {SERVER: client_config(place, endpoint)}}, indent=2))
    return OK
