"""``registry-backend schema upgrade``."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated, Any

from cyclopts import App, Parameter

from backends.admin.app import Json, Workspace, answer, app
from backends.admin.registry import refuse_no_registry

_schema = App(
    name="schema",
    help="Upgrade the tables of a store.\n\nExample: registry-backend schema upgrade",
)
app.command(_schema)


@_schema.command
def upgrade(
    url: Annotated[
        str | None, Parameter(help="a store by name or URL; default: those of the workspace")
    ] = None,
    *,
    workspace: Workspace = None,
    json: Json = False,
) -> int:
    """Upgrade the tables of a store to this version, while programs use it.

    A program that opens a store for writing does the same. Use this command where programs run with
    a role that may not change tables: name their owner in the URL.

    Example: registry-backend schema upgrade postgresql://owner@db.example/registry
    """
    from registry_api import load_settings, open_store

    settings = load_settings(workspace)
    if url is None:
        refuse_no_registry(settings)
    with closing(open_store(settings) if url is None else _opened(url, settings)) as store:
        info = store.info
    found = {"store": info.name, "location": info.location, "schema": info.schema}
    return answer(found, _show, as_json=json)


def _opened(url: str, settings: Any) -> Any:
    """Open a store by its URL alone, whatever this workspace uses and whoever may write to it."""
    from dataclasses import replace
    from datetime import UTC, datetime

    from registry_api import load_plugins
    from registry_api.errors import SchemaTooOld
    from registry_api.plugins import OpenContext
    from registry_api.typed_errors import typed_errors
    from registry_api.workspace import usable

    plugins = load_plugins()
    name, _, location = usable(url, settings.places()).partition("://")
    context = OpenContext(
        settings=settings,
        plugins=plugins,
        read_only=True,
        now=lambda: datetime.now(UTC),
        location=location,
    )
    with typed_errors():
        try:
            return plugins.factory(name)(context)  # nothing is made where there is no registry
        except SchemaTooOld:
            return plugins.factory(name)(replace(context, read_only=False))


def _show(found: dict[str, Any]) -> None:
    import sys

    tables = f"schema {found['schema']}" if found["schema"] else "it has no tables"
    sys.stdout.write(f"{found['location'] or found['store']}: {tables}\n")
