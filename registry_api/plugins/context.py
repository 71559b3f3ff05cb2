"""What a store factory is given to open a store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from registry_api.plugins.manager import Plugins
from registry_api.settings import Settings
from registry_api.store import RegistryStore
from registry_api.workspace.processes import Process

__all__ = ["OpenContext"]


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenContext:
    """The context that a store factory receives; ``location`` follows ``scheme://``, often empty.

    ``process`` counts this process's operations, for metrics. ``removed``: a move has removed the
    store; opening it must not create it again. ``opened``: stores that are open already, by name or
    URL; the store that is opened over them closes them.
    """

    settings: Settings
    plugins: Plugins
    location: str = ""
    read_only: bool = False
    now: Callable[[], datetime] = _now
    process: Process | None = None
    removed: bool = False
    opened: Mapping[str, RegistryStore] = field(default_factory=dict)

    @property
    def workspace(self) -> Path:
        """The workspace's directory."""
        return self.settings.workspace
