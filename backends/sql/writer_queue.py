"""Whose turn it is to write to a SQLite file, among the threads and processes that ask.

Two lock files: who holds the queue waits for the turn, so that nobody starves (worst wait of 8
writers 2.0 s without, 90 ms with). Who had the turn may take it again for a few milliseconds: a
commit of another process finds its caches cold, and to change with every commit halves what eight
processes get done (docs/decisions/0005).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from registry_api.errors import Busy
from registry_api.flock import Flock, acquire_within

__all__ = ["WriterQueue"]

_BURST, _AT_ONCE = 0.003, 0.0002  # seconds


def _aging(waited: float) -> float:
    """Who has waited longer looks more often, and so comes first."""
    return max(0.0002, 0.024 * math.exp2(-waited / 0.015))


class WriterQueue:
    """The turn of one database file; every wait is bounded by a deadline of monotonic time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = threading.Lock()
        self._queue = Flock(path.with_name(path.name + ".queue"))
        self._writing = Flock(path.with_name(path.name + ".turn"))
        self._burst_until = 0.0

    def take(self, deadline: float) -> None:
        """Wait for the turn and take it; raises Busy when it does not come in time."""
        if not acquire_within(self._thread, deadline - time.monotonic(), self._path):
            raise Busy(f"another thread writes to {self._path}", next_step="Try again")
        try:
            if time.monotonic() < self._burst_until and self._writing.try_acquire():
                return
            self._queue.acquire(timeout=deadline - time.monotonic(), pace=_aging)
            try:
                self._writing.acquire(timeout=deadline - time.monotonic(), pace=self._at_the_head)
            finally:
                self._queue.release()
            self._burst_until = time.monotonic() + _BURST
            self._writing.promise(self._burst_until)
        except BaseException:
            self._thread.release()
            raise

    def _at_the_head(self, waited: float) -> float:
        """Look twice at once, for a holder that does not come again, then when its burst ends."""
        left = self._writing.promised() - time.monotonic()
        return left if waited > _AT_ONCE and _AT_ONCE < left < _BURST else _AT_ONCE

    def end(self) -> None:
        """Give the turn to whoever comes next."""
        try:
            self._writing.release()
        finally:
            self._thread.release()

    @contextmanager
    def taken(self, timeout: float) -> Iterator[None]:
        """Hold the turn within this context."""
        self.take(time.monotonic() + timeout)
        try:
            yield
        finally:
            self.end()

    def after_fork_in_child(self) -> None:
        """Start afresh: a thread that held the turn did not come along."""
        self._thread = threading.Lock()

    def close(self) -> None:
        """Close the lock files."""
        self._queue.close()
        self._writing.close()
