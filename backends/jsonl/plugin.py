"""The plugin: keeps logs for every local store that does not keep them itself."""

from __future__ import annotations

from backends.jsonl.health import check_logs
from backends.jsonl.store import LoggedStore, is_kept_for
from backends.jsonl.times import Times
from registry_api.plugins import OpenContext, RegisterCheck, hookimpl
from registry_api.store import RegistryStore

__all__ = ["registry_keep_logs", "registry_register_health_checks"]


@hookimpl
def registry_register_health_checks(register: RegisterCheck) -> None:
    """Offer the check ``logs``."""
    register("logs", check_logs)


@hookimpl
def registry_keep_logs(store: RegistryStore, context: OpenContext) -> RegistryStore | None:
    """Wrap a store whose content outlives the process, unless it is opened for reading only."""
    if context.read_only or not is_kept_for(store, context.settings):
        return None
    times = Times.named(context.settings.legacy_tz)
    return LoggedStore(store, context.workspace, times=times, now=context.now)
