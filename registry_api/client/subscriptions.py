"""Follow a store's feed."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from registry_api.errors import Unavailable
from registry_api.records.changeset import Change, FeedCursor
from registry_api.store import RegistryStore

__all__ = ["end_of_feed", "follow"]

_FAR = 2**52


def follow(
    store: RegistryStore,
    after: FeedCursor | None = None,
    *,
    task_id: str | None = None,
    stop: threading.Event | None = None,
    poll: float = 0.1,
) -> Iterator[Change]:
    """Yield every change after a cursor, then new ones as they come, until ``stop`` is set.

    Resume with the ``cursor`` of the last change that was processed: no change is skipped or
    repeated. ``poll`` is in seconds. Raises CursorExpired when the feed no longer holds what
    follows the cursor; a store that is Unavailable is asked again.
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


def end_of_feed(store: RegistryStore) -> FeedCursor | None:
    """Return the cursor of the newest change, None if there is none; takes about fifty reads."""
    first = store.changes(None, limit=1)
    if not first:
        return None
    feed_id = first[0].cursor.feed_id
    low, high = first[0].cursor.number, _FAR
    while low < high:
        middle = (low + high) // 2
        more = store.changes(FeedCursor(feed_id=feed_id, number=middle), limit=1)
        if more:
            low = more[0].cursor.number
        else:
            high = middle
    return FeedCursor(feed_id=feed_id, number=low)
