"""The plugin: offers the store as ``json``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from backends.json_files.health import check_files
from backends.json_files.migration_source import JsonMigrationSource
from backends.json_files.read_only_store import JsonView
from backends.json_files.store import JsonFilesStore
from backends.jsonl.times import Times
from registry_api.migration import PhaseFile
from registry_api.plugins import (
    ImportedTask,
    OpenContext,
    RegisterCheck,
    RegisterImporter,
    RegisterStore,
    hookimpl,
)
from registry_api.store import RegistryStore
from registry_api.workspace import STATE_DIR


@hookimpl
def registry_register_stores(register: RegisterStore) -> None:
    """Offer the store as ``json``."""
    register("json", _open)


@hookimpl
def registry_register_health_checks(register: RegisterCheck) -> None:
    """Offer the check ``files``."""
    register("files", check_files)


@hookimpl
def registry_register_importers(register: RegisterImporter) -> None:
    """Offer the importer ``legacy``."""
    register("legacy", _LegacyImporter())


class _LegacyImporter:
    """The importer ``legacy``; it imports what it needs when used, since each start loads this."""

    def recognises(self, place: Path) -> bool:
        """Whether the place is the legacy system's database, or a workspace that has one."""
        from backends.json_files.legacy.state_import import database_in  # noqa: PLC0415  (sqlite3)

        return database_in(place) is not None

    def read(self, place: Path, context: OpenContext) -> Iterator[ImportedTask]:
        """See Importer."""
        from backends.json_files.legacy.state_import import LegacyDatabase  # noqa: PLC0415  (sqlite3)

        return LegacyDatabase().read(place, context)


def _open(context: OpenContext) -> RegistryStore:
    settings = context.settings
    times = Times.named(settings.legacy_tz)
    if context.read_only:
        return JsonView(context.workspace, times=times)
    control = PhaseFile(context.workspace / STATE_DIR)

    def epoch() -> int:
        record = control.read()
        return record.epoch if record else 0

    def successor() -> str:
        record = control.read()
        return record.writer if record and record.writer != "json" else ""

    store = JsonFilesStore(
        context.workspace,
        times=times,
        now=context.now,
        timeout=settings.lock_timeout,
        durable=settings.durable,
        epoch=epoch,
        successor=successor,
    )
    return JsonMigrationSource(store)
