"""``registry-backend import``."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from backends.admin.app import ERROR, OK, Json, Workspace, answer, app
from registry_api import RegistryStore, Settings
from registry_api.errors import RegistryError, UsageError
from registry_api.plugins import Importer, Plugins


@app.command(name="import")
def import_(
    place: Annotated[Path, Parameter(help="a file or folder that one of the importers reads")],
    /,
    *,
    reader: Annotated[
        str | None, Parameter(help="the importer; default: the first that recognises the place")
    ] = None,
    workspace: Workspace = None,
    json: Json = False,
    dry_run: Annotated[
        bool, Parameter(negative="", help="change nothing; list each field that would change")
    ] = False,
) -> int:
    """Take over tasks from another program's files, each task in one commit.

    The importer "legacy" reads the legacy system's own database, registry/state.sqlite3, also while
    that system runs. A second import of the same changes nothing. The files are not changed.

    Exits 1 if a task could not be imported.

    Example: registry-backend import .agent-workspace --dry-run
    """
    from backends.admin.show_import import show_import
    from registry_api import OpenContext, load_plugins, load_settings
    from registry_api.client.importing import import_task

    plugins = load_plugins()
    name, importer = _chosen(_importers(plugins), place, reader)
    settings = load_settings(workspace)
    context = OpenContext(settings=settings, plugins=plugins)
    tasks: list[dict[str, Any]] = []
    failed, seen = False, set[str]()
    with closing(_store(settings, plugins, dry_run=dry_run)) as store:
        for imported in importer.read(place, context):
            task_id, problem, done = imported.task.task_id, imported.error, None
            if not problem and task_id in seen:
                problem = "the place has two tasks with this id"
            seen.add(task_id)
            try:
                done = (
                    None if problem else import_task(store, imported, reader=name, dry_run=dry_run)
                )
            except RegistryError as error:  # of one task: the others are imported
                problem = str(error)
            if done is None:
                failed = True
                tasks.append({"task_id": task_id, "error": problem})
                continue
            tasks.append(
                {
                    "task_id": done.task_id,
                    "created": done.created,
                    "put": done.put,
                    "appended": done.appended,
                    "changes": [
                        {"record": c.record, "field": c.field, "before": c.before, "after": c.after}
                        for c in done.changes
                    ],
                    "notes": list(done.notes),
                }
            )
    found = {
        "reader": name,
        "zone": settings.legacy_tz or "",
        "dry_run": dry_run,
        "tasks": tasks,
    }
    return answer(found, show_import, as_json=json, code=ERROR if failed else OK)


def _store(settings: Settings, plugins: Plugins, *, dry_run: bool) -> RegistryStore:
    """Open the registry; for a dry run read-only, and an empty one where there is none yet."""
    from registry_api import load_settings, open_store
    from registry_api.workspace import STATE_DIR, has_legacy_registry

    workspace = settings.workspace
    is_new = settings.backend == "auto" and not (workspace / STATE_DIR).exists()
    if dry_run and is_new and not has_legacy_registry(workspace):
        settings = load_settings(workspace, env={}, backend="memory")
        return open_store(settings, plugins=plugins)
    return open_store(settings, plugins=plugins, read_only=dry_run)


def _importers(plugins: Plugins) -> dict[str, Importer]:
    found: dict[str, Importer] = {}

    def register(name: str, importer: Importer) -> None:
        if name in found:
            raise UsageError(
                f"two plugins have an importer named {name}",
                next_step="Uninstall one of them: registry-backend plugins",
            )
        found[name] = importer

    plugins.manager.hook.registry_register_importers(register=register)
    return found


def _chosen(
    importers: dict[str, Importer], place: Path, reader: str | None
) -> tuple[str, Importer]:
    names = ", ".join(sorted(importers))
    if reader is not None:
        if reader not in importers:
            raise UsageError(f"there is no importer {reader!r}", next_step=f"There are: {names}")
        return reader, importers[reader]
    for name, importer in importers.items():
        if importer.recognises(place):
            return name, importer
    raise UsageError(
        f"no importer recognises {place}", next_step=f"Name the file, or one of: {names}"
    )
