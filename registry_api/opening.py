"""Open the store that the settings and the workspace call for."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from registry_api.border import Border, typed_errors
from registry_api.control import FileControl, PhaseRecord, refuse_missing
from registry_api.errors import BackendMismatch, Busy, RegistryError, SettingsError, Unavailable
from registry_api.gate import Gate, GatedStore
from registry_api.instance import make_state_folder
from registry_api.location import public, same_place, usable
from registry_api.metered import MeteredStore
from registry_api.migration import Migration, MigrationPhase
from registry_api.observed import observed
from registry_api.plugins import Plugins, load_plugins
from registry_api.procs import Process, living
from registry_api.settings import Settings, load_settings
from registry_api.store import Capability, MoveTarget, RegistryStore
from registry_api.switch_journal import SwitchJournal
from registry_api.wrapper import find_capability

__all__ = ["OpenContext", "has_legacy_registry", "keep_logs", "open_migration", "open_store"]

STATE_DIR = ".registry"
SQLITE_FILE = "registry.sqlite3"
_SWITCH_PATIENCE = 30.0  # seconds to wait for a switch that another process performs
log = logging.getLogger("registry_backend")


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenContext:
    """The context that a store factory receives; ``location`` follows ``scheme://``, often empty.

    ``process`` counts this process's operations, for metrics.
    """

    settings: Settings
    plugins: Plugins
    location: str = ""
    read_only: bool = False
    now: Callable[[], datetime] = _now
    process: Process | None = None

    @property
    def workspace(self) -> Path:
        """The workspace's directory."""
        return self.settings.workspace


def open_store(
    settings: Settings | None = None,
    *,
    plugins: Plugins | None = None,
    read_only: bool = False,
    now: Callable[[], datetime] = _now,
) -> RegistryStore:
    """Open the configured store; close it when done.

    A workspace with a recorded move opens that move, whatever is configured; one with legacy
    registries and no record opens the move json -> sqlite in phase 0; an empty one opens
    ``sqlite``. Naming one store of a recorded move, or a store that would start empty next to an
    existing registry, is refused (BackendMismatch). ``read_only`` changes no registry.
    """
    settings = settings or load_settings()
    plugins = plugins or load_plugins()
    context = OpenContext(settings=settings, plugins=plugins, read_only=read_only, now=now)
    with typed_errors():
        return Border(_opened(context))


def _opened(context: OpenContext) -> RegistryStore:
    plugins, read_only = context.plugins, context.read_only
    name, location = _choose(context)
    context = replace(context, location=location)
    if name == "dual" and not read_only:
        return _wrapped(*_open_move(context))
    store = plugins.factory(name)(replace(context, location=_usable(context, name, location)))
    try:
        _refuse_second_registry(store, context, name)
    except BaseException:
        store.close()
        raise
    if not read_only and Capability.PERSISTENT in store.info.capabilities:
        context = _counted(context)
    return _wrapped(store, context)


def _usable(context: OpenContext, name: str, location: str) -> str:
    """Return the location with its credentials."""
    if not location:
        return ""
    return usable(f"{name}://{location}", context.settings.places()).partition("://")[2]


def _counted(context: OpenContext) -> OpenContext:
    """Register this process as a live one, if the workspace has a ``.registry``."""
    folder = context.workspace / STATE_DIR
    if not folder.is_dir():
        return context
    return replace(context, process=Process(folder, target_phase=context.settings.phase))


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
    control = FileControl(settings.workspace / STATE_DIR)
    if control.read() is None and not has_legacy_registry(settings.workspace):
        raise BackendMismatch(
            f"{settings.workspace} holds no registry that could be moved",
            next_step="Name a workspace with --workspace",
        )
    _choose(replace(context, settings=settings.model_copy(update={"backend": "auto"})))
    found: Migration | None = plugins.manager.hook.registry_open_migration(context=context)
    if found is None:
        raise BackendMismatch("no plugin can move registries", next_step="Install registry-backend")
    return found


def _choose(context: OpenContext) -> tuple[str, str]:
    """Return the scheme and location to open; a recorded move overrides the configuration."""
    settings, workspace = context.settings, context.workspace
    name, _, location = settings.backend.partition("://")
    control = FileControl(workspace / STATE_DIR)
    record = control.read()
    if record is not None:
        _warn_of_other_stores(settings, record)
        if name in {"auto", "dual"} or (name == record.source and record.phase == 0):
            return "dual", ""
        sides = (record.source, record.target)
        one = name in sides or any(same_place(settings.backend, side) for side in sides)
        what = "names one store of a move" if one else "is not the store in use"
        raise BackendMismatch(
            f"REGISTRY_BACKEND={name} {what}: {workspace} is in phase "
            f"{record.phase:d} ({record.phase.name}), its writer of record is {record.writer}",
            next_step="Unset REGISTRY_BACKEND; registry-backend status shows the move",
        )
    legacy = has_legacy_registry(workspace)
    ours = (workspace / STATE_DIR / SQLITE_FILE).exists()
    if name == "auto" and location:
        raise SettingsError("auto takes no location", next_step="Name the store, e.g. sqlite://…")
    held = _held_by_sqlite(context) if ours else 0
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
            )
            control.advance(0, born)
        return "dual", ""
    return name, location


def _warn_of_other_stores(settings: Settings, record: PhaseRecord) -> None:
    for side in ("source", "target"):
        said, recorded = getattr(settings, side), getattr(record, side)
        if side in settings.model_fields_set and not same_place(said, recorded):
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
    except Unavailable:
        return 0  # empty, or of an older schema: opening it for writing reports that
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


