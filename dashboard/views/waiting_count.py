"""How many phases wait for a human, for the title and the icon of every page."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from dashboard.views.summary import waiting_phases
from registry_api import FeedCursor, RegistryStore
from registry_api.errors import RegistryError
from registry_api.workspace import at_most

__all__ = ["WaitingCount"]

_FRESH = 1.0  # seconds for which a count is reused, if no change was seen meanwhile
_READING = 0.1  # seconds to wait for locks: a page must not wait for a switch of another program


class WaitingCount:
    """The count of one store. ``seen`` returns the last change that listeners were told."""

    def __init__(self, store: RegistryStore, seen: Callable[[], FeedCursor | None]) -> None:
        self._store, self._seen = store, seen
        self._known: tuple[float, FeedCursor | None, int] = (-_FRESH, None, 0)

    def __call__(self) -> int:
        """Return the count; the last one known if the store cannot be read now."""
        now, seen = time.monotonic(), self._seen()
        at, before, count = self._known
        if now - at >= _FRESH or seen != before:
            with suppress(RegistryError), at_most(_READING):
                count = waiting_phases(self._store)
            self._known = now, seen, count
        return count
