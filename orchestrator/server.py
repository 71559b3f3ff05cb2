"""The MCP server: the tools, resources and prompts of one workspace, for any transport."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version
from typing import Any

import anyio
import anyio.to_thread
from mcp.server import MCPServer
from mcp.server.auth.provider import TokenVerifier
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError, ToolError
from mcp.types import CallToolResult, InputRequiredResult, TextContent, Tool
from pydantic import BaseModel, ValidationError

from orchestrator import prompts
from orchestrator.reading import cut
from orchestrator.service import Orchestrator
from orchestrator.tools import Tools
from registry_api import Kind, ProgressEntry, RecordQuery
from registry_api.errors import RegistryError, TaskNotFound

__all__ = ["build_server"]

log = logging.getLogger("registry_backend")
NAME = "registry-orchestrator"
_WORKERS = 16  # calls at work at once; the others wait their turn
_MOST_LINES = 50
_CLOSED = {"additionalProperties": False}


class Server(MCPServer[Any]):
    """Refuses arguments that do not fit as it refuses everything else: with a code."""

    async def list_tools(self) -> list[Tool]:
        """See MCPServer.list_tools; without the titles, which repeat the names."""
        tools = await super().list_tools()
        return [
            tool.model_copy(
                update={
                    "input_schema": _untitled(tool.input_schema) | _CLOSED,
                    "output_schema": _untitled(tool.output_schema),
                }
            )
            for tool in tools
        ]

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """See MCPServer.call_tool; an argument that no tool has is refused, not left out."""
        known = self._tool_input_schema(name)
        unknown = sorted(arguments.keys() - known["properties"].keys()) if known else []
        if unknown:
            takes = ", ".join(known["properties"]) if known else ""
            said = f"{name} has no argument {', '.join(unknown)[:200]}"
            return failed("invalid_input", said, f"It takes {takes}")
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            cause = error.__cause__
        if isinstance(cause, ValidationError):
            faults = cause.errors(include_url=False, include_input=False)
            said = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in faults[:5])
            return failed("invalid_input", said, "Correct the arguments named")
        if cause is None:
            return failed("unknown_tool", f"no tool is called {name[:80]!r}", "List the tools")
        log.error("tool %s", name, exc_info=cause)
        return failed("internal", f"{name} failed", "Look into the server's log; report it")


def _untitled(schema: Any) -> Any:
    """Drop what says nothing from a JSON schema: whoever reads it pays for each word."""
    if isinstance(schema, list):
        return [_untitled(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    # Below "properties" a key is a name, and one of them may well be "title".
    return {
        key: {name: _untitled(part) for name, part in value.items()}
        if key in {"properties", "$defs"}
        else _untitled(value)
        for key, value in schema.items()
        if key != "title" or not isinstance(value, str)
    }


def failed(code: str, message: str, next_step: str, *, retryable: bool = False) -> CallToolResult:
    """Return a tool error: ``{code, message, next_step, retryable}``, and the same as a line."""
    return CallToolResult(
        is_error=True,
        content=[TextContent(type="text", text=f"{code}: {message}. {next_step}")],
        structured_content={
            "code": code,
            "message": message,
            "next_step": next_step,
            "retryable": retryable,
        },
    )


def build_server(
    service: Orchestrator,
    *,
    auth: AuthSettings | None = None,
    token_verifier: TokenVerifier | None = None,
) -> Server:
    """Return the server of a workspace; it is run, and the store closed, by the caller.

    ``auth`` and ``token_verifier`` are for HTTP.
    """
    server = Server(
        NAME,
        instructions="Conduct coding agents through tasks of reviewed phases. Begin with "
        "create_task or list_tasks; every answer names the next step. Prompts: conductor, worker, "
        "reviewer.",
        log_level="WARNING",
        version=version("registry-backend"),
        auth=auth,
        token_verifier=token_verifier,
    )
    limiter = anyio.CapacityLimiter(_WORKERS)
    tools = Tools(service)
    for name in vars(Tools):
        if not name.startswith("_"):
            tool = getattr(tools, name)
            server.add_tool(_answering(tool, limiter), description=inspect.getdoc(tool))
    _add_resources(server, service, tools, limiter)
    _add_prompts(server)
    return server


def _answering(
    tool: Callable[..., BaseModel], limiter: anyio.CapacityLimiter
) -> Callable[..., Awaitable[CallToolResult]]:
    """Return the tool awaited: run on a worker thread, never abandoned half-way."""

    @functools.wraps(tool)
    async def call(**arguments: Any) -> CallToolResult:
        try:
            answer = await anyio.to_thread.run_sync(
                functools.partial(tool, **arguments), limiter=limiter
            )
        except RegistryError as error:
            return failed(error.code, error.message, error.next_step, retryable=error.retryable)
        return CallToolResult(
            content=[TextContent(type="text", text=answer.model_dump_json(exclude_defaults=True))],
            structured_content=answer.model_dump(mode="json", exclude_defaults=True),
        )

    return call


def _add_resources(
    server: Server, service: Orchestrator, tools: Tools, limiter: anyio.CapacityLimiter
) -> None:
    async def read(question: Callable[[], BaseModel | Sequence[BaseModel | str]]) -> str:
        try:
            answer = await anyio.to_thread.run_sync(question, limiter=limiter)
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
        return await read(tools.list_tasks)

    @server.resource("task://{task_id}", mime_type="application/json")
    async def task(task_id: str) -> str:
        """A task as it stands."""
        return await read(lambda: tools.get_task_status(task_id))

    @server.resource("task://{task_id}/progress", mime_type="text/plain")
    async def task_progress(task_id: str) -> str:
        """The newest reports of a task's agents, newest first, a line each."""
        return await read(lambda: _reports(service, task_id))

    @server.resource("task://{task_id}/findings", mime_type="application/json")
    async def task_findings(task_id: str) -> str:
        """The newest findings of a task."""
        return await read(lambda: tools.get_task_findings(task_id))


def _reports(service: Orchestrator, task_id: str) -> list[str]:
    service.store.load(task_id)
    page = service.store.list_records(
        Kind.PROGRESS, RecordQuery(task_id=task_id, newest_first=True), limit=_MOST_LINES
    )
    return [
        f"{e.timestamp.isoformat()} {e.agent_id} {e.status} {e.progress}% {cut(e.message)}"
        for e in page.items
        if isinstance(e, ProgressEntry)
    ]


def _add_prompts(server: Server) -> None:
    @server.prompt()
    def conductor(goal: str = "") -> str:
        """How to conduct a task from its creation to its end."""
        return prompts.conductor(goal)

    @server.prompt()
    def worker(task_id: str, agent_id: str) -> str:
        """How an agent works and reports."""
        return prompts.worker(task_id, agent_id)

    @server.prompt()
    def reviewer(task_id: str, agent_id: str, review_id: str) -> str:
        """How a reviewer comes to its verdict."""
        return prompts.reviewer(task_id, agent_id, review_id, None)
