"""The MCP server: the tools, resources and prompts of one workspace, for any transport."""

from __future__ import annotations

import functools
import inspect
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import anyio
import anyio.to_thread
from mcp.server import MCPServer
from mcp.server.auth.provider import TokenVerifier
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.shared.exceptions import MCPError
from mcp.types import (
    INVALID_PARAMS,
    CallToolResult,
    GetPromptResult,
    InputRequiredResult,
    TextContent,
    Tool,
)
from pydantic import ValidationError

from orchestrator import prompts
from orchestrator.agents.callers import Caller, caller_of
from orchestrator.mcp.permissions import check_call
from orchestrator.mcp.resources import add_resources
from orchestrator.mcp.schemas import input_schema, output_schema
from orchestrator.mcp.tool_offers import Effect, Offer, offer_of
from orchestrator.mcp.tools import Tools
from orchestrator.mcp.waiting import Waiting
from orchestrator.queries.reading import cut
from orchestrator.service import Orchestrator
from registry_api.errors import RegistryError

__all__ = ["build_server"]

log = logging.getLogger("registry_backend")
NAME = "registry-orchestrator"
_WORKERS = 16  # calls that run at once; the others wait
_LONGEST_REFUSAL = 2000  # characters of a message
_LONGEST_ANSWER = 80_000  # characters: 20,000 tokens
_ASK_FOR_LESS = "Ask for less at once: a lower limit, fewer bytes or tokens, one phase or review"
_OTHERWISE = "Correct what the message names and call again; nothing was changed"
_INSTRUCTIONS = (
    "A conductor runs tasks with coding agents, in phases that are reviewed: begin with "
    "create_task or list_tasks. An agent works on one task: begin with get_task_context. Answers "
    "that change something name the next step. Prompts: conductor, worker, reviewer."
)


class Server(MCPServer[Any]):
    """An MCP server that shows each caller its own tools; refusals have a code and a next step."""

    def __init__(self, service: Orchestrator, caller: Callable[[], Caller], **options: Any) -> None:
        super().__init__(NAME, **options)
        self.service = service
        self.caller = caller
        self.offers: dict[str, Offer] = {}
        self._unregistered: dict[str, Callable[..., Any]] = {}

    def offer(self, method: Callable[..., Any], call: Callable[..., Any]) -> None:
        """Offer a method as a tool that runs ``call``."""
        offer = offer_of(method)
        assert offer is not None
        self.offers[method.__name__] = offer
        self._unregistered[method.__name__] = call

    def _register(self) -> None:
        """Register the tools when they are first needed.

        Their schemas take half as long as the imports, and a client that starts the server waits
        for its first answer.
        """
        while self._unregistered:
            name, call = self._unregistered.popitem()
            offer = self.offers[name]
            self.add_tool(
                call,
                title=offer.title,
                description=inspect.getdoc(call),
                annotations=offer.effect.value,
                structured_output=False,  # see list_tools
            )

    async def list_tools(self) -> list[Tool]:
        """See MCPServer.list_tools; only the caller's tools, with short schemas."""
        caller = await anyio.to_thread.run_sync(self.caller)
        self._register()
        tools = {tool.name: tool for tool in await super().list_tools()}
        return [
            tools[name].model_copy(
                update={
                    "input_schema": input_schema(tools[name].input_schema, self.service.options),
                    "output_schema": output_schema(offer.answer.model_json_schema()),
                }
            )
            for name, offer in self.offers.items()
            if caller.role in offer.roles
        ]

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """See MCPServer.call_tool; an unknown argument is refused, not ignored."""
        with self.service.observer.call(name if name in self.offers else "unknown") as tell:
            answer = await self._called(name, arguments, context)
            tell(outcome_of(answer))
            return answer

    async def _called(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None
    ) -> CallToolResult | InputRequiredResult:
        known = self._tool_input_schema(name)
        unknown = sorted(arguments.keys() - known["properties"].keys()) if known else []
        if unknown:
            takes = ", ".join(known["properties"]) if known else ""
            said = f"{name} has no argument {', '.join(unknown)[:200]}"
            return failed("invalid_input", said, f"Its arguments are {takes}")
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            cause = error.__cause__
        if isinstance(cause, RegistryError):
            return _refused(cause)
        if isinstance(cause, ValidationError):
            faults = cause.errors(include_url=False, include_input=False)
            said = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in faults[:5])
            return failed("invalid_input", said, "Correct the named arguments")
        if cause is None:
            return failed("unknown_tool", f"no tool is called {name[:80]!r}", "List the tools")
        log.error("tool %s", name, exc_info=cause)
        return failed("internal", f"{name} failed", "Read the server's log and report this error")

    def _tool_input_schema(self, name: str) -> dict[str, Any] | None:
        self._register()
        return super()._tool_input_schema(name)

    async def get_prompt(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        context: Context[Any, Any] | None = None,
    ) -> GetPromptResult | InputRequiredResult:
        """See MCPServer.get_prompt; wrong arguments are the caller's error, not the server's."""
        prompt = next((p for p in await self.list_prompts() if p.name == name), None)
        if prompt is None:
            raise MCPError(INVALID_PARAMS, f"no prompt is called {name[:80]!r}; list the prompts")
        takes = {a.name: bool(a.required) for a in prompt.arguments or []}
        given = arguments or {}
        wrong = [f"it has no argument {n[:80]!r}" for n in given if n not in takes]
        wrong += [f"it needs {n}" for n, needed in takes.items() if needed and n not in given]
        wrong += [f"{n} must be a string" for n, v in given.items() if not isinstance(v, str)]
        if wrong:
            raise MCPError(INVALID_PARAMS, f"prompt {name}: {'; '.join(wrong[:5])}")
        return await super().get_prompt(name, arguments, context)


