"""The gate: every operation passes it, a switch takes it alone.

Operation: turnstile shared, gate shared, turnstile released, work, gate released. A switch takes
turnstile and gate exclusively, in rounds, freeing the turnstile between: it waits for what runs,
holds off what comes, does not starve (without the turnstile it did, in 10 of 10 tries).

A round is 100 ms at first and twice as long each time, up to twice what operations take just
now, as every process counts it: with rounds of one length the gate never closed where each
operation inside took longer (eight writers on a slow host). A process that stands still inside
publishes nothing, and so holds callers off for no more than the first round. Who waits for a lock
inside leaves as soon as a switch wants the gate, and comes in again. All waits grow in the same
measure, so that no caller gives up for a round. What takes longer inside than anything of late,
as reading a long journal for the first time does, is told by what its process is doing: a switch
waits on for who is computing, in short rounds, so that it holds nobody off meanwhile.
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

from registry_api.deadline import giving_way, patience, waited
from registry_api.errors import Busy, GaveWay, StoreClosed, SwitchTimedOut
from registry_api.flock import Flock, holders_in_words, holders_work
from registry_api.procs import living
from registry_api.store import RegistryStore
from registry_api.wrapper import StoreWrapper

__all__ = ["Gate", "GatedStore"]

T = TypeVar("T")
_PACE = struct.Struct("<dd")  # in the turnstile: seconds that a commit waits, and until when
_PACE_SECONDS = 10.0
ROUND = 0.1  # seconds of the first round
_PER_P99 = 60  # a wait is at least so many times what operations take (99th percentile)
_PER_ROUND = 2  # and a round at most so many times
_LONGEST = 600.0  # seconds of any wait
_AT_WORK = 60.0  # that a switch waits for who is at work inside


class Gate:
    """The turnstile and the gate of one workspace; each thread has descriptors of its own.

    ``timeout`` is what a caller waits at least (seconds). ``waited`` is told how long each
    operation took to get in, ``worked`` how long it was inside.
    """

    def __init__(
        self,
        folder: Path,
        *,
        timeout: float,
        waited: Callable[[float], None] | None = None,
        worked: Callable[[float], None] | None = None,
    ) -> None:
        self._folder = folder
        self._timeout = timeout
        self._waited = waited
        self._worked = worked
        self._local = threading.local()
        self._all: weakref.WeakSet[Flock] = weakref.WeakSet()

    def slow(self) -> float:
        """Return the seconds inside that 99 % of operations did not exceed just now."""
        return max((process.slow for process in living(self._folder)), default=0.0)

    def timeout(self) -> float:
        """Return the seconds that a wait may take just now, where nobody set a bound."""
        return max(self._timeout, min(_LONGEST, _PER_P99 * self.slow()))

    def _locks(self) -> tuple[Flock, Flock]:
        try:
            locks: tuple[Flock, Flock] = self._local.locks
        except AttributeError:
            locks = Flock(self._folder / "turnstile"), Flock(self._folder / "gate")
            self._local.locks = locks
            self._all.update(locks)  # a thread that ends takes its own with it
        return locks

    def slow_down(self, seconds: float) -> None:
        """As a switch whose copy does not catch up: let each commit wait so long before it comes
        in. Ends by itself after some seconds: who dies slows nobody down.
        """
        turnstile, _ = self._locks()
        with suppress(OSError):
            turnstile.open().write(_PACE.pack(seconds, time.monotonic() + _PACE_SECONDS), 0)

    def keep_pace(self) -> None:
        """As a writer: wait as ``slow_down`` asks for."""
        turnstile, _ = self._locks()
        data = turnstile.read(_PACE.size)
        if len(data) == _PACE.size:
            seconds, until = _PACE.unpack(data)
            # Monotonic time begins anew with each boot: what is far ahead is of an earlier one.
            if 0 < until - time.monotonic() <= _PACE_SECONDS and 0 < seconds <= 1:
                time.sleep(patience(seconds))

    def passing(self) -> _Inside:
        """Be inside, with any number of others; raises Busy when a switch keeps it closed."""
        return _Inside(self)

    def enter(self) -> Flock:
        """Come in; who does releases the lock to go out. Raises Busy."""
        turnstile, gate = self._locks()
        start = time.monotonic()
        if not turnstile.try_acquire(exclusive=False):
            turnstile.acquire(timeout=patience(self.timeout()), exclusive=False)
        try:
            if not gate.try_acquire(exclusive=False):
                left = patience(self.timeout()) - (time.monotonic() - start)
                gate.acquire(timeout=left, exclusive=False)
        finally:
            turnstile.release()
        if self._waited is not None:
            self._waited(time.monotonic() - start)
        return gate

    def worked(self, seconds: float) -> None:
        """Count how long an operation was inside."""
        if self._worked is not None:
            self._worked(seconds)

    def wanted(self) -> bool:
        """Whether a switch holds the turnstile: who waits inside is to leave."""
        turnstile, _ = self._locks()
        if turnstile.try_acquire(exclusive=False):
            turnstile.release()
            return False
        return True

    @contextmanager
    def closed(self, *, timeout: float | None = None) -> Iterator[float]:
        """Be alone inside; gives the monotonic time since when nobody could enter.

        ``timeout`` None: as long as operations of just now call for. Raises SwitchTimedOut, naming
        who is inside and what each is doing, when it does not become empty in time.
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
                    next_step="See what that process waits for, or try again with more --timeout",
                )
            # The turnstile is free: who queued behind it gets in, also where a look takes long.
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
    """Inside the gate for as long as the context lasts: every operation passes here."""

    __slots__ = ("_gate", "_lock", "_since", "_waited")

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def __enter__(self) -> None:
        self._lock = self._gate.enter()
        self._since, self._waited = time.monotonic(), waited()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._lock.release()
        if kind is None:  # a lock that stays taken says nothing of how long operations take
            took = time.monotonic() - self._since - (waited() - self._waited)
            self._gate.worked(max(0.0, took))


class GatedStore(StoreWrapper):
    """Passes the gate once per operation; the outermost store of a workspace with a move."""

    def __init__(
        self,
        inner: RegistryStore,
        gate: Gate,
        *,
        died: Callable[[], bool] = lambda: False,
        recover: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(inner)
        self._gate = gate
        self._died, self._recover = died, recover
        self._closed = False

    def around(self, op: str, call: Callable[[], T]) -> T:
        """Run one call inside the gate; a switch that died behind it is recovered first.

        A call that found a lock taken has changed nothing: it is tried again, at once where it gave
        way to a switch, else until callers of just now no longer wait. One that gave way for as
        long waits inside at last, as long as it may.
        """
        start, patient = 0.0, False
        if op == "commit":
            self._gate.keep_pace()
        while True:
            if self._closed:
                raise StoreClosed("the store is closed", next_step="Open it again")
            start = start or time.monotonic()
            try:
                with self._gate.passing():
                    if not self._died():
                        with giving_way(None if patient else self._gate.wanted):
                            return call()
            except GaveWay:
                patient = self._is_over(start)
                continue
            except Busy:
                if self._is_over(start):
                    raise
                time.sleep(0.005)
                continue
            self._recover_or_wait(start)

    def _recover_or_wait(self, start: float) -> None:
        try:
            self._recover()
        except Busy:  # another process is at it
            if self._is_over(start):
                raise
            time.sleep(0.005)

    def _is_over(self, start: float) -> bool:
        return time.monotonic() - start >= patience(self._gate.timeout())

    def close(self) -> None:
        """Close the store and the gate's descriptors."""
        if not self._closed:
            self._closed = True
            self.inner.close()
            self._gate.close()
