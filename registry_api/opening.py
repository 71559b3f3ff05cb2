"""Open the store that the settings and the workspace call for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from registry_api.errors import BackendMismatch
from registry_api.observed import observed
from registry_api.plugins import Plugins, load_plugins
from registry_api.settings import Settings, load_settings
from registry_api.store import RegistryStore

__all__ = ["OpenContext", "has_legacy_registry", "open_store"]

STATE_DIR = ".registry"
SQLITE_FILE = "registry.sqlite3"


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenContext:
    """What a store factory is given: ``location`` is what follows ``scheme://``, often empty."""

    settings: Settings
    plugins: Plugins
    location: str = ""
    read_only: bool = False
    now: Callable[[], datetime] = _now

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

    ``auto`` opens what the workspace holds: a legacy registry as ``json``, else ``sqlite``. A named
    store that would start empty beside a registry that is not is refused (BackendMismatch).
    ``read_only`` changes nothing on disk, not even in a workspace never opened before.
    """
    settings = settings or load_settings()
    plugins = plugins or load_plugins()
    name, _, location = settings.backend.partition("://")
    if name == "auto":
        name = _found(settings.workspace)
    else:
        _refuse_second_truth(settings.workspace, name)
    context = OpenContext(
        settings=settings, plugins=plugins, location=location, read_only=read_only, now=now
    )
    store = plugins.factory(name)(context)
    for wrapped in _wrapped(store, context):
        store = wrapped
    return observed(store, plugins)


def _wrapped(store: RegistryStore, context: OpenContext) -> list[RegistryStore]:
    out = []
    for impl in context.plugins.manager.hook.registry_wrap_store.get_hookimpls():
        values: dict[str, Any] = {"store": store, "context": context}
        wrapped: Any = impl.function(*(values[n] for n in impl.argnames))
        if wrapped is not None:
            store = wrapped
            out.append(store)
    return out


def has_legacy_registry(workspace: Path) -> bool:
    """Whether the workspace holds registries of the older, file-based orchestrator."""
    if (workspace / "registry" / "GLOBAL_REGISTRY.json").exists():
        return True
    return any(workspace.glob("*/AGENT_REGISTRY.json"))


def _sqlite(workspace: Path) -> Path:
    return workspace / STATE_DIR / SQLITE_FILE


def _found(workspace: Path) -> str:
    """What ``auto`` means here. A SQLite registry of ours wins: it was chosen before."""
    if not _sqlite(workspace).exists() and has_legacy_registry(workspace):
        return "json"
    return "sqlite"


def _refuse_second_truth(workspace: Path, name: str) -> None:
    if name == "sqlite" and not _sqlite(workspace).exists() and has_legacy_registry(workspace):
        raise BackendMismatch(
            f"REGISTRY_BACKEND=sqlite would start empty beside the JSON registry of {workspace}",
            next_step="Unset REGISTRY_BACKEND to go on with what is there",
        )
    if name == "json" and _sqlite(workspace).exists():
        raise BackendMismatch(
            f"REGISTRY_BACKEND=json would start beside the SQLite registry of {workspace}",
            next_step="Unset REGISTRY_BACKEND to go on with what is there",
        )