def failed(code: str, message: str, next_step: str, *, retryable: bool = False) -> CallToolResult:
    """Return a tool error: its text is the JSON of ``{code, message, next_step, retryable}``.

    It has no structured content: that would have to fit the tool's output schema, and clients
    that check it would hide the refusal from the caller.
    """
    refusal = {
        "code": code,
        "message": cut(message, _LONGEST_REFUSAL),
        "next_step": next_step or _OTHERWISE,
        "retryable": retryable,
    }
    text = json.dumps(refusal, ensure_ascii=False)
    return CallToolResult(is_error=True, content=[TextContent(type="text", text=text)])


def outcome_of(answer: CallToolResult | InputRequiredResult) -> str:
    """Return ``ok``, ``asked`` if the user is asked first, or the code of a refusal."""
    if not isinstance(answer, CallToolResult):
        return "asked"
    if not answer.is_error:
        return "ok"
    first = answer.content[0] if answer.content else None
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(getattr(first, "text", ""))["code"])
    return "failed"


def _refused(error: RegistryError) -> CallToolResult:
    return failed(error.code, error.message, error.next_step, retryable=error.retryable)


def build_server(
    service: Orchestrator,
    *,
    caller: Callable[[], Caller] | None = None,
    auth: AuthSettings | None = None,
    token_verifier: TokenVerifier | None = None,
) -> Server:
    """Return the server of a workspace; the calling code runs it and closes the store.

    ``caller`` returns the caller of the current request; without it, all requests are from the
    caller that this process's environment names. ``auth`` and ``token_verifier`` are for HTTP.
    """
    waiting = Waiting(service)
    server = Server(
        service,
        caller or functools.partial(caller_of, service.store),
        instructions=_INSTRUCTIONS,
        log_level="WARNING",
        version=version("registry-backend"),
        auth=auth,
        token_verifier=token_verifier,
        lifespan=lambda _: waiting.following(),
        subscriptions=False,
    )
    limiter = anyio.CapacityLimiter(_WORKERS)
    tools = Tools(service)
    for of in (tools, waiting):
        for name in vars(type(of)):
            method = getattr(of, name)
            if offer_of(method) is not None:
                server.offer(method, _answering(server, method, limiter))
    add_resources(server, tools, limiter)
    _add_prompts(server)
    return server


def _answering(
    server: Server, method: Callable[..., Any], limiter: anyio.CapacityLimiter
) -> Callable[..., Awaitable[CallToolResult]]:
    """Return the tool as a coroutine function: a blocking method runs to its end on a thread."""
    name = method.__name__

    def check(arguments: Mapping[str, Any]) -> None:
        check_call(server.service, server.caller(), name, server.offers[name], arguments)

    def checked(arguments: dict[str, Any]) -> Any:
        check(arguments)
        return method(**arguments)

    @functools.wraps(method)
    async def call(**arguments: Any) -> CallToolResult:
        if inspect.iscoroutinefunction(method):
            await anyio.to_thread.run_sync(check, arguments, limiter=limiter)
            answer = await method(**arguments)
        else:
            answer = await anyio.to_thread.run_sync(checked, arguments, limiter=limiter)
        said = answer.model_dump(mode="json", exclude_defaults=True)
        text = json.dumps(said, ensure_ascii=False, separators=(",", ":"))
        if len(text) > _LONGEST_ANSWER and server.offers[name].effect is Effect.READS:
            return failed(
                "too_large", f"the answer would have {len(text)} characters", _ASK_FOR_LESS
            )
        return CallToolResult(
            content=[TextContent(type="text", text=text)], structured_content=said
        )

    return call


def _add_prompts(server: Server) -> None:
    @server.prompt()
    def conductor(goal: str = "") -> str:
        """How to lead agents through a task from its creation to its end."""
        return prompts.conductor(goal)

    @server.prompt()
    def worker(task_id: str, agent_id: str) -> str:
        """How an agent works and reports."""
        return prompts.worker(task_id, agent_id)

    @server.prompt()
    def reviewer(task_id: str, agent_id: str, review_id: str) -> str:
        """How a reviewer checks a phase and gives a verdict."""
        return prompts.reviewer(task_id, agent_id, review_id, None)
