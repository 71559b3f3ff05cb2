"""The plugin: registers the store ``dual``, opens a move for switches, adds a health check."""

from __future__ import annotations

from dataclasses import replace

from backends.dual_write.health import check_move
from backends.dual_write.history import keep_mismatches
from backends.dual_write.move import Move
from backends.dual_write.open_stores import OpenStores
from backends.dual_write.role_stamps import Roles
from backends.dual_write.stamp import refuse_lost
from backends.dual_write.store import DualWriteStore
from registry_api.capabilities import ForeignWriters, Legacy, find_capability, provides
from registry_api.errors import BackendMismatch
from registry_api.migration import Migration, MigrationPhase, PhaseFile, PhaseRecord
from registry_api.opening import keep_logs
from registry_api.plugins import OpenContext, RegisterCheck, RegisterStore, hookimpl
from registry_api.store import RegistryStore
from registry_api.workspace import STATE_DIR, usable
from registry_api.workspace.time_zone import machine_zone
from registry_api.wrappers import observer

__all__ = ["registry_open_migration", "registry_register_stores"]


@hookimpl
def registry_register_stores(register: RegisterStore) -> None:
    """Register the store ``dual``: it opens the move that the workspace has recorded."""
    register("dual", _open)


@hookimpl
def registry_open_migration(context: OpenContext) -> Migration:
    """Open the move of the workspace."""
    control = _control(context)
    store = _store(context, control)
    if control.read() is None:
        _refuse_frozen(store.source, control)
    return Move(context, store, control)


@hookimpl
def registry_register_health_checks(register: RegisterCheck) -> None:
    """Register the health check ``move``."""
    register("move", check_move)


def _open(context: OpenContext) -> RegistryStore:
    control = _control(context)
    record = control.current()
    if context.read_only:
        store = _inner(context, record.writer, record)
        refuse_lost(store, record)
        if control.read() is None:
            _refuse_frozen(store, control)
        return store
    store = _store(context, control)
    try:
        if control.read() is None:
            _refuse_frozen(store.source, control)
        zone = context.settings.legacy_tz or machine_zone()
        if zone is not None and provides(store.stores.get(record.writer, record), ForeignWriters):
            control.settle_zone(zone)
        _ = store.info  # opens the writer of record: a store that cannot be used is refused here
        store.catch_up_for(1.0)
    except BaseException:
        store.close()
        raise
    return store


def _refuse_frozen(source: RegistryStore, control: PhaseFile) -> None:
    """Raise BackendMismatch if documents are frozen by a cut-over but the phase record is missing.

    The frozen documents are out of date then: the target is the writer of record.
    """
    legacy = find_capability(source, Legacy)
    frozen = legacy.frozen_documents() if legacy else 0
    if not frozen:
        return
    if control.path.with_name("history.jsonl").exists():
        next_step = "Restore it: the last line of .registry/history.jsonl shows its contents"
    else:
        next_step = (
            f"Copy {control.path.parent} from where this workspace was copied; only if the "
            f"documents are the newest state: chmod u+w {control.path.parent.parent}/*/*.json"
        )
    raise BackendMismatch(
        f"{control.path} is missing, but {frozen} document(s) are frozen by a cut-over",
        next_step=next_step,
    )


def _control(context: OpenContext) -> PhaseFile:
    """Return the phase file; without a record, ``context.location`` names the store in use."""
    settings = context.settings
    source = context.location or settings.source
    foreign = source.partition("://")[0] == "json"
    given = "target" in settings.model_fields_set
    born = PhaseRecord(
        source=source,
        target=settings.target if foreign or given else "",
        foreign_writers=foreign,
    )
    return PhaseFile(context.workspace / STATE_DIR, unrecorded=born)


def _store(context: OpenContext, control: PhaseFile) -> DualWriteStore:
    folder = context.workspace / STATE_DIR
    return DualWriteStore(
        OpenStores(
            lambda place, now: _inner(context, place, now),
            lambda store, now: keep_logs(store, _logging(context, now)),
            lambda place, now: _inner(replace(context, read_only=True), place, now),
            context.opened,
        ),
        control,
        Roles(context.workspace),
        compare=context.settings.compare,
        on_mismatch=lambda found: keep_mismatches(folder / "mismatches.jsonl", found),
        count=context.process.count if context.process else None,
        observe=observer(context.plugins.manager.hook),
    )


def _inner(context: OpenContext, url: str, record: PhaseRecord) -> RegistryStore:
    """Open one store of the move by name or URL; a recorded time zone overrides the settings."""
    name, _, location = usable(url, context.settings.places()).partition("://")
    removed = record.phase is MigrationPhase.CLEANUP and url == record.source
    return context.plugins.factory(name)(
        replace(_zoned(context, record), location=location, removed=removed)
    )


def _logging(context: OpenContext, record: PhaseRecord) -> OpenContext:
    """While a move is under way, logs are kept for both stores, or for neither: after a rollback,
    and after a move to a store with logs, they are complete.
    """
    context = _zoned(context, record)
    if record.phase is MigrationPhase.SOURCE_ONLY:
        return context
    settings = context.settings.model_copy(update={"logs": context.settings.logs})
    return replace(context, settings=settings)


def _zoned(context: OpenContext, record: PhaseRecord) -> OpenContext:
    if not record.zone:
        return context
    settings = context.settings.model_copy(update={"legacy_tz": record.zone})
    return replace(context, settings=settings)
