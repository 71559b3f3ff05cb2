"""The registry's changes for many listeners: read once, given to each from where it stands."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from registry_api import AsyncStore, Change, FeedCursor
from registry_api.errors import CursorExpired, RegistryError

__all__ = ["Hub", "Reset", "cursor_of", "name_of"]

log = logging.getLogger("registry_backend")
_KEPT = 5000  # changes that a listener may be behind without asking the store
_PAGE = 500
_POLL = 0.2  # seconds between two looks, while somebody listens
_FAR = 2**52


@dataclass(frozen=True, slots=True)
class Reset:
    """What followed the listener's place is no longer kept: look at everything afresh."""

    cursor: FeedCursor | None


def name_of(cursor: FeedCursor) -> str:
    """Write a place in the feed as an event's id."""
    return f"{cursor.feed_id}:{cursor.number}"


def cursor_of(name: str | None) -> FeedCursor | None:
    """Read an event's id; None for one that is none."""
    feed_id, _, number = (name or "").rpartition(":")
    if not feed_id or not (number.isascii() and number.isdigit() and len(number) < 16):
        return None
    return FeedCursor(feed_id=feed_id, number=int(number))


class Hub:
    """Follows one store while anybody listens."""

    def __init__(self, store: AsyncStore) -> None:
        self._store = store
        self._recent: deque[Change] = deque(maxlen=_KEPT)
        self._at: FeedCursor | None = None
        self._listeners = 0
        self._moved = asyncio.Condition()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow the store until left."""
        task = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def listen(self, after: FeedCursor | None) -> AsyncIterator[Change | Reset]:
        """Yield every change after a place, without one from now on, for ever."""
        self._listeners += 1
        try:
            place = after or await self._end()
            while True:
                try:
                    found = await self._next(place)
                except CursorExpired:
                    place = await self._end()
                    yield Reset(place)
                    continue
                for change in found:
                    yield change
                    place = change.cursor
        finally:
            self._listeners -= 1

    async def _next(self, place: FeedCursor | None) -> list[Change]:
        """Return what follows a place, waiting for it where nothing does yet."""
        async with self._moved:
            recent = self._recent
            reaches = bool(recent) and (
                place is not None
                and place.feed_id == recent[0].cursor.feed_id
                and place.number >= recent[0].cursor.number - 1
            )
            if reaches and place is not None:
                found = [c for c in recent if c.cursor.number > place.number]
                if found:
                    return found
            if reaches or place == self._at:
                await self._moved.wait()
                return []
        found = list(await self._store.changes(place, limit=_PAGE))
        if not found:
            await asyncio.sleep(_POLL)  # it is ahead of what was read for all
        return found

    async def _follow(self) -> None:
        known = False
        while True:
            found: tuple[Change, ...] = ()
            try:
                if not known:
                    self._at, known = await self._end(), True
                if self._listeners:
                    found = await self._store.changes(self._at, limit=_PAGE)
            except CursorExpired:
                self._recent.clear()
                known = False
            except RegistryError as error:  # asked again; who listens goes on waiting
                log.warning("the feed cannot be read: %s", error)
            if found:
                async with self._moved:
                    self._recent.extend(found)
                    self._at = found[-1].cursor
                    self._moved.notify_all()
            else:
                await asyncio.sleep(_POLL)

    async def _end(self) -> FeedCursor | None:
        """Return the feed's end, in some fifty looks: it has no line for it."""
        first = await self._store.changes(None, limit=1)
        if not first:
            return None
        low, high = first[0].cursor.number, _FAR
        while low < high:
            middle = (low + high) // 2
            after = FeedCursor(feed_id=first[0].cursor.feed_id, number=middle)
            more = await self._store.changes(after, limit=1)
            if more:
                low = more[0].cursor.number
            else:
                high = middle
        return FeedCursor(feed_id=first[0].cursor.feed_id, number=low)
