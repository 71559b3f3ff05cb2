"""``service``: a unit file for systemd."""

from __future__ import annotations

import os
import sys
from typing import Annotated

from cyclopts import Parameter

from orchestrator.cli.app import Workspace, app
from registry_api import load_settings
from registry_api.workspace.server_cli import OK

__all__ = ["service"]

# KillMode: agents outlive the server, and the next one finds them.
_UNIT = """\
# Save as ~/.config/systemd/user/registry-orchestrator.service, then:
#   systemctl --user daemon-reload
#   systemctl --user enable --now registry-orchestrator
[Unit]
Description=Orchestrator of the agent registry in {described}

[Service]
{environment}
ExecStart={command}
Restart=on-failure
RestartSec=2
KillMode=process

[Install]
WantedBy=default.target
"""


@app.command
def service(
    *,
    workspace: Workspace = None,
    http: Annotated[str, Parameter(help="HOST:PORT to serve on")] = "127.0.0.1:8766",
) -> int:
    """Print a unit file with which systemd runs the server of a workspace for this user.

    It holds this shell's PATH and settings, but for passwords.

    Example: registry-orchestrator service > ~/.config/systemd/user/registry-orchestrator.service
    """
    place = str(load_settings(workspace).workspace)
    command = [sys.executable, "-P", "-m", "orchestrator", "serve", "--workspace", place]
    words = " ".join(map(_quoted, [*command, "--http", http]))
    from orchestrator.agents.client_config import public_settings

    # A server under systemd has none of this shell's settings, and another PATH.
    variables = {**public_settings(), "PATH": os.environ.get("PATH", os.defpath)}
    lines = (f"Environment={_quoted(f'{name}={value}')}" for name, value in variables.items())
    environment = "\n".join(lines)
    print(_UNIT.format(described=_escaped(place), environment=environment, command=words), end="")
    return OK


def _quoted(word: str) -> str:
    """Return a word of a command line as systemd reads it (systemd.service, COMMAND LINES)."""
    inside = _escaped(word).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{inside}"'


def _escaped(text: str) -> str:
    return text.replace("%", "%%").replace("\n", "\\n")
