"""The counter of feed numbers: gives out each number once, without a sync for each one."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from registry_api.errors import Busy, CorruptDocument
from registry_api.workspace import Flock, ForkSafeLock, giving_way, open_owned, patience

__all__ = ["FeedNumbers"]

_BLOCK = 4096
_SIZE = 256  # fixed, so that one write of less than a page replaces the whole file


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class FeedNumbers:
    """The counter in ``.registry/json/feed``; ``taken`` returns the highest number in any journal.

    ``next`` is written without a sync, ``ceiling`` with one: after a reboot (a power loss may have
    undone unsynced writes) numbering continues from the ceiling, which no number has reached.
    """

    def __init__(self, folder: Path, *, timeout: float, taken: Callable[[], int]) -> None:
        self._taken = taken
        self._path = folder / "feed"
        self._timeout = timeout
        self._lock = Flock(folder / "feed.lock")
        self._thread = ForkSafeLock()
        self._feed_id = ""

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the counter: nobody else draws a number meanwhile."""
        deadline = time.monotonic() + patience(self._timeout)
        if not self._thread.acquire(timeout=deadline - time.monotonic()):
            raise Busy(f"another thread holds {self._path}", next_step="Try again")
        try:
            with giving_way(None):  # held only briefly, by callers that have begun a write
                self._lock.acquire(timeout=deadline - time.monotonic())
            try:
                yield
            finally:
                self._lock.release()
        finally:
            self._thread.release()

    def peek(self) -> tuple[str, int]:
        """Return (feed id, the next number); inside ``locked``."""
        state = self._load()
        return state["feed_id"], state["next"]

    def feed_id(self) -> str:
        """Return the feed's id as last read, reading it now if it was never read."""
        if not self._feed_id:
            with self.locked():
                self._load()
        return self._feed_id

    def draw(self) -> int:
        """Draw the next number and return it; inside ``locked``.

        The caller writes it into an intent before it leaves ``locked``.
        """
        state = self._load()
        number: int = state["next"]
        state["next"] = number + 1
        self._store(state)
        return number

    def follow(self, feed_id: str, number: int) -> None:
        """Continue after ``number`` in the feed of a store that was the writer of record."""
        with self.locked():
            state = self._load()
            if state["feed_id"] != feed_id or state["next"] <= number:
                state["feed_id"] = feed_id
                state["next"] = max(state["next"], number + 1)
                self._store(state)

    def _load(self) -> dict[str, Any]:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            data = b""
        if not data:
            # New or lost: start a new feed, whose numbers begin above all numbers used so far.
            fresh = {
                "feed_id": str(uuid.uuid4()),
                "next": self._taken() + 1,
                "ceiling": 0,
                "boot": "",
            }
            self._store(fresh)
            return fresh
        try:
            state: dict[str, Any] = orjson.loads(data)
        except orjson.JSONDecodeError:
            raise CorruptDocument(
                f"{self._path} is damaged",
                next_step="Move it away: a new feed then starts, and subscribers load the tasks "
                "again",
            ) from None
        if state["boot"] != _boot():
            state["next"] = state["ceiling"]
        self._feed_id = state["feed_id"]
        return state

    def _store(self, state: dict[str, Any]) -> None:
        sync = False
        boot = _boot()
        if state["boot"] != boot or state["next"] >= state["ceiling"]:
            state["ceiling"] = state["next"] + _BLOCK
            state["boot"] = boot
            sync = True
        self._feed_id = state["feed_id"]
        data = orjson.dumps(state).ljust(_SIZE)
        fd = open_owned(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)
        try:
            os.pwrite(fd, data, 0)
            if sync or not boot:
                os.fsync(fd)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Close the lock's descriptor."""
        self._lock.close()
