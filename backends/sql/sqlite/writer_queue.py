"""The queue of the threads and processes that want to write to one SQLite file.

Two lock files: only the holder of the queue lock waits for the write lock, so that no writer
starves (worst wait of 8 writers 2.0 s without, 90 ms with). A process that has written may write
again for some milliseconds, a burst, beside those that came to the head of the queue meanwhile:
while one of them syncs its commit, another writes. The first commit of a process finds its caches
cold: changing the writer with every commit halves the throughput of eight (docs/decisions/0005,
0030).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from registry_api.errors import Busy
from registry_api.workspace import Flock, acquire_within
from registry_api.workspace.lock_timeout import give_way, note_wait

__all__ = ["WriterQueue"]

_BURST = 0.010  # seconds
_AT_ONCE, _LATER = 0.00005, 0.002  # seconds, the shortest and the longest pause between two tries


def _aging(waited: float) -> float:
    """Return the pause between two tries: it shrinks, so that the longest waiter comes first."""
    return max(0.0002, 0.024 * math.exp2(-waited / 0.015))


def _at_the_head(waited: float) -> float:
    """Return the pause between two tries: short at first, since the lock is free at each sync."""
    return min(_LATER, max(_AT_ONCE, waited / 8))


class WriterQueue:
    """The writer queue of one database file; every wait ends at a deadline of monotonic time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = threading.Lock()
        self._queue = Flock(path.with_name(path.name + ".queue"))
        self._writing = Flock(path.with_name(path.name + ".turn"))
        self._burst_until = 0.0

    def take(self, deadline: float) -> None:
        """Wait in the queue until this thread may write; raises Busy at the deadline."""
        if not acquire_within(self._thread, deadline - time.monotonic(), self._path):
            raise Busy(f"another thread is writing to {self._path}", next_step="Try again")
        try:
            if self._in_burst(deadline):
                return
            self._queue.acquire(timeout=deadline - time.monotonic(), pace=_aging)
            try:
                self._writing.acquire(timeout=deadline - time.monotonic(), pace=_at_the_head)
            finally:
                self._queue.release()
            self._burst_until = time.monotonic() + _BURST
        except BaseException:
            self._thread.release()
            raise

    def _in_burst(self, deadline: float) -> bool:
        """Take the write lock before the burst ends; return whether it was taken."""
        start, until = time.monotonic(), min(deadline, self._burst_until)
        if start < until and self._writing.try_acquire():
            return True
        while time.monotonic() < until:  # another one writes
            give_way(self._path)
            time.sleep(_AT_ONCE)
            if self._writing.try_acquire():
                note_wait(time.monotonic() - start)
                return True
        note_wait(time.monotonic() - start)
        return False

    def end(self) -> None:
        """Let the next writer in the queue write."""
        try:
            self._writing.release()
        finally:
            self._thread.release()

    @contextmanager
    def taken(self, timeout: float) -> Iterator[None]:
        """Within this context this thread may write."""
        self.take(time.monotonic() + timeout)
        try:
            yield
        finally:
            self.end()

    def after_fork_in_child(self) -> None:
        """Start from scratch: a thread that was writing does not exist in the child."""
        self._thread = threading.Lock()
        self._burst_until = 0.0

    def close(self) -> None:
        """Close the lock files."""
        self._queue.close()
        self._writing.close()
