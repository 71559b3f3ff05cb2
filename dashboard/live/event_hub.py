"""The registry's changes for many listeners: read once, sent to each from its own position.

Changes are numbered, so a listener can resume after one. Notices of this server are not: they reach
only the current listeners.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import anyio
import orjson

from registry_api import AsyncStore, Change, FeedCursor, Put
from registry_api.errors import CursorExpired, RegistryError
from registry_api.records import KINDS

__all__ = ["Hub", "cursor_of", "name_of"]

log = logging.getLogger("registry_backend")
_KEPT = 5000  # newest changes in memory; a listener further behind reads the store
_NOTICES = 100  # newest notices in memory; a listener further behind misses some
_PAGE = 500
_POLL = 0.2  # seconds between two reads of the feed, while there are listeners
_LOOK_UP = 1.0  # seconds within which a listener notices that the server ends
_FORGET = 60.0  # seconds without listeners after which the changes in memory are dropped
_GATHER = 0.05  # seconds between two reads while changes keep coming, to send them together


@dataclass(frozen=True, slots=True)
class _Event:
    """A change as a server-sent event, encoded once for all listeners."""

    cursor: FeedCursor
    text: bytes


def name_of(cursor: FeedCursor) -> str:
    """Return a feed cursor as an event id."""
    return f"{cursor.feed_id}:{cursor.number}"


def cursor_of(name: str | None) -> FeedCursor | None:
    """Return the cursor of an event id; None if the id is not valid."""
    feed_id, _, number = (name or "").rpartition(":")
    if not feed_id or not (number.isascii() and number.isdigit() and len(number) < 16):
        return None
    return FeedCursor(feed_id=feed_id, number=int(number))


def _written(name: str, data: dict[str, Any], cursor: FeedCursor | None = None) -> bytes:
    place = f"id: {name_of(cursor)}\r\n" if cursor else ""
    return f"event: {name}\r\n{place}data: ".encode() + orjson.dumps(data) + b"\r\n\r\n"


def _event(change: Change) -> _Event:
    """Encode a change: {task_id, revision, at, actor, kinds, agents (at most 20)}."""
    records = [op.record for op in change.changeset.ops if isinstance(op, Put)]
    agents = {agent for r in records if (agent := getattr(r, "agent_id", None)) is not None}
    data = {
        "task_id": change.changeset.task_id,
        "revision": change.revision,
        "at": change.changeset.at.isoformat(),
        "actor": change.changeset.actor,
        "kinds": sorted({str(KINDS[type(r)]) for r in records}),
        "agents": sorted(agents)[:20],
    }
    return _Event(change.cursor, _written("change", data, change.cursor))


class Hub:
    """The event source of one store: follows its feed and its phase record for all listeners."""

    def __init__(self, store: AsyncStore, record: Path) -> None:
        self._store = store
        self._record = record
        self._seen = self._stamp()
        self._recent: deque[_Event] = deque(maxlen=_KEPT)
        self._notices: deque[tuple[int, bytes]] = deque(maxlen=_NOTICES)
        self._said = 0
        self._at: FeedCursor | None = None
        self._known = False  # whether `_at` was read from the store
        self._listeners = self._alone = 0
        self._moved = asyncio.Event()

    @property
    def at(self) -> FeedCursor | None:
        """The last change that was sent; it stands still while nobody listens."""
        return self._at

    @property
    def listeners(self) -> int:
        """The number of open streams."""
        return self._listeners

    def notify(self, name: str, data: dict[str, Any]) -> None:
        """Send a notice to all current listeners; called in the event loop's thread."""
        self._said += 1
        self._notices.append((self._said, _written(name, data)))
        self._wake()

    def _wake(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    async def listen(self, after: FeedCursor | None, ending: anyio.Event) -> AsyncIterator[bytes]:
        """Yield the changes after a cursor, or from now on, and the notices, until the server ends.

        As server-sent events: ``hello`` once no later change can be missed; ``change`` with its
        cursor as id; ``reset`` if the changes after the cursor are no longer kept, so that the
        client must fetch everything again; notices by their names.
        """
        self._listeners += 1
        heard = self._said
        try:
            place = after or await self._end()
            yield b"retry: 1000\r\n" + _written("hello", {})
            while not ending.is_set():
                moved = self._moved
                try:
                    found = await self._next(place, moved)
                except CursorExpired:
                    place = await self._end()
                    yield _written("reset", {}, place)
                    continue
                except RegistryError:  # `follow` logs it; try again
                    await asyncio.sleep(_LOOK_UP)
                    continue
                if found:
                    place = found[-1].cursor
                notices = [text for n, text in self._notices if n > heard]
                heard = self._said
                if found or notices:
                    yield b"".join([*(event.text for event in found), *notices])
        finally:
            self._listeners -= 1

    async def _next(self, place: FeedCursor | None, moved: asyncio.Event) -> list[_Event]:
        """Return the changes after a cursor; wait for a change or a notice if there are none."""
        recent = self._recent
        reaches = bool(recent) and (
            place is not None
            and place.feed_id == recent[0].cursor.feed_id
            and place.number >= recent[0].cursor.number - 1
        )
        if reaches and place is not None:
            behind = recent[-1].cursor.number - place.number
            if behind > 0:  # at most this many: feed numbers may have gaps
                newest = list(islice(reversed(recent), behind))
                return [e for e in reversed(newest) if e.cursor.number > place.number]
        if reaches or (self._known and place == self._at):
            with suppress(TimeoutError):
                await asyncio.wait_for(moved.wait(), _LOOK_UP)
            return []
        found = [_event(c) for c in await self._store.changes(place, limit=_PAGE)]
        if not found:
            with suppress(TimeoutError):  # this listener is ahead of the shared read
                await asyncio.wait_for(moved.wait(), _POLL)
        return found

    async def follow(self) -> None:
        """Follow the feed until cancelled."""
        while True:
            found = False
            try:
                found = await self._look()
            except CursorExpired:
                self._begin_anew()
            except RegistryError as error:  # tried again; the listeners keep waiting
                log.warning("the feed cannot be read: %s", error)
            except Exception:
                log.exception("following the feed failed")
            await asyncio.sleep(_GATHER if found else _POLL)

    async def _look(self) -> bool:
        """Read new changes if there are listeners; returns whether there were any."""
        record = self._stamp()
        if record != self._seen:
            self._seen = record
            self.notify("migration", {})
        if not self._listeners:
            self._alone += 1
            if self._alone * _POLL > _FORGET:  # else the next one waits for a backlog
                self._begin_anew()
            return False
        self._alone = 0
        if not self._known:
            self._at, self._known = await self._end(), True
        found = await self._store.changes(self._at, limit=_PAGE)
        if found:
            self._recent.extend(map(_event, found))
            self._at = found[-1].cursor
            self._wake()
        return bool(found)

    def _begin_anew(self) -> None:
        """Drop the changes in memory: there may be a gap between them and the feed's end."""
        self._recent.clear()
        self._known = False

    def _stamp(self) -> tuple[int, int] | None:
        """Return inode and mtime of the phase record: a switch changes only them, not the feed."""
        with suppress(OSError):
            about = self._record.stat()
            return about.st_ino, about.st_mtime_ns
        return None

    async def _end(self) -> FeedCursor | None:
        return await self._store.end_of_feed()
