"""The open stores of a workspace: opened when first needed, closed when a move has left them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress

from backends.dual_write.best_effort import answering_target
from registry_api.errors import RegistryError
from registry_api.migration import PhaseRecord
from registry_api.store import RegistryStore
from registry_api.wrappers import writer_only

__all__ = ["OpenStores"]

Open = Callable[[str, PhaseRecord], RegistryStore]
Log = Callable[[RegistryStore, PhaseRecord], RegistryStore]


class OpenStores:
    """The open stores by name or URL, each also with the logs that are kept for it."""

    def __init__(
        self,
        open_store: Open,
        keep_logs: Log,
        look_at: Open,
        opened: Mapping[str, RegistryStore] | None = None,
    ) -> None:
        """``look_at`` opens a store for reading only."""
        self._open = open_store
        self.look_at = look_at
        self._keep_logs = keep_logs
        self._lock = threading.RLock()
        self._stores: dict[str, RegistryStore] = dict(opened or {})
        self._logged: dict[tuple[str, bool], RegistryStore] = {}
        self._readers: dict[str, RegistryStore] = {}

    def get(self, place: str, record: PhaseRecord) -> RegistryStore:
        """Return the store of a name or URL; raises what opening it raises."""
        found = self._stores.get(place)
        if found is not None:
            return found
        with self._lock:
            if place not in self._stores:
                self._stores[place] = self._open(place, record)
            return self._stores[place]

    def logged(self, place: str, record: PhaseRecord) -> RegistryStore:
        """Return the store, wrapped so that its commits are logged, where logs are kept."""
        key = place, record.phase > 0
        found = self._logged.get(key)
        if found is not None:
            return found
        with self._lock:
            if key not in self._logged:
                self._logged[key] = self._keep_logs(self.get(place, record), record)
            return self._logged[key]

    def opened(self, place: str) -> RegistryStore | None:
        """Return a store if it is open."""
        return self._stores.get(place)

    def reader(self, place: str, record: PhaseRecord) -> RegistryStore:
        """Return the store, for the reads of callers while it is the writer of record."""
        found = self._readers.get(place)
        if found is not None:
            return found
        with self._lock:
            if place not in self._readers:
                self._readers[place] = writer_only(self.get(place, record))
            return self._readers[place]

    def keep_only(self, places: Collection[str]) -> None:
        """Close the stores of other places; one that fails to close, or hangs, is left."""
        with self._lock:
            gone = [place for place in self._stores if place not in places]
            for place in gone:
                store = self._stores.pop(place)
                self._readers.pop(place, None)
                wrapped = [self._logged.pop((place, moving), store) for moving in (False, True)]
                with suppress(RegistryError, OSError), answering_target():
                    for closing in {id(s): s for s in wrapped}.values():
                        closing.close()

    def drop(self, place: str) -> None:
        """Close one store: what it was opened on has been removed."""
        self.keep_only(self._stores.keys() - {place})

    def close(self) -> None:
        """Close every store."""
        self.keep_only(())
