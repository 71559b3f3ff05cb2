"""The MCP server over streamable HTTP: loopback by default, never without the token."""

from __future__ import annotations

import hmac
import socket
from collections.abc import Sequence

import uvicorn
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import AnyHttpUrl
from starlette.applications import Starlette

from orchestrator.server import build_server
from orchestrator.service import Orchestrator
from registry_api.console import LOOPBACK
from registry_api.errors import UsageError

__all__ = ["http_app", "parse_address", "serve"]

PATH = "/mcp"
_LARGEST = 2**20  # bytes of a request
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class _OneToken:
    """Knows one token, compared in constant time."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    async def verify_token(self, token: str) -> AccessToken | None:
        if hmac.compare_digest(token.encode("utf-8", "surrogateescape"), self._token):
            return AccessToken(token=token, client_id="operator", scopes=[])
        return None


def http_app(service: Orchestrator, *, token: str, hosts: Sequence[str] = ()) -> Starlette:
    """Return the application: every route wants the token, a known Host and no foreign Origin.

    ``hosts`` are further names under which it is reached.
    """
    server = build_server(
        service,
        token_verifier=_OneToken(token),
        # There is no authorisation server: no such route is made without a resource_server_url.
        auth=AuthSettings(issuer_url=AnyHttpUrl("http://127.0.0.1"), resource_server_url=None),
    )
    names = [*_LOOPBACK, *hosts]
    return server.streamable_http_app(
        streamable_http_path=PATH,
        max_request_body_size=_LARGEST,
        transport_security=TransportSecuritySettings(
            allowed_hosts=[*names, *(f"{name}:*" for name in names)],
            allowed_origins=[f"http://{name}{port}" for name in names for port in ("", ":*")],
        ),
    )


def parse_address(text: str, *, remote: bool) -> tuple[str, int]:
    """Read ``HOST:PORT``; raises UsageError, also for an address that others reach, unless said."""
    host, colon, port = text.rpartition(":")
    host = host.strip("[]")
    if not colon or not host or not (port.isascii() and port.isdigit() and int(port) < 2**16):
        raise UsageError(f"--http {text[:80]}: no HOST:PORT", next_step="e.g. 127.0.0.1:8766")
    if not remote and host not in LOOPBACK:
        raise UsageError(
            f"--http {host} can be reached by others",
            next_step="Take 127.0.0.1, or add --remote and an --allow-host for each name",
        )
    return host, int(port)


def serve(app: Starlette, taken: socket.socket) -> None:
    """Serve on a socket until interrupted."""
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="on")
    uvicorn.Server(config).run(sockets=[taken])
