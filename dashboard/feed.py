"""The registry's changes for many listeners: read once, given to each from where it stands.

Beside the changes, which are numbered and come again, there are notices of this server, for those
who listen at the moment.
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

from registry_api import AsyncStore, Change, FeedCursor
from registry_api.errors import CursorExpired, RegistryError
from registry_api.models import KINDS

__all__ = ["Hub", "cursor_of", "name_of"]

log = logging.getLogger("registry_backend")
_KEPT = 5000  # changes that a listener may be behind without asking the store
_NOTICES = 100  # notices that a listener may be behind
_PAGE = 500
_POLL = 0.2  # seconds between two looks, while somebody listens
_LOOK_UP = 1.0  # seconds after which a listener sees that the server ends
_FORGET = 60.0  # seconds without a listener until nothing is kept for the next
_GATHER = 0.05  # seconds in which changes are gathered, while they come


@dataclass(frozen=True, slots=True)
class _Event:
    """A change as it is sent, written once for all listeners."""

    cursor: FeedCursor
    text: bytes


def name_of(cursor: FeedCursor) -> str:
    """Write a place in the feed as an event's id."""
    return f"{cursor.feed_id}:{cursor.number}"


def cursor_of(name: str | None) -> FeedCursor | None:
    """Read an event's id; None for one that is none."""
    feed_id, _, number = (name or "").rpartition(":")
    if not feed_id or not (number.isascii() and number.isdigit() and len(number) < 16):
        return None
    return FeedCursor(feed_id=feed_id, number=int(number))


def _written(name: str, data: dict[str, Any], cursor: FeedCursor | None = None) -> bytes:
    place = f"id: {name_of(cursor)}\r\n" if cursor else ""
    return f"event: {name}\r\n{place}data: ".encode() + orjson.dumps(data) + b"\r\n\r\n"


def _event(change: Change) -> _Event:
    """Write a change: {task_id, revision, at, actor, kinds, agents (at most 20)}."""
    records = [op.record for op in change.changeset.ops if hasattr(op, "record")]
    data = {
        "task_id": change.changeset.task_id,
        "revision": change.revision,
        "at": change.changeset.at.isoformat(),
        "actor": change.changeset.actor,
        "kinds": sorted({str(KINDS[type(r)]) for r in records}),
        "agents": sorted({r.agent_id for r in records if hasattr(r, "agent_id")})[:20],
    }
    return _Event(change.cursor, _written("change", data, change.cursor))


class Hub:
    """Follows one store, and the record of its move, while anybody listens."""

    def __init__(self, store: AsyncStore, record: Path) -> None:
        self._store = store
        self._record = record
        self._seen = self._stamp()
        self._recent: deque[_Event] = deque(maxlen=_KEPT)
        self._notices: deque[tuple[int, bytes]] = deque(maxlen=_NOTICES)
        self._said = 0
        self._at: FeedCursor | None = None
        self._known = False  # whether `_at` is a place that was looked up
        self._listeners = self._alone = 0
        self._moved = asyncio.Event()

    @property
    def listeners(self) -> int:
        """How many streams are open."""
        return self._listeners

    def notify(self, name: str, data: dict[str, Any]) -> None:
        """Tell all that listen now; called in the loop's thread."""
        self._said += 1
        self._notices.append((self._said, _written(name, data)))
        self._wake()

    def _wake(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    async def listen(self, after: FeedCursor | None, ending: anyio.Event) -> AsyncIterator[bytes]:
        """Yield every change after a place, without one from now on, and what is noticed, until the
        server ends.

        As server-sent events: ``hello`` once nothing more is missed; ``change`` with its place as
        id; ``reset`` where what followed the place is no longer kept and everything is to be looked
        at afresh; notices by their names.
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
                except RegistryError:  # who follows says so; it may be there again in a moment
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
        """Return what follows a place, waiting for it, or for a notice, where nothing does yet."""
        recent = self._recent
        reaches = bool(recent) and (
            place is not None
            and place.feed_id == recent[0].cursor.feed_id
            and place.number >= recent[0].cursor.number - 1
        )
        if reaches and place is not None:
            behind = recent[-1].cursor.number - place.number
            if behind > 0:  # numbers may have gaps, so this many at most
                newest = list(islice(reversed(recent), behind))
                return [e for e in reversed(newest) if e.cursor.number > place.number]
        if reaches or (self._known and place == self._at):
            with suppress(TimeoutError):
                await asyncio.wait_for(moved.wait(), _LOOK_UP)
            return []
        found = [_event(c) for c in await self._store.changes(place, limit=_PAGE)]
        if not found:
            with suppress(TimeoutError):  # it is ahead of what was read for all
                await asyncio.wait_for(moved.wait(), _POLL)
        return found

    async def follow(self) -> None:
        """Follow for ever."""
        while True:
            found = False
            try:
                found = await self._look()
            except CursorExpired:
                self._begin_anew()
            except RegistryError as error:  # asked again; who listens goes on waiting
                log.warning("the feed cannot be read: %s", error)
            except Exception:
                log.exception("the feed cannot be followed")
            await asyncio.sleep(_GATHER if found else _POLL)

    async def _look(self) -> bool:
        """Read what is new, while somebody listens; returns whether there was anything."""
        record = self._stamp()
        if record != self._seen:
            self._seen = record
            self.notify("migration", {})
        if not self._listeners:
            self._alone += 1
            if self._alone * _POLL > _FORGET:  # or the next one waits for all that came meanwhile
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
        """Forget what was read: between that and the feed's end there may be a gap."""
        self._recent.clear()
        self._known = False

    def _stamp(self) -> tuple[int, int] | None:
        """Return what changes with a switch, which is no change of a task."""
        with suppress(OSError):
            about = self._record.stat()
            return about.st_ino, about.st_mtime_ns
        return None

    async def _end(self) -> FeedCursor | None:
        return await self._store.end_of_feed()
