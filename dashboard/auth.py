"""Access control: a request needs a known Host, no foreign Origin and a valid token.

Two tokens give two roles. A link carries a token once; it is exchanged at once for a cookie that is
derived from the token and is not itself valid as a token.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["COOKIE", "Guard", "Role", "Tokens"]

COOKIE = "registry_dashboard"  # plus a suffix that differs between workspaces
LARGEST_BODY = 2**20
_SAFE = frozenset({"GET", "HEAD"})
_OPEN = "/livez"
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; font-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Role(StrEnum):
    """What a caller may do: only read, or also act."""

    READER = "reader"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """The workspace's tokens."""

    operator: str
    reader: str

    def role_of(self, token: str) -> Role | None:
        """Return the role of a bearer token, None if it is unknown; compared in constant time."""
        return self._match(token, self.operator, self.reader)

    def role_in(self, cookie: str) -> Role | None:
        """Return the role of a cookie's value, None if it is unknown."""
        return self._match(cookie, _derived(self.operator), _derived(self.reader))

    @property
    def cookie(self) -> str:
        """The cookie's name, one per workspace: browsers send a host's cookies to all its ports."""
        return f"{COOKIE}_{_derived(self.operator + self.reader)[:8]}"

    def cookie_for(self, token: str) -> str:
        """Return the cookie value that the browser keeps instead of a token."""
        return _derived(token)

    @staticmethod
    def _match(given: str, operator: str, reader: str) -> Role | None:
        raw = given.encode("utf-8", "surrogateescape")
        may_act = hmac.compare_digest(raw, operator.encode())
        may_look = hmac.compare_digest(raw, reader.encode())
        return Role.OPERATOR if may_act else Role.READER if may_look else None


def _derived(token: str) -> str:
    return hmac.new(token.encode(), b"registry-dashboard cookie", hashlib.sha256).hexdigest()


class Guard:
    """An ASGI application that wraps another; ``scope["role"]`` tells it the caller's role."""

    def __init__(self, app: ASGIApp, *, tokens: Tokens, hosts: Iterable[str]) -> None:
        self._app = app
        self._tokens = tokens
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it to the inner application."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # websockets are not accepted
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, _with_headers(send))
            return
        await self._app(scope, _limited(receive), _with_headers(send))

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if scope["path"] == _OPEN and scope["method"] in _SAFE:
            return PlainTextResponse("ok")
        host = headers.get("host", "").lower()
        if _name_of(host) not in self._hosts:
            return _refused(
                421, "unknown_host", f"unknown host {host[:100]!r}: see serve --allow-host"
            )
        origin = headers.get("origin")
        if origin is not None and origin.lower() != f"{scope['scheme']}://{host}":
            return _refused(403, "foreign_origin", "requests from another site are refused")
        exchanged = self._exchange(scope)
        if exchanged is not None:
            return exchanged
        role = self._role(headers)
        if role is None:
            return _unknown(headers)
        if scope["method"] not in _SAFE:
            if role is not Role.OPERATOR:
                return _refused(403, "read_only", "this token is read-only")
            if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
                return _refused(415, "not_json", "send application/json")
            length = headers.get("content-length", "0")
            if length.isdigit() and int(length) > LARGEST_BODY:
                return _refused(413, "too_large", f"at most {LARGEST_BODY} bytes")
        scope["role"] = role
        return None

    def _exchange(self, scope: Scope) -> Response | None:
        """Exchange a token in the URL for a cookie, so that it stays in no history and no log."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in query if name == "token"]
        if not given or scope["method"] not in _SAFE:
            return None
        if self._tokens.role_of(given[0]) is None:
            return _refused(401, "unknown_token", "registry-dashboard link prints the valid token")
        rest = urlencode([pair for pair in query if pair[0] != "token"])
        # Only a path of this server: "//host" would lead to another site.
        path = "/" + scope["path"].lstrip("/\\")
        answer = RedirectResponse(path + ("?" + rest if rest else ""), 303)
        answer.set_cookie(
            self._tokens.cookie,
            self._tokens.cookie_for(given[0]),
            httponly=True,
            samesite="strict",
            secure=scope["scheme"] == "https",
        )
        return answer

    def _role(self, headers: Headers) -> Role | None:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._tokens.role_of(token)
        # Parsed here: http.cookies stops at the first malformed pair, even another program's.
        pairs = (pair.strip().partition("=") for pair in headers.get("cookie", "").split(";"))
        found = next((value for name, _, value in pairs if name == self._tokens.cookie), None)
        return self._tokens.role_in(found) if found else None


def _name_of(host: str) -> str:
    """Return the name in a Host header, without the port."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def _refused(status: int, code: str, message: str) -> Response:
    return JSONResponse({"code": code, "message": message}, status)


def _unknown(headers: Headers) -> Response:
    step = "Open the link that registry-dashboard link prints"
    if "text/html" in headers.get("accept", ""):
        return PlainTextResponse(f"A token is needed. {step}.\n", 401)
    return JSONResponse(
        {"code": "no_token", "message": f"a token is needed. {step}"},
        401,
        headers={"www-authenticate": "Bearer"},
    )


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("cache-control", "no-store")
        await send(message)

    return sending


def _limited(receive: Receive) -> Receive:
    """Disconnect after LARGEST_BODY bytes: the declared length may be wrong or missing."""
    taken = 0

    async def receiving() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        return {"type": "http.disconnect"} if taken > LARGEST_BODY else message

    return receiving
