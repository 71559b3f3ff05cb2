"""``logs``: an agent's output, and what is added to it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from orchestrator.cli.app import AgentId, OfTask, Workspace, app, opened
from registry_api.errors import UsageError
from registry_api.workspace import safe_paths as inside
from registry_api.workspace.server_cli import OK

if TYPE_CHECKING:
    from registry_api import Agent

__all__ = ["logs"]

_POLL = 0.2
_TAIL = 1_048_576  # bytes in which the last lines are looked for


@app.command
def logs(
    agent_id: AgentId,
    *,
    workspace: Workspace = None,
    task: OfTask = None,
    lines: Annotated[int, Parameter(name=["--lines", "-n"], help="the last N; 0: none")] = 50,
    follow: Annotated[
        bool, Parameter(name=["--follow", "-f"], negative="", help="until the agent has ended")
    ] = False,
    errors: Annotated[bool, Parameter(negative="", help="its standard error instead")] = False,
) -> int:
    """Print an agent's output, also from the archive.

    Example: registry-orchestrator logs builder-131415-95ffd1 -f
    """
    if lines < 0:
        raise UsageError("--lines takes 0 or more", next_step="E.g. --lines 100")
    with opened(workspace) as service:
        from orchestrator.agents.agent_files import errors_name, log_name
        from orchestrator.queries.agent_rows import find_agent
        from registry_api.records import ACTIVE_AGENT

        found = find_agent(service, agent_id, task)
        place = service.settings.workspace

        def is_over() -> bool:
            now = service.find_agent(found.task_id, agent_id)
            return now is None or now.status not in ACTIVE_AGENT

        name = errors_name(agent_id) if errors else log_name(agent_id)
        data, end = _last_lines(place, found, name, lines)
        _write(data)
        if follow:
            for added in _added(place, found, name, end, is_over):
                _write(added)
    return OK


def _last_lines(place: Path, agent: Agent, name: str, lines: int) -> tuple[bytes, int]:
    """Return the last lines of a log and its size."""
    data, _, size = inside.read_log(place, agent.task_id, name, limit=_TAIL)
    kept = data.splitlines(keepends=True)[-lines:] if lines else []
    return b"".join(kept), size


def _added(
    place: Path, agent: Agent, name: str, end: int, is_over: Callable[[], bool]
) -> Iterator[bytes]:
    """Yield what is added to a log, until the agent has ended and everything was yielded."""
    over = False
    while True:
        found = b""
        with suppress(FileNotFoundError):
            fd = inside.open_log(place, agent.task_id, name)
            with os.fdopen(fd, "rb") as file:
                file.seek(end)
                found = file.read(_TAIL)
        end += len(found)
        if found:
            yield found
        elif over:
            return
        else:
            over = is_over()
            time.sleep(_POLL)


def _write(data: bytes) -> None:
    """Write to standard output; to a terminal without what it would obey."""
    if sys.stdout.isatty():
        text = data.decode("utf-8", "replace")
        sys.stdout.write("".join(c if c.isprintable() or c in "\n\t" else "·" for c in text))
    else:
        sys.stdout.buffer.write(data)
    sys.stdout.flush()
