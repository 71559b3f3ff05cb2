"""The plugin: offers the store as ``json``."""

from __future__ import annotations

from backends.json_files.view import JsonView
from backends.jsonl.times import Times
from registry_api.errors import NotSupported
from registry_api.hooks import RegisterStore, hookimpl
from registry_api.opening import OpenContext
from registry_api.store import RegistryStore


@hookimpl
def registry_register_stores(register: RegisterStore) -> None:
    """Offer the store as ``json``."""
    register("json", _open)


def _open(context: OpenContext) -> RegistryStore:
    times = Times.named(context.settings.legacy_tz)
    if not context.read_only:
        raise NotSupported(
            "the json store can only be read in this version", next_step="Open it with read_only"
        )
    return JsonView(context.workspace, times=times)
