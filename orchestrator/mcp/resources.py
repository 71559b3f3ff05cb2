"""The resources of the MCP server: tasks, their reports and findings, and the limits."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError
from pydantic import BaseModel

from orchestrator.mcp.permissions import check_conductor, check_task
from orchestrator.mcp.tools import Tools
from orchestrator.queries.reading import cut
from registry_api import Kind, ProgressEntry, RecordQuery, RegistryStore
from registry_api.errors import RegistryError, TaskNotFound

if TYPE_CHECKING:
    from orchestrator.mcp.server import Server

__all__ = ["add_resources"]

_MOST_REPORTS = 50
Question = Callable[[], BaseModel | Sequence[BaseModel | str]]


def add_resources(server: Server, tools: Tools, limiter: anyio.CapacityLimiter) -> None:
    """Add the resources; a conductor may read all of them, an agent those of its own task."""
    options, store = server.service.options, server.service.store

    async def read(task_id: str | None, question: Question) -> str:
        def checked() -> BaseModel | Sequence[BaseModel | str]:
            if task_id is None:
                check_conductor(server.caller(), "the list of tasks")
            else:
                check_task(server.caller(), task_id)
            return question()

        try:
            answer = await anyio.to_thread.run_sync(checked, limiter=limiter)
        except TaskNotFound as error:
            raise ResourceNotFoundError(str(error)) from error
        except RegistryError as error:
            raise ResourceError(f"{error.code}: {error}") from error
        if isinstance(answer, BaseModel):
            return answer.model_dump_json(exclude_defaults=True)
        return "\n".join(
            line if isinstance(line, str) else line.model_dump_json(exclude_defaults=True)
            for line in answer
        )

    @server.resource("tasks://list", mime_type="application/json")
    async def tasks_list() -> str:
        """The newest tasks."""
        return await read(None, tools.list_tasks)

    @server.resource("orchestrator://limits", mime_type="application/json")
    async def limits() -> str:
        """The kinds of agents, and the default limits of tasks."""
        shown = options.model_dump(mode="json", exclude={"kinds", "launcher"})
        return json.dumps({"kinds": sorted(options.all_kinds), **shown})

    @server.resource("task://{task_id}", mime_type="application/json")
    async def task(task_id: str) -> str:
        """The current state of a task."""
        return await read(task_id, lambda: tools.get_task_status(task_id))

    @server.resource("task://{task_id}/progress", mime_type="text/plain")
    async def task_progress(task_id: str) -> str:
        """The newest reports of a task's agents, newest first, one line each."""
        return await read(task_id, lambda: _reports(store, task_id))

    @server.resource("task://{task_id}/findings", mime_type="application/json")
    async def task_findings(task_id: str) -> str:
        """The newest findings of a task."""
        return await read(task_id, lambda: tools.get_task_findings(task_id))


def _reports(store: RegistryStore, task_id: str) -> list[str]:
    store.load(task_id)
    query = RecordQuery(task_id=task_id, newest_first=True)
    page = store.list_records(Kind.PROGRESS, query, limit=_MOST_REPORTS)
    return [
        f"{e.timestamp.isoformat()} {e.agent_id} {e.status} {e.progress}% {cut(e.message)}"
        for e in page.items
        if isinstance(e, ProgressEntry)
    ]
