"""Every refusal in one shape: a code that stays, what is wrong, what to do next."""

from __future__ import annotations

from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from registry_api.errors import InvalidInput, RegistryError, TaskNotFound, Unavailable

__all__ = ["REFUSALS", "STREAM", "NotThere", "Refusal", "refusal_of"]


class NotThere(RegistryError, LookupError):
    """A task that has no such agent or phase."""

    code = "not_found"


class Refusal(BaseModel):
    """What is answered in place of what was asked for."""

    code: str
    message: str
    next_step: str = ""


REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal, "description": what}
    for status, what in {
        400: "a body that is no JSON",
        401: "no token, or one that is none",
        403: "a token that may only look, or another site's page",
        404: "not there",
        409: "as things are, this cannot be done",
        413: "more than 1 MiB",
        415: "not application/json",
        421: "a host name that is none of this server's",
        422: "it can never be right",
        503: "not now: a lock, a disk, other work",
    }.items()
}


STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}


def refusal_of(error: Exception) -> tuple[int, Refusal]:
    """Return the status and the words for an error that is not this server's fault."""
    if isinstance(error, RegistryError):
        said = Refusal(code=error.code, message=error.message, next_step=error.next_step)
        if isinstance(error, TaskNotFound):
            said.next_step = "/ and /api/tasks list the tasks"
        return _status(error), said
    if isinstance(error, RequestValidationError):
        faults = "; ".join(_fault(e) for e in error.errors())
        step = "/openapi.json says what each route takes"
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
