"""The documents used last, parsed and as bytes: most writes follow another one of the same task."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

from registry_api.flock import ForkSafeLock

__all__ = ["Cached", "DocumentCache"]

_BYTES = 4 * 2**20


class Cached(NamedTuple):
    """A document: the hash of its bytes, its value, its bytes."""

    hash: str
    document: dict[str, Any]
    data: bytes


class DocumentCache:
    """Forgets what was used longest ago beyond 4 MiB of bytes, which are five times as much
    when parsed; thread-safe.

    Who changes a document in memory takes it out before, and puts it back with its bytes.
    """

    def __init__(self) -> None:
        self._lock = ForkSafeLock()
        self._held = OrderedDict[str, Cached]()
        self._size = 0

    def get(self, task_id: str) -> Cached | None:
        """Return what is known of a task's document."""
        with self._lock:
            if task_id in self._held:
                self._held.move_to_end(task_id)
            return self._held.get(task_id)

    def put(self, task_id: str, cached: Cached) -> None:
        """Keep a document."""
        with self._lock:
            self.drop(task_id)
            self._held[task_id] = cached
            self._size += len(cached.data)
            while self._size > _BYTES and len(self._held) > 1:
                self._size -= len(self._held.popitem(last=False)[1].data)

    def drop(self, task_id: str) -> None:
        """Forget a document."""
        with self._lock:
            gone = self._held.pop(task_id, None)
            if gone is not None:
                self._size -= len(gone.data)
