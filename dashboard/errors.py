"""Errors in one format: a stable code, what is wrong, and what to do next."""

from __future__ import annotations

from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from registry_api.errors import InvalidInput, RegistryError, TaskNotFound, Unavailable

__all__ = ["REFUSALS", "STREAM", "NotThere", "Refusal", "refusal_of"]


class NotThere(RegistryError, LookupError):
    """The task exists, but has no such agent or phase."""

    code = "not_found"


class Refusal(BaseModel):
    """The body of an error answer."""

    code: str
    message: str
    next_step: str = ""


REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal, "description": what}
    for status, what in {
        400: "the body is not JSON",
        401: "no token, or an invalid one",
        403: "a read-only token, or a request from another site",
        404: "not found",
        409: "not possible in the current state",
        413: "more than 1 MiB",
        415: "not application/json",
        421: "an unknown host name",
        422: "invalid input",
        503: "not possible now: a lock, a disk, other work; try again",
    }.items()
}


STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}


def refusal_of(error: Exception) -> tuple[int, Refusal]:
    """Return the HTTP status and the body for an error that is not this server's fault."""
    if isinstance(error, RegistryError):
        said = Refusal(code=error.code, message=error.message, next_step=error.next_step)
        if isinstance(error, TaskNotFound):
            said.next_step = "/ and /api/tasks list the tasks"
        return _status(error), said
    if isinstance(error, RequestValidationError):
        faults = "; ".join(_fault(e) for e in error.errors())
        step = "/openapi.json says what each route accepts"
        return 422, Refusal(code=InvalidInput.code, message=faults, next_step=step)
    assert isinstance(error, HTTPException)
    words = str(error.detail).lower().replace(" ", "_")
    return error.status_code, Refusal(code=words, message=str(error.detail), next_step="")


def _status(error: RegistryError) -> int:
    if error.code.endswith("not_found"):
        return 404
    if isinstance(error, InvalidInput):
        return 422
    return 503 if isinstance(error, Unavailable) else 409


def _fault(error: Any) -> str:
    return f"{'.'.join(str(part) for part in error['loc'][1:]) or 'the body'}: {error['msg']}"
