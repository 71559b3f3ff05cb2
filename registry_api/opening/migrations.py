"""Open the operator's side of a move."""

from __future__ import annotations

from dataclasses import replace

from registry_api.errors import BackendMismatch
from registry_api.migration.phase_file import PhaseFile
from registry_api.migration.protocol import Migration
from registry_api.opening.resolve import choose_store, has_registry
from registry_api.plugins.context import OpenContext
from registry_api.plugins.manager import Plugins, load_plugins
from registry_api.settings import Settings, load_settings
from registry_api.typed_errors import typed_errors
from registry_api.workspace.paths import STATE_DIR, has_legacy_registry
from registry_api.workspace.store_location import public

__all__ = ["open_migration"]


def open_migration(
    settings: Settings | None = None,
    *,
    plugins: Plugins | None = None,
    read_only: bool = False,
) -> Migration:
    """Open the operations on the workspace's move; close them when done.

    ``read_only`` writes nothing, and is enough for a plan (``switch`` with ``dry_run``). Raises
    BackendMismatch if there is nothing to move.
    """
    settings = settings or load_settings()
    context = OpenContext(settings=settings, plugins=plugins or load_plugins(), read_only=read_only)
    with typed_errors():
        return _opened_migration(context)


def _opened_migration(context: OpenContext) -> Migration:
    settings, plugins = context.settings, context.plugins
    control = PhaseFile(settings.workspace / STATE_DIR)
    if control.read() is None and not has_registry(context):
        raise BackendMismatch(
            f"{settings.workspace} holds no registry that could be moved",
            next_step="Name a workspace with --workspace",
        )
    recorded = control.read() is not None
    if recorded or settings.backend == "dual" or has_legacy_registry(settings.workspace):
        settings = settings.model_copy(update={"backend": "auto"})
    name, location = choose_store(replace(context, settings=settings))
    if name != "dual":
        context = replace(context, location=public(f"{name}://{location}" if location else name))
    found: Migration | None = plugins.manager.hook.registry_open_migration(context=context)
    if found is None:
        raise BackendMismatch("no plugin can move registries", next_step="Install registry-backend")
    return found
