"""The plugin: keeps the logs round every local store that does not keep them itself."""

from __future__ import annotations

from backends.jsonl.store import LoggedStore
from backends.jsonl.times import Times
from registry_api.hooks import hookimpl
from registry_api.opening import OpenContext
from registry_api.store import Capability, RegistryStore
from registry_api.zone import machine_zone

__all__ = ["registry_keep_logs"]


@hookimpl
def registry_keep_logs(store: RegistryStore, context: OpenContext) -> RegistryStore | None:
    """Wrap a store whose content outlives the process, unless it is opened for reading only."""
    has = store.info.capabilities
    settings = context.settings
    if settings.logs == "off" or context.read_only or Capability.LOGGED in has:
        return None
    if Capability.PERSISTENT not in has:
        return None
    times = Times.named(settings.legacy_tz or machine_zone())
    return LoggedStore(store, context.workspace, times=times, now=context.now)
