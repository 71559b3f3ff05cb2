"""Decide which store a workspace calls for, and refuse one that would start a second registry."""

from __future__ import annotations

import logging
from dataclasses import replace

from registry_api.capabilities import MoveTarget, Stamps, find_capability
from registry_api.errors import BackendMismatch, SchemaTooOld, SettingsError, Unavailable
from registry_api.migration.phase import MigrationPhase, PhaseRecord
from registry_api.migration.phase_file import PhaseFile, refuse_missing
from registry_api.plugins.context import OpenContext
from registry_api.roles import ROLE, check_commit
from registry_api.settings import Settings
from registry_api.store import RegistryStore
from registry_api.workspace.paths import SQLITE_FILE, STATE_DIR, has_legacy_registry
from registry_api.workspace.store_location import public, same_place

__all__ = ["choose_store", "has_registry", "refuse_role", "refuse_second_registry"]

log = logging.getLogger("registry_backend")


def choose_store(context: OpenContext) -> tuple[str, str]:
    """Return the scheme and location to open; a recorded move overrides the configuration."""
    control = PhaseFile(context.workspace / STATE_DIR)
    record = control.read()
    if record is not None:
        return _of_move(context, record)
    try:
        return _unrecorded(context, control)
    except BackendMismatch:
        record = control.read()
        if record is None:
            raise
        return _of_move(context, record)  # another process has made the first switch meanwhile


def _of_move(context: OpenContext, record: PhaseRecord) -> tuple[str, str]:
    settings, workspace = context.settings, context.workspace
    name = settings.backend.partition("://")[0]
    _warn_of_other_stores(settings, record)
    alone = record.phase == 0 and same_place(settings.backend, record.source)
    if name in {"auto", "dual"} or alone:
        return "dual", ""
    sides = (record.source, record.target)
    one = name in sides or any(same_place(settings.backend, side) for side in sides)
    what = "names one store of a move" if one else "is not the store in use"
    raise BackendMismatch(
        f"REGISTRY_BACKEND={name} {what}: {workspace} is in phase "
        f"{record.phase:d} ({record.phase.name}), its writer of record is {record.writer}",
        next_step="Unset REGISTRY_BACKEND; registry-backend status shows the move",
    )


def _unrecorded(context: OpenContext, control: PhaseFile) -> tuple[str, str]:
    settings, workspace = context.settings, context.workspace
    name, _, location = settings.backend.partition("://")
    legacy = has_legacy_registry(workspace)
    ours = (workspace / STATE_DIR / SQLITE_FILE).exists()
    if name == "auto" and location:
        raise SettingsError("auto takes no location", next_step="Name the store, e.g. sqlite://…")
    held = _held_by_sqlite(context) if ours else 0
    if not legacy and not held and (workspace / STATE_DIR / "history.jsonl").exists():
        raise BackendMismatch(
            f"{control.path} is missing, but a move was made here",
            next_step="Restore it: the last line of .registry/history.jsonl shows the move",
        )
    if name == "auto" and not legacy and (ours or settings.phase is None):
        return "sqlite", ""
    if held and legacy and name in {"auto", "json", "dual"}:
        raise BackendMismatch(
            f"{workspace} holds {held} task(s) in SQLite and a JSON registry, and no record of a "
            "move says which one is in use",
            next_step="Set REGISTRY_BACKEND=sqlite to use SQLite, or move that file away",
        )
    if name == "sqlite" and not location and legacy and not held:
        raise BackendMismatch(
            f"REGISTRY_BACKEND=sqlite would start next to the JSON registry of {workspace}",
            next_step="Unset REGISTRY_BACKEND to use the existing registry",
        )
    if name in {"json", "dual"} and ours and not legacy:
        raise BackendMismatch(
            f"REGISTRY_BACKEND={name} would start next to the SQLite registry of {workspace}",
            next_step="Unset REGISTRY_BACKEND to use the existing registry",
        )
    if name in {"auto", "json", "dual"}:
        if not legacy and settings.phase is not None and not context.read_only:
            # Nothing is recorded and there is no data: the workspace starts in the target phase.
            born = PhaseRecord(
                phase=MigrationPhase(settings.phase),
                epoch=1,
                source=settings.source,
                target=settings.target,
                target_phase=settings.phase,
                foreign_writers=settings.source.partition("://")[0] == "json",
            )
            control.advance(0, born)
        return "dual", ""
    return name, location


def has_registry(context: OpenContext) -> bool:
    """Return whether the workspace, or the store that the settings name, holds a registry."""
    workspace = context.workspace
    if has_legacy_registry(workspace) or (workspace / STATE_DIR / SQLITE_FILE).exists():
        return True
    return context.settings.backend.partition("://")[0] not in {"auto", "dual", "json", "memory"}


def _warn_of_other_stores(settings: Settings, record: PhaseRecord) -> None:
    for side in ("source", "target"):
        said = getattr(settings, side)
        # The other store's URL may be there for its credentials.
        known = any(same_place(said, place) for place in (record.source, record.target))
        if side in settings.model_fields_set and not known:
            log.warning(
                "REGISTRY_%s=%s is not used: the recorded move is %s -> %s",
                side.upper(),
                public(said),
                record.source,
                record.target,
            )


def _held_by_sqlite(context: OpenContext) -> int:
    """Return how many tasks our SQLite file holds, 0 for a replica; refuse a lost record.

    An interrupted first switch leaves a replica without a record: the source stays in use, and the
    next switch fills the replica further.
    """
    try:
        target = context.plugins.factory("sqlite")(replace(context, read_only=True, location=""))
    except SchemaTooOld:
        if context.read_only:
            raise
        # Opening it for writing upgrades it: only then can it be seen whether a record is lost.
        target = context.plugins.factory("sqlite")(replace(context, location=""))
    except Unavailable:
        return 0  # empty: opening it for writing reports that
    try:
        stamped = find_capability(target, MoveTarget)
        if stamped is None:
            return 0
        epoch = stamped.read_stamp("epoch")
        known = int(epoch) if epoch and epoch.isdecimal() else None
        refuse_missing(context.workspace / STATE_DIR, known)
        return 0 if stamped.read_stamp("mirrored") else target.counts().total_tasks
    finally:
        target.close()


def refuse_role(store: RegistryStore, context: OpenContext, name: str) -> None:
    """Refuse a store that a move has left, or that is the replica of another store."""
    stamped = None if name == "dual" else find_capability(store, Stamps)
    if stamped is not None and not context.read_only:
        check_commit(stamped.read_stamp(ROLE))


def refuse_second_registry(store: RegistryStore, context: OpenContext, name: str) -> None:
    """Refuse a store that would start empty next to an existing registry."""
    workspace = context.workspace
    if name in {"dual", "json"}:
        return  # the workspace's own registry
    default = name == "sqlite" and not context.location
    beside = has_legacy_registry(workspace) or (workspace / STATE_DIR / SQLITE_FILE).exists()
    if default or not beside or store.list_tasks(limit=1).items:
        return
    raise BackendMismatch(
        f"REGISTRY_BACKEND={name} would start empty next to the registry of {workspace}",
        next_step="Unset REGISTRY_BACKEND to use the existing registry, or name another workspace",
    )
