"""Follow a store's feed."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from registry_api.changeset import Change, FeedCursor
from registry_api.errors import Unavailable
from registry_api.store import RegistryStore

__all__ = ["follow"]


def follow(
    store: RegistryStore,
    after: FeedCursor | None = None,
    *,
    task_id: str | None = None,
    stop: threading.Event | None = None,
    poll: float = 0.1,
) -> Iterator[Change]:
    """Yield every change after a cursor, and go on as they come until ``stop`` is set.

    Resume with the ``cursor`` of the last change that was dealt with: nothing is skipped, and what
    was dealt with is not repeated. ``poll`` is in seconds. Raises CursorExpired when the place is
    no longer kept; a store that is Unavailable is asked again.
    """
    stop = stop or threading.Event()
    while not stop.is_set():
        try:
            changes = store.changes(after, task_id=task_id)
        except Unavailable:
            changes = ()
        for change in changes:
            yield change
            after = change.cursor
        if not changes:
            stop.wait(poll)
