"""JSON answers: numbers keep their recorded text, and every string can be encoded as UTF-8."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import wraps
from typing import Any

from fastapi import Response
from fastapi.routing import APIRoute

from registry_api.records import json_text

__all__ = ["ExactRoute", "sendable"]


class ExactRoute(APIRoute):
    """A route whose answer is written by ``jsontext``.

    Pydantic and orjson cannot write a number that is kept as its text, such as ``1e-7`` or one of
    twenty digits.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, _exactly(endpoint), **options)


def _exactly(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    if asyncio.iscoroutinefunction(endpoint):
        return endpoint

    @wraps(endpoint)
    def answered(*args: Any, **asked: Any) -> Response:
        found = endpoint(*args, **asked)
        if isinstance(found, Response):
            return found
        beside: Response | None = asked.get("response")
        headers = dict(beside.headers) if beside else None
        return Response(json_text.dump(found), media_type="application/json", headers=headers)

    return answered


def sendable(value: Any) -> Any:
    """Return a JSON value with all strings made valid UTF-8: the name of a folder may not be."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {sendable(k): sendable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [sendable(v) for v in value]
    return value
