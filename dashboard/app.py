"""The application: API, pages and event stream over one store, protected by the guard."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp

from dashboard.api import actions, read
from dashboard.auth import Guard, Tokens
from dashboard.background import beside
from dashboard.errors import refusal_of
from dashboard.live.activity_index import ActivityIndex
from dashboard.live.event_hub import Hub
from dashboard.live.jobs import Jobs
from dashboard.live.move_history import MoveHistory
from dashboard.pages import views
from dashboard.views.migration import MigrationView
from dashboard.views.programs import Programs
from dashboard.views.system import System
from dashboard.views.task_rows import TaskRows
from dashboard.views.waiting_count import WaitingCount
from registry_api import AsyncStore, Plugins, RegistryStore, Settings, load_plugins
from registry_api.errors import RegistryError
from registry_api.workspace import STATE_DIR

__all__ = ["create_app"]


def create_app(
    store: RegistryStore,
    settings: Settings,
    *,
    tokens: Tokens,
    plugins: Plugins | None = None,
    hosts: Iterable[str] = (),
) -> ASGIApp:
    """Return the application of a workspace; the caller closes the store.

    ``hosts`` are further host names that it accepts.
    """
    plugins = plugins or load_plugins()
    listening = AsyncStore(store, workers=2)
    activity_index = ActivityIndex(store)
    last_day = activity_index.last_day
    move_history = MoveHistory(settings.workspace / STATE_DIR)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        hub = Hub(listening, settings.workspace / STATE_DIR / "phase.json")
        app.state.hub = hub
        app.state.waiting_count = WaitingCount(store, lambda: hub.at)
        app.state.jobs = Jobs(lambda job: hub.notify("job", job.to_dict()))
        reading = last_day.keep(listening, activity_index.catch_up)
        async with beside(hub.follow()), beside(reading), beside(move_history.sample()):
            yield

    # FastAPI's pages of documentation fetch scripts from other hosts.
    app = FastAPI(title="registry-dashboard", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.store = store
    app.state.settings = settings
    app.state.plugins = plugins
    app.state.activity_index = activity_index
    app.state.move_history = move_history
    app.state.task_rows = TaskRows(store)
    app.state.migration_view = MigrationView(settings)
    app.state.programs = Programs(settings.workspace / STATE_DIR)
    app.state.system = System(settings, plugins)
    app.include_router(read.router)
    app.include_router(read.numbers)
    app.include_router(actions.router)
    app.include_router(views.router)
    # Compressed only here: a page may hold both what an attacker wrote and what he must not learn.
    static = StaticFiles(directory=Path(__file__).parent / "pages" / "static")
    app.mount("/static", GZipMiddleware(static))
    for kind in (RegistryError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _refused)
    return Guard(app, tokens=tokens, hosts=("127.0.0.1", "localhost", "[::1]", *hosts))


async def _refused(request: Request, error: Exception) -> Response:
    status, said = refusal_of(error)
    if "text/html" in request.headers.get("accept", ""):
        return views.refused(request, said, status)
    headers = getattr(error, "headers", None)
    return JSONResponse(said.model_dump(), status, headers)
