"""The application: API, pages and stream over one store, behind the guard."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.types import ASGIApp

from dashboard import api, pages
from dashboard.feed import Hub
from dashboard.guard import Guard, Tokens
from registry_api import AsyncStore, RegistryStore, Settings
from registry_api.errors import (
    InvalidInput,
    RegistryError,
    TaskNotFound,
    Unavailable,
)

__all__ = ["create_app"]

_STATUS: tuple[tuple[type[RegistryError], int], ...] = (
    (TaskNotFound, 404),
    (api.NotThere, 404),
    (InvalidInput, 422),
    (Unavailable, 503),
)


def create_app(
    store: RegistryStore, settings: Settings, *, tokens: Tokens, hosts: Iterable[str] = ()
) -> ASGIApp:
    """Return the application of a workspace; whoever opened the store closes it.

    ``hosts`` are further names under which it is reached.
    """
    listening = AsyncStore(store, workers=2)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.hub = Hub(listening)
        async with app.state.hub.running():
            yield

    # Its own pages of documentation fetch scripts from other hosts.
    app = FastAPI(title="registry-dashboard", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.store = store
    app.state.settings = settings
    app.include_router(api.router)
    app.include_router(pages.router)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))
    app.add_exception_handler(RegistryError, _failed)
    return Guard(app, tokens=tokens, hosts=("127.0.0.1", "localhost", "[::1]", *hosts))


async def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, RegistryError)
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 409)
    if status == 404 and isinstance(error, TaskNotFound):
        error.next_step = "/ and /api/tasks list the tasks"
    if "text/html" in request.headers.get("accept", ""):
        return pages.failed(request, error, status)
    said = {"code": error.code, "message": error.message, "next_step": error.next_step}
    return JSONResponse(said, status)
