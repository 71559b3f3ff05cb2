"""``registry-backend schema upgrade``."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated, Any

from cyclopts import App, Parameter

from backends.admin.app import Json, Workspace, answer, app
from backends.admin.registry import recorded_move, refuse_no_registry

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
    from registry_api import load_settings

    settings = load_settings(workspace)
    if url is None:
        refuse_no_registry(settings)
    found = []
    for place in _places(settings) if url is None else [url]:
        with closing(_opened(place, settings)) as store:
            info = store.info
        found.append({"store": info.name, "location": info.location, "schema": info.schema})
    return answer({"stores": found}, _show, as_json=json)


def _places(settings: Any) -> list[str]:
    """Return the stores that the workspace uses, by name or URL."""
    from registry_api.migration import MigrationPhase
    from registry_api.workspace import SQLITE_FILE, STATE_DIR

    record = recorded_move(settings)
    if record is None:
        if settings.backend not in {"auto", "dual"}:
            return [settings.backend]
        is_ours = (settings.workspace / STATE_DIR / SQLITE_FILE).exists()
        return ["sqlite" if is_ours else "json"]
    source = [] if record.phase is MigrationPhase.CLEANUP else [record.source]
    return source + ([record.target] if record.phase else [])


def _opened(url: str, settings: Any) -> Any:
    """Open a store by itself, whoever may write to it; for writing only if its tables are older."""
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

    for one in found["stores"]:
        tables = f"schema {one['schema']}" if one["schema"] else "it has no tables"
        sys.stdout.write(f"{one['location'] or one['store']}: {tables}\n")
