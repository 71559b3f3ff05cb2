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
from typing import Any

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
    JSONRPCNotification,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError

from orchestrator.agents.callers import caller_of
from orchestrator.mcp.server import Server, build_server
from orchestrator.mcp.tools import LARGEST
from orchestrator.service import Orchestrator
from registry_api.records import is_text

__all__ = ["refusal_of", "serve_stdio"]

_CHUNK = 65_536
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
    lines = _Lines()
    async with stdio_server(stdin=lines) as (read, write):  # type: ignore[arg-type]  # (it only iterates over it)
        lines.answer = write
        lines.ready.set()
        low = server._lowlevel_server  # noqa: SLF001  (the SDK has no public way to use other streams)
        await low.run(read, write, low.create_initialization_options())


class _Lines:
    """The lines of standard input that are messages; other lines get an error answer at once."""

    def __init__(self) -> None:
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
            refusal = refusal_of(line)
            if refusal is None:
                yield line.decode()
            elif self.answer is not None:
                await self.answer.send(SessionMessage(refusal))

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


def refusal_of(line: bytes) -> JSONRPCError | None:
    """Return the error answer to a line that is not a message, None for a message.

    The answer has the id of the request if that can be found.
    """
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        return _error(PARSE_ERROR, f"not UTF-8 at byte {error.start}", _id_in(line))
    if len(line) > LARGEST:
        return _error(INVALID_REQUEST, f"a message may have at most {LARGEST} bytes", _id_in(line))
    try:
        message = jsonrpc_message_adapter.validate_json(text, by_name=False)
    except ValidationError as error:
        return _why_not(line, dict(error.errors(include_url=False, include_input=False)[0]))
    # The SDK takes a request whose id is null for a notification and would not answer it.
    if isinstance(message, JSONRPCNotification) and '"id"' in text and "id" in json.loads(text):
        return _error(INVALID_REQUEST, "the id of a request must be a string or an integer", None)
    return None


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
