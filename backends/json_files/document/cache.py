"""A cache of recently used documents, parsed and as bytes: writes to one task come in a row."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

from registry_api.workspace import ForkSafeLock

__all__ = ["Cached", "DocumentCache"]

_BYTES = 4 * 2**20


class Cached(NamedTuple):
    """A document: the hash of its bytes, its parsed value, its bytes."""

    hash: str
    document: dict[str, Any]
    data: bytes


class DocumentCache:
    """An LRU cache of at most 4 MiB of document bytes; thread-safe.

    A parsed document takes about five times as much memory as its bytes. A caller that changes a
    document in memory drops it first, and puts it back with its new bytes.
    """

    def __init__(self) -> None:
        self._lock = ForkSafeLock()
        self._held = OrderedDict[str, Cached]()
        self._size = 0

    def get(self, task_id: str) -> Cached | None:
        """Return the cached document of a task, None if there is none."""
        with self._lock:
            if task_id in self._held:
                self._held.move_to_end(task_id)
            return self._held.get(task_id)

    def put(self, task_id: str, cached: Cached) -> None:
        """Cache a document."""
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
