"""Open the store that the settings and the workspace call for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from registry_api.errors import Busy, RegistryError
from registry_api.migration.gate import Gate
from registry_api.migration.phase_file import PhaseFile
from registry_api.migration.switch_journal import SwitchJournal
from registry_api.opening.auto_switch import act_on_target_phase
from registry_api.opening.migrations import open_migration
from registry_api.opening.resolve import choose_store, refuse_role, refuse_second_registry
from registry_api.plugins.context import OpenContext
from registry_api.plugins.manager import Plugins, load_plugins
from registry_api.settings import Settings, load_settings
from registry_api.store import Capability, RegistryStore
from registry_api.typed_errors import typed_errors
from registry_api.workspace.instance import make_state_folder
from registry_api.workspace.paths import SQLITE_FILE, STATE_DIR
from registry_api.workspace.processes import Process
from registry_api.workspace.store_location import public, usable
from registry_api.wrappers.border import Border
from registry_api.wrappers.events import observed
from registry_api.wrappers.gated import GatedStore
from registry_api.wrappers.metrics import MeteredStore
from registry_api.wrappers.role_check import writer_only

__all__ = ["keep_logs", "open_store"]

log = logging.getLogger("registry_backend")


def _now() -> datetime:
    return datetime.now(UTC)


def open_store(
    settings: Settings | None = None,
    *,
    plugins: Plugins | None = None,
    read_only: bool = False,
    gated: bool = True,
    now: Callable[[], datetime] = _now,
) -> RegistryStore:
    """Open the configured store; close it when done.

    A workspace with a recorded move opens that move, whatever is configured; one with legacy
    registries and no record opens the move json -> sqlite in phase 0; an empty one opens
    ``sqlite``. Naming one store of a recorded move, or a store that would start empty next to an
    existing registry, is refused (BackendMismatch). ``read_only`` changes no registry.

    A persistent store is opened with the gate, so that a move can begin while this process runs.
    ``gated=False`` opens the named store itself, for tests of a store.
    """
    settings = settings or load_settings()
    plugins = plugins or load_plugins()
    context = OpenContext(settings=settings, plugins=plugins, read_only=read_only, now=now)
    with typed_errors():
        return Border(_opened(context, gated=gated))


def _opened(context: OpenContext, *, gated: bool) -> RegistryStore:
    plugins, read_only = context.plugins, context.read_only
    name, location = choose_store(context)
    named, _, where = context.settings.backend.partition("://")
    if not gated and named not in {"auto", "dual"}:
        name, location = named, where
    context = replace(context, location=location)
    if name == "dual" and not read_only:
        return _wrapped(*_open_move(context))
    store = plugins.factory(name)(replace(context, location=_usable(context, name, location)))
    try:
        refuse_second_registry(store, context, name)
        refuse_role(store, context, name)
    except BaseException:
        store.close()
        raise
    if read_only:
        # In its own workspace the phase record says what a store is, also while a switch is undone.
        return _wrapped(store if name == "dual" else writer_only(store), context)
    if Capability.PERSISTENT not in store.info.capabilities:
        return _wrapped(store, context)
    if not gated:
        return _wrapped(store, _counted(context))
    place = public(f"{name}://{location}" if location else name)
    if place != "sqlite" and not (context.workspace / STATE_DIR / SQLITE_FILE).exists():
        # Else a program without this setting would start another registry in the workspace.
        PhaseFile(context.workspace / STATE_DIR).record_store(place)
    return _wrapped(*_open_move(replace(context, location=place, opened={place: store})))


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


def _open_move(context: OpenContext) -> tuple[RegistryStore, OpenContext]:
    """Open the move with its gate, and act on a target phase that differs from the record."""
    folder = context.workspace / STATE_DIR
    make_state_folder(folder)
    context = _counted(context)
    process = context.process
    assert process is not None
    try:
        _recover_dead_switch(context)
        act_on_target_phase(context)
        gate = Gate(folder, timeout=context.settings.lock_timeout, measure=process.passed_gate)
        with gate.passing():
            store = context.plugins.factory("dual")(context)
    except BaseException:
        process.close()
        for opened in context.opened.values():
            opened.close()
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


def _wrapped(store: RegistryStore, context: OpenContext) -> RegistryStore:
    store = keep_logs(store, context)
    for impl in context.plugins.manager.hook.registry_wrap_store.get_hookimpls():
        values: dict[str, Any] = {"store": store, "context": context}
        wrapped: Any = impl.function(*(values[n] for n in impl.argnames))
        if wrapped is not None:
            store = wrapped
    if context.process is not None:
        store = MeteredStore(store, context.process)
    return observed(store, context.plugins.manager.hook)


def keep_logs(store: RegistryStore, context: OpenContext) -> RegistryStore:
    """Return the store with a log wrapper if it keeps no logs itself and they are configured."""
    hook = context.plugins.manager.hook.registry_keep_logs
    found: RegistryStore | None = hook(store=store, context=context)
    return found or store
