"""How a client reaches the orchestrator: the configurations of conductors' and agents' clients."""

from __future__ import annotations

import json
import os
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.agents import callers
from orchestrator.agents.launchers.process_marks import LAUNCHER, TAG
from registry_api.workspace import STATE_DIR, make_state_folder, public, replace_file

__all__ = ["OWN", "SERVER", "Endpoint", "client_config", "public_settings", "reached_by"]

# -P: a folder of that name in the working directory must not be imported instead.
_MODULE = ("-P", "-m", "orchestrator")
SERVER = "orchestrator"  # the server's name in the configuration of agents
OWN = (
    *("REGISTRY_TASK_ID", "REGISTRY_AGENT_ID", "REGISTRY_INSTANCE", callers.SECRET),
    *("REGISTRY_ORCHESTRATOR_URL", "REGISTRY_ORCHESTRATOR_TOKEN"),
)
# What an agent's server needs from the agent's environment; many clients pass on nothing.
_PROOF = ("REGISTRY_TASK_ID", "REGISTRY_AGENT_ID", callers.SECRET)
_NOT_SETTINGS = {*OWN, "REGISTRY_WORKSPACE", TAG, LAUNCHER}


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """The address of a server over HTTP, for the agents that it deploys."""

    url: str
    token: str


def client_config(workspace: Path, endpoint: Endpoint | None) -> dict[str, object]:
    """Return an MCP client's configuration for a workspace, in the format of most clients."""
    if endpoint is None:
        args = [*_MODULE, "serve", "--workspace", str(workspace)]
        given = public_settings()
        return {"command": sys.executable, "args": args, **({"env": given} if given else {})}
    bearer = f"Bearer {endpoint.token}"
    return {"type": "http", "url": endpoint.url, "headers": {"Authorization": bearer}}


def reached_by(workspace: Path, endpoint: Endpoint | None, *, with_file: bool) -> dict[str, str]:
    """Return the placeholders of a kind's arguments by which an agent reaches the orchestrator.

    That is at its endpoint, or through a server that the agent's client starts on the workspace.
    ``with_file``: also write the client's configuration file; it holds no secret.
    """
    args = [*_MODULE, "serve", "--workspace", str(workspace), "--agent"]
    # One for each transport: servers over both may deploy agents of one workspace.
    name = "mcp.json" if endpoint is None else "mcp-http.json"
    config = workspace / STATE_DIR / name
    if with_file:
        if endpoint is not None:
            of_its_own = replace(endpoint, token=_reference("REGISTRY_ORCHESTRATOR_TOKEN"))
            server = client_config(workspace, of_its_own)
        else:
            env = public_settings() | {name: _reference(name) for name in _PROOF}
            server = {"command": sys.executable, "args": args, "env": env}
        text = json.dumps({"mcpServers": {SERVER: server}}, indent=2).encode()
        make_state_folder(config.parent)
        if not config.exists() or config.read_bytes() != text:
            replace_file(config, text, aside=config.with_name(f"mcp.{uuid.uuid4().hex}"))
    return {
        "mcp_config": str(config),
        "mcp_command": json.dumps(sys.executable),
        "mcp_args": json.dumps(args),
        "mcp_env": _inline_table(public_settings()),
        "mcp_env_vars": json.dumps(_PROOF),
    }


def public_settings() -> dict[str, str]:
    """Return the settings from this process's environment, for the server that an agent starts.

    Without them that server would use another store, and most clients pass on nothing of their
    environment. Values with credentials are left out, since the result is written to files and
    command lines: that server inherits them, or is refused with a message that says what to do,
    unless the URL names a passfile.
    """
    ours = ((k, v) for k, v in os.environ.items() if k.startswith("REGISTRY_"))
    return {k: v for k, v in sorted(ours) if k not in _NOT_SETTINGS and public(v) == v}


def _inline_table(values: Mapping[str, str]) -> str:
    """Return values as TOML in one line; a JSON string is a TOML string."""
    return "{" + ", ".join(f"{k} = {json.dumps(v)}" for k, v in values.items()) + "}"


def _reference(name: str) -> str:
    """Return a reference that an agent's client fills in from its environment.

    So no file contains a secret.
    """
    return f"${{{name}}}"
