"""The plugins of this installation, the open store, and what doctor's checks find."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from dashboard.answers import sendable
from registry_api import OpenContext, Plugins, RegistryStore, Settings
from registry_api.diagnostics import RECOUNT, examine

__all__ = ["System"]

_FRESH = 30.0  # seconds for which the results of the checks are reused
_RECOUNTED = 50_000  # records up to which a page recounts them all


class System:
    """The plugins, the store and the findings of one workspace; thread-safe."""

    def __init__(
        self, settings: Settings, plugins: Plugins, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._plugins = plugins
        self._context = OpenContext(settings=settings, plugins=plugins)
        self._clock = clock
        self._lock = threading.Lock()
        self._looked: tuple[float, dict[str, Any]] | None = None

    def to_dict(self, store: RegistryStore) -> dict[str, Any]:
        """Return the store, the plugins and the findings.

        ``recounted``: whether the registry was small enough to count every record.
        """
        with self._lock:
            if self._looked is None or self._clock() - self._looked[0] >= _FRESH:
                self._looked = self._clock(), sendable(self._look(store))
            return self._looked[1]

    def _look(self, store: RegistryStore) -> dict[str, Any]:
        info = store.info
        small = sum(store.counts().records.values()) <= _RECOUNTED
        without = frozenset[str]() if small else frozenset({RECOUNT})
        found = examine(self._context, without=without)
        return {
            "store": {
                "name": info.name,
                "contract": info.contract_version,
                "capabilities": sorted(str(c) for c in info.capabilities),
            },
            "plugins": [plugin.to_dict() for plugin in self._plugins.loaded],
            "findings": [one.to_dict() for one in found],
            "recounted": small,
        }
