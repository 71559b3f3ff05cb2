"""The MCP server on standard input and output; a line that is not a message gets an error answer.

The SDK's reader drops such a line, and its sender waits without end. The SDK also reads on a thread
that cannot be interrupted.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any, Self

import anyio
import anyio.to_thread
from mcp.server.stdio import stdio_server
from mcp.shared._context_streams import ContextSendStream
from mcp.shared.message import SessionMessage
from mcp.types import (
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError

from orchestrator.agents.callers import caller_of
from orchestrator.mcp.arguments import LARGEST
from orchestrator.mcp.server import Server, build_server
from orchestrator.service import Orchestrator
from registry_api.records import is_text

__all__ = ["serve_stdio"]

_CHUNK = 65_536
_LAST_ANSWERS = 10.0  # seconds, at most, in which the last requests are answered
CANCELLED = "notifications/cancelled"
_BOM = b"\xef\xbb\xbf"
# The id in a line that cannot be parsed, if the id comes before any nested value.
_ID = re.compile(rb'[^\[{]*\{[^\[{]*?"id"\s*:\s*(-?\d{1,15}|"[^"\\]{1,100}")\s*[,}]')


def serve_stdio(service: Orchestrator, *, agent: bool = False) -> None:
    """Serve until the input ends, the client closes the output, or an interrupt."""
    server = build_server(service, caller=functools.partial(caller_of, service.store, agent=agent))
    with suppress(KeyboardInterrupt):
        try:
            anyio.run(_serve, server)
        except* (ConnectionError, anyio.BrokenResourceError):
            pass  # the client closed the output, or the server stopped within a line


async def _serve(server: Server) -> None:
    pending = _Pending()
    lines = _Lines(pending)
    async with stdio_server(stdin=lines) as (read, write):  # type: ignore[arg-type]  # (it only iterates over it)
        lines.answer = write
        lines.ready.set()
        low = server._lowlevel_server  # noqa: SLF001  (the SDK has no public way to use other streams)
        answers = _Answers(write, pending)
        await low.run(read, answers, low.create_initialization_options())


class _Pending:
    """The requests that are not answered yet.

    At the end of the input the SDK cancels them: a client that sent its requests from a file would
    get no answer to the last ones.
    """

    def __init__(self) -> None:
        self._ids = set[str | int]()
        self._changed = anyio.Event()

    def note(self, message: JSONRPCMessage) -> None:
        """Note a message that was read: a request, or that one was cancelled."""
        if isinstance(message, JSONRPCRequest):
            self._ids.add(message.id)
        elif isinstance(message, JSONRPCNotification) and message.method == CANCELLED:
            self._remove((message.params or {}).get("requestId"))

    def answered(self, message: JSONRPCMessage) -> None:
        """Note a message that was written."""
        if isinstance(message, JSONRPCResponse | JSONRPCError):
            self._remove(message.id)

    def _remove(self, request_id: object) -> None:
        if isinstance(request_id, str | int):
            self._ids.discard(request_id)
        self._changed.set()

    async def wait(self) -> None:
        """Wait until every request is answered, at most ``_LAST_ANSWERS`` seconds."""
        with anyio.move_on_after(_LAST_ANSWERS):
            while self._ids:
                self._changed = anyio.Event()
                await self._changed.wait()


class _Answers:
    """The stream to the client; notes which requests are answered."""

    def __init__(self, inner: ContextSendStream[SessionMessage], pending: _Pending) -> None:
        self._inner = inner
        self._pending = pending

    async def send(self, item: SessionMessage, /) -> None:
        await self._inner.send(item)
        self._pending.answered(item.message)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class _Lines:
    """The lines of standard input that are messages; other lines get an error answer at once."""

    def __init__(self, pending: _Pending) -> None:
        self._pending = pending
        self.ready = anyio.Event()
        self.answer: ContextSendStream[SessionMessage] | None = None
        # Handlers and child processes get an empty standard input: only this reads the messages.
        self._fd = os.dup(0)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)

    async def __aiter__(self) -> AsyncIterator[str]:
        await self.ready.wait()
        async for found in self._split():
            line = found.removeprefix(_BOM)
            if not line.strip():
                continue
            message, refusal = parsed(line)
            if refusal is None:
                if message is not None:
                    self._pending.note(message)
                yield line.decode()
            elif self.answer is not None:
                await self.answer.send(SessionMessage(refusal))
        await self._pending.wait()

    async def _split(self) -> AsyncIterator[bytes]:
        """Yield lines; of a line that is too long, only the beginning."""
        held, too_long = bytearray(), False
        while chunk := await self._read():
            *whole, rest = chunk.split(b"\n")
            for part in whole:
                held += part if not too_long else b""
                yield bytes(held)
                held, too_long = bytearray(), False
            if len(held) <= LARGEST:
                held += rest
            too_long = len(held) > LARGEST
        if held:
            yield bytes(held)

    async def _read(self) -> bytes:
        try:
            await anyio.wait_readable(self._fd)
        except (OSError, ValueError):  # a file, which is always readable
            return await anyio.to_thread.run_sync(os.read, self._fd, _CHUNK)
        return os.read(self._fd, _CHUNK)


def parsed(line: bytes) -> tuple[JSONRPCMessage | None, JSONRPCError | None]:
    """Return the message in a line, or the error answer to it; neither for a bad response.

    The answer has the id of the request if that can be found.
    """
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        return None, _error(PARSE_ERROR, f"not UTF-8 at byte {error.start}", _id_in(line))
    if len(line) > LARGEST:
        too_long = f"a message may have at most {LARGEST} bytes"
        return None, _error(INVALID_REQUEST, too_long, _id_in(line))
    try:
        message = jsonrpc_message_adapter.validate_json(text, by_name=False)
    except ValidationError as error:
        return None, _why_not(line, dict(error.errors(include_url=False, include_input=False)[0]))
    # The SDK takes a request whose id is null for a notification and would not answer it.
    if isinstance(message, JSONRPCNotification) and '"id"' in text and "id" in json.loads(text):
        no_id = "the id of a request must be a string or an integer"
        return None, _error(INVALID_REQUEST, no_id, None)
    return message, None


def _why_not(line: bytes, fault: Mapping[str, Any]) -> JSONRPCError | None:
    try:
        value = json.loads(line)
    except RecursionError:
        return _error(INVALID_REQUEST, "the message is nested too deeply", _id_in(line))
    except ValueError as error:
        return _error(PARSE_ERROR, f"not JSON: {error}", _id_in(line))
    if isinstance(value, list):
        return _error(
            INVALID_REQUEST, "batches are not supported: send each message by itself", None
        )
    if not isinstance(value, dict):
        return _error(INVALID_REQUEST, "a message must be a JSON object", None)
    if "method" not in value and {"result", "error"} & value.keys():
        return None  # a response, which gets no answer: the SDK's reader drops it
    found = value.get("id")
    whole = isinstance(found, int) and not isinstance(found, bool)
    request_id = found if whole or (isinstance(found, str) and is_text(found)) else None
    if _has_lone_surrogate(value):
        return _error(PARSE_ERROR, "a string contains a lone surrogate", request_id)
    said, place = str(fault["msg"]), ".".join(map(str, fault["loc"][1:]))
    if "recursion" in said:
        return _error(INVALID_REQUEST, "the message is nested too deeply", request_id)
    return _error(INVALID_REQUEST, f"not a JSON-RPC 2.0 message: {place}: {said}", request_id)


def _has_lone_surrogate(value: object) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    except RecursionError:
        pass
    return False


def _id_in(line: bytes) -> str | int | None:
    found = _ID.match(line[:4096])
    if found is None:
        return None
    word = found[1].decode(errors="replace")
    return word.strip('"') if word.startswith('"') else int(word)


def _error(code: int, message: str, request_id: str | int | None) -> JSONRPCError:
    data = ErrorData(code=code, message=message[:500])
    return JSONRPCError(jsonrpc="2.0", id=request_id, error=data)
