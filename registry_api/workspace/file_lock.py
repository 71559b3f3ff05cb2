"""flock(2) with a bound on every wait, safe across threads and forks.

A flock belongs to the open file description: each lock here opens its own, close-on-exec. A fork
child closes the inherited descriptors without unlocking, else it would hold the lock of a parent
that was killed (measured). flock has no timeout: the wait polls, 0.2 to 2 ms with jitter. Lock
files are never unlinked: a waiter would then hold a lock on a file that nobody else can see.
"""

from __future__ import annotations

import fcntl
import os
import random
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Protocol

from registry_api.errors import Busy, Unavailable
from registry_api.workspace.lock_timeout import give_way, note_wait
from registry_api.workspace.ownership import open_owned

__all__ = ["Flock", "ForkSafeLock", "acquire_within", "holder_of", "holders_in_words"]


_LOOK = 0.02  # seconds between two checks whether a switch wants the gate

_all: weakref.WeakSet[Flock] = weakref.WeakSet()


def backing_off(waited: float) -> float:
    """Return the longest pause before the next attempt: 0.2 ms at first, later 2 ms."""
    return min(max(waited / 2, 0.0002), 0.002)


class Flock:
    """One lock file; used by one thread at a time. ``with lock.exclusive(seconds): …``."""

    def __init__(self, path: Path) -> None:
        self._fd = -1
        self.path = path
        _all.add(self)

    def acquire(
        self,
        *,
        timeout: float,
        exclusive: bool = True,
        pace: Callable[[float], float] = backing_off,
    ) -> None:
        """Lock, waiting at most ``timeout`` seconds; raises Busy, naming the holder's pid.

        ``pace`` returns, for the seconds waited so far, the longest pause before the next attempt.
        """
        if not self.try_acquire(exclusive=exclusive):
            start = time.monotonic()
            try:
                self._wait(timeout, pace, exclusive=exclusive)
            finally:
                note_wait(time.monotonic() - start)

    def try_acquire(self, *, exclusive: bool = True) -> bool:
        """Lock if nobody else holds it; return whether it was locked."""
        self.open()
        mode = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        try:
            fcntl.flock(self._fd, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def open(self) -> Flock:
        """Open the lock file, creating it if it is missing; raises Unavailable."""
        if self._fd < 0:
            try:
                self._fd = open_owned(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
            except OSError as error:
                raise Unavailable(
                    f"{self.path} cannot be opened: {error.strerror}", next_step="Check the folder"
                ) from error
        return self

    def _wait(self, timeout: float, pace: Callable[[float], float], *, exclusive: bool) -> None:
        start = time.monotonic()
        while True:
            waited = time.monotonic() - start
            left = timeout - waited
            if left <= 0:
                raise Busy(
                    f"{self.path} is locked{_named(self.path)}",
                    next_step="Try again; if it stays locked, check what that process is doing",
                    path=str(self.path),
                )
            give_way(self.path)
            pause = pace(waited)
            time.sleep(min(left, random.uniform(pause / 2, pause)))
            if self.try_acquire(exclusive=exclusive):
                return

    def release(self) -> None:
        """Unlock."""
        if self._fd >= 0:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def write(self, data: bytes, place: int) -> None:
        """As the holder, write into the lock file; does nothing if it is closed. Raises OSError."""
        if self._fd >= 0:
            os.pwrite(self._fd, data, place)

    def read(self, size: int) -> bytes:
        """Return the first ``size`` bytes of the lock file, none if it is closed."""
        return os.pread(self._fd, size, 0) if self._fd >= 0 else b""

    def close(self) -> None:
        """Close the descriptor, which unlocks."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()

    def exclusive(self, timeout: float) -> _Held:
        """Return a context that holds the lock exclusively."""
        return _Held(self, timeout, exclusive=True)

    def shared(self, timeout: float) -> _Held:
        """Return a context that shares the lock with other readers."""
        return _Held(self, timeout, exclusive=False)


class _Held:
    __slots__ = ("_exclusive", "_lock", "_timeout")

    def __init__(self, lock: Flock, timeout: float, *, exclusive: bool) -> None:
        self._lock, self._timeout, self._exclusive = lock, timeout, exclusive

    def __enter__(self) -> None:
        self._lock.acquire(timeout=self._timeout, exclusive=self._exclusive)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()


class _Lock(Protocol):
    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...


def acquire_within(lock: _Lock, timeout: float, path: Path | None = None) -> bool:
    """Take a lock between threads within ``timeout`` seconds; return whether it was taken.

    With ``path``, raises GaveWay when a switch wants the gate.
    """
    if lock.acquire(blocking=False):
        return True
    start = time.monotonic()
    try:
        while True:
            left = max(0.0, start + timeout - time.monotonic())
            if lock.acquire(timeout=left if path is None else min(left, _LOOK)):
                return True
            if left <= _LOOK:
                return False
            if path is not None:
                give_way(path)
    finally:
        note_wait(time.monotonic() - start)


class ForkSafeLock:
    """A lock between threads that is free in a fork child, whose parent's threads do not exist."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _thread_locks.add(self)

    def acquire(self, *, timeout: float, path: Path | None = None) -> bool:
        """Lock within ``timeout`` seconds; return whether it was. ``path``: see acquire_within."""
        return acquire_within(self._lock, timeout, path)

    def release(self) -> None:
        """Unlock."""
        self._lock.release()

    def renew(self) -> None:
        """Replace the lock by a free one, in a fork child."""
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()


_thread_locks: weakref.WeakSet[ForkSafeLock] = weakref.WeakSet()


def holder_of(path: Path) -> list[int]:
    """Return the pids that hold a flock on a file, as far as /proc/locks shows (Linux)."""
    try:
        inode = path.stat().st_ino
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return []
    pids = set[int]()
    for line in lines:
        parts = line.split()
        # "1: FLOCK  ADVISORY  WRITE 123 08:01:4711 0 EOF"; waiters have "->" as second part.
        if len(parts) > 5 and parts[1] == "FLOCK" and parts[5].rpartition(":")[2] == str(inode):
            pids.add(int(parts[4]))
    return sorted(pids - {0})


_STATES = {"T": "stopped", "D": "waiting for the disk", "R": "computing"}


def holders_in_words(path: Path) -> str:
    """Return the holders of a flock on a file and what each is doing, as text, or ``unknown``."""
    return ", ".join(map(_in_words, holder_of(path))) or "unknown"


def holders_work(path: Path) -> bool:
    """Return whether a holder of a flock is running and none is stopped: it will be released."""
    states = set[str]()
    for pid in holder_of(path):
        with suppress(OSError):
            states |= _states(pid)
    return "T" not in states and bool(states & {"R", "D"})


def _states(pid: int) -> set[str]:
    # The state is the first field after the name, which itself may contain blanks and brackets.
    threads = Path(f"/proc/{pid}/task").glob("*/stat")
    return {p.read_text().rpartition(") ")[2][:1] for p in threads}


def _in_words(pid: int) -> str:
    try:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        states = _states(pid)
    except OSError:
        return f"process {pid}"
    doing = next((words for state, words in _STATES.items() if state in states), "waiting")
    return f"process {pid} ({name}, {doing})"


def _named(path: Path) -> str:
    who = holders_in_words(path)
    return "" if who == "unknown" else f" by {who}"


def _forget_in_child() -> None:
    for lock in _all:
        lock.close()
    for thread_lock in _thread_locks:
        thread_lock.renew()


os.register_at_fork(after_in_child=_forget_in_child)