def _open_move(context: OpenContext) -> tuple[RegistryStore, OpenContext]:
    """Open the move with its gate, and act on a target phase that differs from the record."""
    folder = context.workspace / STATE_DIR
    make_state_folder(folder)
    context = _counted(context)
    process = context.process
    assert process is not None
    try:
        _recover_dead_switch(context)
        _act_on_target_phase(context)
        gate = Gate(
            folder,
            timeout=context.settings.lock_timeout,
            waited=partial(process.time, "gate"),
            worked=partial(process.time, "inside"),
        )
        with gate.passing():
            store = context.plugins.factory("dual")(context)
    except BaseException:
        process.close()
        raise
    journal = SwitchJournal(folder)

    def recover() -> None:
        with closing(open_migration(context.settings, plugins=context.plugins)) as migration:
            migration.recover(wait=False)

    return GatedStore(store, gate, died=journal.is_inside, recover=recover), context


def _recover_dead_switch(context: OpenContext) -> None:
    """Finish an interrupted switch, unless a switch is under way."""
    journal = SwitchJournal(context.workspace / STATE_DIR)
    if journal.read() is None:
        return
    try:
        with closing(open_migration(context.settings, plugins=context.plugins)) as migration:
            for note in migration.recover(wait=False):
                log.warning("%s", note)
    except Busy:
        return  # the switch is alive, or another process recovers it
    except (RegistryError, OSError) as error:
        if journal.is_inside():
            raise
        # The rest of it is done while writers continue: they need not wait for it.
        log.warning("an interrupted switch is not finished: %s", error)


def _act_on_target_phase(context: OpenContext) -> None:
    settings = context.settings
    control = FileControl(context.workspace / STATE_DIR)
    record = control.read() or PhaseRecord()
    target_phase = settings.phase
    if target_phase is None or target_phase == record.phase:
        return
    if settings.auto_switch and target_phase > record.phase and target_phase != record.target_phase:
        other = [
            p for p in living(control.path.parent) if p.target_phase not in {None, target_phase}
        ]
        if other:
            log.warning(
                "REGISTRY_PHASE=%d is ignored: process %d has the target phase %d",
                target_phase,
                other[0].pid,
                other[0].target_phase,
            )
            return
        if record.stepped_back:
            log.warning(
                "REGISTRY_PHASE=%d is ignored: an operator stepped back to phase %d",
                target_phase,
                record.phase,
            )
            return
        _switch_to_target_phase(context, control, record, target_phase)
        return
    log.warning(
        "REGISTRY_PHASE=%d is only a target: the workspace is in phase %d. To switch, run "
        "registry-backend switch %d",
        target_phase,
        record.phase,
        target_phase,
    )


def _switch_to_target_phase(
    context: OpenContext, control: FileControl, record: PhaseRecord, target_phase: int
) -> None:
    """Switch to the target phase, or wait for a process that does; failures are only logged."""
    deadline = time.monotonic() + _SWITCH_PATIENCE
    while (
        target_phase > record.phase
        and not record.stepped_back
        and target_phase != record.target_phase
    ):
        migration = open_migration(context.settings, plugins=context.plugins)
        try:
            report = migration.switch(
                MigrationPhase(target_phase), actor="auto-switch", only_from_epoch=record.epoch
            )
            if report.steps:
                control.note(epoch=record.epoch + len(report.steps), target_phase=target_phase)
        except Busy:
            if time.monotonic() > deadline:
                log.warning(
                    "REGISTRY_PHASE=%d is not reached: another switch is still running",
                    target_phase,
                )
                return
            time.sleep(0.1)
        except RegistryError as error:
            log.warning("REGISTRY_PHASE=%d is not reached: %s", target_phase, error)
            return
        finally:
            migration.close()
        record = control.read() or PhaseRecord()


def _refuse_second_registry(store: RegistryStore, context: OpenContext, name: str) -> None:
    """Refuse a store that would start empty next to an existing registry."""
    workspace = context.workspace
    if name == "dual":
        return  # the workspace's own registry
    default = name == "sqlite" and not context.location
    beside = has_legacy_registry(workspace) or (workspace / STATE_DIR / SQLITE_FILE).exists()
    if default or not beside or store.list_tasks(limit=1).items:
        return
    raise BackendMismatch(
        f"REGISTRY_BACKEND={name} would start empty next to the registry of {workspace}",
        next_step="Unset REGISTRY_BACKEND to use the existing registry, or name another workspace",
    )


def _wrapped(store: RegistryStore, context: OpenContext) -> RegistryStore:
    store = keep_logs(store, context)
    for impl in context.plugins.manager.hook.registry_wrap_store.get_hookimpls():
        values: dict[str, Any] = {"store": store, "context": context}
        wrapped: Any = impl.function(*(values[n] for n in impl.argnames))
        if wrapped is not None:
            store = wrapped
    if context.process is not None:
        store = MeteredStore(store, context.process)
    return observed(store, context.plugins)


def keep_logs(store: RegistryStore, context: OpenContext) -> RegistryStore:
    """Return the store with a log wrapper if it keeps no logs itself and they are configured."""
    hook = context.plugins.manager.hook.registry_keep_logs
    found: RegistryStore | None = hook(store=store, context=context)
    return found or store


def has_legacy_registry(workspace: Path) -> bool:
    """Return whether the workspace holds registries of the legacy, file-based orchestrator."""
    if (workspace / "registry" / "GLOBAL_REGISTRY.json").exists():
        return True
    return any(workspace.glob("*/AGENT_REGISTRY.json"))
