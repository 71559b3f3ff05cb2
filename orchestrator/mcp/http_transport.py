"""The MCP server over streamable HTTP: loopback by default, never without a token."""

from __future__ import annotations

import hmac
import socket
from collections.abc import Awaitable, Callable, Sequence

import anyio
import anyio.to_thread
import uvicorn
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.transport_security import TransportSecuritySettings
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from pydantic import AnyHttpUrl
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.agents.callers import CONDUCTOR, Caller, Role, prove
from orchestrator.mcp.arguments import LARGEST, LONGEST
from orchestrator.mcp.server import build_server
from orchestrator.metrics import Metrics, is_permitted
from orchestrator.service import Orchestrator
from registry_api import RegistryStore
from registry_api.errors import RegistryError
from registry_api.workspace import reader_token

__all__ = ["http_app", "serve"]

PATH = "/mcp"
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_TOO_LARGE = (
    f"The request is larger than {LARGEST} bytes. A string may have {LONGEST} characters: "
    "write longer text to a file, and pass the file's name"
).encode()
_PART = " "  # no id contains it
_PATIENCE = 10.0  # seconds


class _Tokens:
    """A verifier of the operator's token, in constant time, and of agents' secrets."""

    def __init__(self, token: str, store: RegistryStore) -> None:
        self._token = token.encode()
        self._store = store

    async def verify_token(self, token: str) -> AccessToken | None:
        if hmac.compare_digest(token.encode("utf-8", "surrogateescape"), self._token):
            return AccessToken(token=token, client_id=Role.CONDUCTOR, scopes=[])
        caller = await self._proven(token)
        if caller is None:
            return None
        name = _PART.join((caller.role, caller.task_id, caller.agent_id))
        return AccessToken(token=token, client_id=name, scopes=[])

    async def _proven(self, token: str) -> Caller | None:
        """Return the caller whose secret this is, None if there is none.

        A busy store is asked again for a while, since a client treats a 401 as final.
        """
        deadline = anyio.current_time() + _PATIENCE
        while True:
            try:
                return await anyio.to_thread.run_sync(prove, self._store, token)
            except RegistryError as error:
                if not error.retryable or anyio.current_time() > deadline:
                    return None
            await anyio.sleep(0.2)


def _caller() -> Caller:
    """Return the caller of the current request; its token has been verified."""
    token = get_access_token()
    role, *ids = (token.client_id if token else Role.UNPROVEN).split(_PART)
    if role == Role.CONDUCTOR:
        return CONDUCTOR
    task_id, agent_id = ids or ("", "")
    return Caller(role=Role(role), task_id=task_id, agent_id=agent_id)


class _Answers:
    """Middleware for two requests that the transport answers badly.

    They are a body that is too large, and the resumption of a stream.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # No events are kept, so a resumed stream is a new one: a transport that is asked to replay
        # events sends no answer at all.
        headers = [(name, value) for name, value in scope["headers"] if name != b"last-event-id"]
        too_large = False

        async def told(message: Message) -> None:
            nonlocal too_large
            if message["type"] == "http.response.start" and message["status"] == 413:
                too_large = True
                length = str(len(_TOO_LARGE)).encode()
                plain = [(b"content-type", b"text/plain"), (b"content-length", length)]
                message = {**message, "headers": plain}
            elif too_large:
                message = {**message, "body": _TOO_LARGE}
            await send(message)

        await self._app({**scope, "headers": headers}, receive, told)


def http_app(
    service: Orchestrator,
    *,
    token: str,
    hosts: Sequence[str] = (),
    metrics: Metrics | None = None,
) -> ASGIApp:
    """Return the application.

    MCP requires a token, an allowed Host and no foreign Origin; ``/metrics`` requires the
    operator's or a reader's token.

    ``hosts`` are additional host names of the server. ``token`` is the operator's; an agent sends
    its secret as its token.
    """
    server = build_server(
        service,
        caller=_caller,
        token_verifier=_Tokens(token, service.store),
        # Without a resource_server_url there are no routes of an authorisation server.
        auth=AuthSettings(issuer_url=AnyHttpUrl("http://127.0.0.1"), resource_server_url=None),
    )
    names = [*_LOOPBACK, *hosts]
    app = server.streamable_http_app(
        streamable_http_path=PATH,
        max_request_body_size=LARGEST,
        session_idle_timeout=service.options.session_idle,
        transport_security=TransportSecuritySettings(
            allowed_hosts=[*names, *(f"{name}:*" for name in names)],
            allowed_origins=[f"http://{name}{port}" for name in names for port in ("", ":*")],
        ),
    )
    app.user_middleware.insert(0, Middleware(_Answers))
    if metrics is not None:
        readers = (token, reader_token(service.settings.workspace))
        app.router.routes.append(Route("/metrics", _metrics_route(metrics, readers)))
    return app


def _metrics_route(
    metrics: Metrics, tokens: tuple[str, ...]
) -> Callable[[Request], Awaitable[Response]]:
    """Return the route of the metrics; it takes the operator's token, or that of a reader."""

    async def answer(request: Request) -> Response:
        if not is_permitted(request.headers.get("authorization", ""), tokens):
            return Response("Send the token in .registry/token as a bearer token", status_code=401)
        text = await anyio.to_thread.run_sync(metrics.text)
        return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return answer


def serve(app: ASGIApp, taken: socket.socket) -> None:
    """Serve on a socket until interrupted."""
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="on")
    uvicorn.Server(config).run(sockets=[taken])
