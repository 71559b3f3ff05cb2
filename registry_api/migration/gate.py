"""The gate: a readers-writer lock that every operation shares and a switch takes exclusively.

An operation takes the turnstile shared, takes the gate shared, releases the turnstile, works and
releases the gate. A switch takes turnstile and gate exclusively, in rounds, and frees the turnstile
between rounds: it waits for running operations, holds off new ones and does not starve (without the
turnstile it starved in 10 of 10 tries).

A round lasts 100 ms at first and twice as long each time, up to twice the time that operations
currently take, as every process measures it: with rounds of one length the gate never closed when
each operation held it for longer (eight writers on a slow host). A process that hangs inside the
gate publishes no measurement, so it makes a switch hold callers off for no more than the first
round. A call that waits for a lock inside the gate leaves as soon as a switch wants the gate, and
enters again. The time limits of callers grow with the same measurement, so that no caller gives up
because of a round. An operation may take longer than any recent one, e.g. the first read of a long
journal; the state of its process shows that: the switch keeps waiting while that process is
computing, in short rounds, so that it does not hold callers off meanwhile.
"""

from __future__ import annotations

import struct
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from registry_api.errors import Busy, SwitchTimedOut
from registry_api.workspace.file_lock import Flock, holders_in_words, holders_work
from registry_api.workspace.lock_timeout import patience, waited
from registry_api.workspace.processes import living

__all__ = ["Gate"]

T = TypeVar("T")

_PACE = struct.Struct("<dd")  # in the turnstile file: seconds that a commit waits, and until when

_PACE_SECONDS = 10.0

ROUND = 0.1  # seconds of the first round

_PER_P99 = 60  # a wait may last this many times the 99th percentile of operations

_PER_ROUND = 2  # a round lasts at most this many times that percentile

_LONGEST = 600.0  # seconds; no wait is longer

_AT_WORK = 60.0  # seconds that a switch waits for a process that is computing inside


class Gate:
    """The turnstile and the gate of one workspace; each thread has descriptors of its own.

    ``timeout``: seconds, the lower bound of a caller's time limit. ``measure`` is called with the
    seconds that an operation took to enter and the seconds that it was inside, None if it failed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        timeout: float,
        measure: Callable[[float, float | None], None] = lambda *_: None,
    ) -> None:
        self._folder = folder
        self._timeout = timeout
        self.measure = measure
        self._local = threading.local()
        self._all: weakref.WeakSet[Flock] = weakref.WeakSet()

    def slow(self) -> float:
        """Return the 99th percentile of the seconds that recent operations were inside the gate."""
        return max((process.slow for process in living(self._folder)), default=0.0)

    def timeout(self) -> float:
        """Return the seconds that a wait may take at present, if the caller set no bound."""
        return max(self._timeout, min(_LONGEST, _PER_P99 * self.slow()))

    def _locks(self) -> tuple[Flock, Flock]:
        try:
            locks: tuple[Flock, Flock] = self._local.locks
        except AttributeError:
            locks = Flock(self._folder / "turnstile"), Flock(self._folder / "gate")
            self._local.locks = locks
            self._all.update(locks)  # weak: they are closed when their thread ends
        return locks

    def slow_down(self, seconds: float) -> None:
        """Make each commit wait ``seconds`` before it enters: for a switch whose target does not
        catch up. Expires after some seconds, so that an interrupted switch slows nobody down.
        """
        turnstile, _ = self._locks()
        with suppress(OSError):
            turnstile.open().write(_PACE.pack(seconds, time.monotonic() + _PACE_SECONDS), 0)

    def keep_pace(self) -> bool:
        """Wait before a commit as long as ``slow_down`` demands; return whether it demands any."""
        turnstile, _ = self._locks()
        data = turnstile.read(_PACE.size)
        if len(data) == _PACE.size:
            seconds, until = _PACE.unpack(data)
            # Monotonic time restarts with each boot: a time far ahead is from an earlier boot.
            if 0 < until - time.monotonic() <= _PACE_SECONDS and 0 < seconds <= 1:
                time.sleep(patience(seconds))
                return True
        return False

    def passing(self) -> _Inside:
        """Return a context that shares the gate; entering raises Busy while a switch holds it."""
        return _Inside(self)

    def enter(self, start: float) -> Flock:
        """Take the gate shared; the caller releases the returned lock. Raises Busy.

        ``start``: the monotonic time since when the caller has waited.
        """
        turnstile, gate = self._locks()
        if not turnstile.try_acquire(exclusive=False):
            turnstile.acquire(timeout=patience(self.timeout()), exclusive=False)
        try:
            if not gate.try_acquire(exclusive=False):
                left = patience(self.timeout()) - (time.monotonic() - start)
                gate.acquire(timeout=left, exclusive=False)
        finally:
            turnstile.release()
        return gate

    def wanted(self) -> bool:
        """Return whether a switch holds the turnstile: calls that wait inside must leave."""
        turnstile, _ = self._locks()
        if turnstile.try_acquire(exclusive=False):
            turnstile.release()
            return False
        return True

    @contextmanager
    def closed(self, *, timeout: float | None = None) -> Iterator[float]:
        """Hold the gate exclusively; yields the monotonic time since when nobody could enter.

        ``timeout`` None: a limit that follows from recent operations. Raises SwitchTimedOut, naming
        the processes inside and what each is doing, if they do not leave in time.
        """
        turnstile, gate = self._locks()
        start, length, wait = time.monotonic(), ROUND, self._timeout
        while True:
            since = time.monotonic()
            ends = since + length if timeout is None else min(since + length, start + timeout)
            if self._try_round(turnstile, gate, ends):
                break
            wait = self.timeout()
            deadline = start + (wait if timeout is None else timeout)
            if timeout is None and time.monotonic() >= deadline and holders_work(gate.path):
                deadline = max(deadline, start + _AT_WORK)
            if time.monotonic() >= deadline:
                raise SwitchTimedOut(
                    f"the gate did not become free in {deadline - start:.1f} s; the last round "
                    f"waited {time.monotonic() - since:.1f} s for {holders_in_words(gate.path)}; "
                    f"operations take up to {self.slow():.2f} s here",
                    next_step="Check what that process is doing, or try again with a larger "
                    "--timeout",
                )
            # The turnstile is free: let queued callers in, also where each poll takes long.
            time.sleep(max(0.01, length / 4))
            length = min(2 * length, wait / 2, max(ROUND, _PER_ROUND * self.slow()))
        try:
            yield since
        finally:
            gate.release()
            turnstile.release()

    @staticmethod
    def _try_round(turnstile: Flock, gate: Flock, deadline: float) -> bool:
        try:
            turnstile.acquire(timeout=deadline - time.monotonic())
        except Busy:
            return False
        try:
            gate.acquire(timeout=deadline - time.monotonic())
        except Busy:
            turnstile.release()
            return False
        return True

    def close(self) -> None:
        """Close every descriptor."""
        for lock in list(self._all):
            lock.close()


class _Inside:
    """A context that shares the gate; every operation runs in one."""

    __slots__ = ("_gate", "_lock", "_since", "_start", "_waited")

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def __enter__(self) -> None:
        self._start = time.monotonic()
        self._lock = self._gate.enter(self._start)
        self._since, self._waited = time.monotonic(), waited()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._lock.release()
        took = None  # a call that failed on a lock does not show how long operations take
        if kind is None:
            took = max(0.0, time.monotonic() - self._since - (waited() - self._waited))
        self._gate.measure(self._since - self._start, took)
