"""The gate: every operation passes it, a switch takes it alone.

Operation: turnstile shared, gate shared, turnstile released, work, gate released. A switch takes
turnstile and gate exclusively, in rounds of at most 100 ms, freeing the turnstile between: it waits
for what runs, holds off what comes, does not starve (without the turnstile it did, in 10 of 10
tries), and no caller waits much longer than a round for it.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from registry_api.deadline import patience
from registry_api.errors import Busy, StoreClosed, SwitchTimedOut
from registry_api.flock import Flock, holder_of
from registry_api.store import RegistryStore
from registry_api.wrapper import StoreWrapper

__all__ = ["Gate", "GatedStore"]

T = TypeVar("T")
ROUND = 0.1


class Gate:
    """The turnstile and the gate of one workspace; each thread has descriptors of its own.

    ``waited`` is told how long (seconds) each operation took to get in.
    """

    def __init__(
        self, folder: Path, *, timeout: float, waited: Callable[[float], None] | None = None
    ) -> None:
        self._folder = folder
        self._timeout = timeout
        self._waited = waited
        self._local = threading.local()
        self._all: weakref.WeakSet[Flock] = weakref.WeakSet()

    @property
    def timeout(self) -> float:
        """Seconds that an operation waits to get in."""
        return self._timeout

    def _locks(self) -> tuple[Flock, Flock]:
        try:
            locks: tuple[Flock, Flock] = self._local.locks
        except AttributeError:
            locks = Flock(self._folder / "turnstile"), Flock(self._folder / "gate")
            self._local.locks = locks
            self._all.update(locks)  # a thread that ends takes its own with it
        return locks

    def passing(self) -> _Inside:
        """Be inside, with any number of others; raises Busy when a switch keeps it closed."""
        return _Inside(self)

    def enter(self) -> Flock:
        """Come in; who does releases the lock to go out. Raises Busy."""
        turnstile, gate = self._locks()
        start = time.monotonic()
        deadline = start + patience(self._timeout)
        turnstile.acquire(timeout=deadline - start, exclusive=False)
        try:
            gate.acquire(timeout=deadline - time.monotonic(), exclusive=False)
        finally:
            turnstile.release()
        if self._waited is not None:
            self._waited(time.monotonic() - start)
        return gate

    @contextmanager
    def closed(self, *, timeout: float) -> Iterator[float]:
        """Be alone inside; gives the monotonic time since when nobody could enter.

        Raises SwitchTimedOut, naming who is inside, when it does not become empty in time.
        """
        turnstile, gate = self._locks()
        deadline = time.monotonic() + timeout
        while True:
            since = time.monotonic()
            if self._try_round(turnstile, gate, min(since + ROUND, deadline)):
                break
            if time.monotonic() >= deadline:
                pids = ", ".join(map(str, holder_of(gate.path))) or "unknown"
                raise SwitchTimedOut(
                    f"the gate did not become free in time (inside: process {pids})",
                    next_step="See what that process waits for, or try again",
                )
            time.sleep(0.01)  # the turnstile is free: who queued behind it gets in
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

    __slots__ = ("_gate", "_lock")

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def __enter__(self) -> None:
        self._lock = self._gate.enter()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


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
        """Run one call inside the gate; a switch that died behind it is recovered first."""
        deadline: float | None = None
        while True:
            if self._closed:
                raise StoreClosed("the store is closed", next_step="Open it again")
            with self._gate.passing():
                if not self._died():
                    return call()
            deadline = deadline or time.monotonic() + patience(self._gate.timeout)
            try:
                self._recover()
            except Busy:  # another process is at it
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)

    def close(self) -> None:
        """Close the store and the gate's descriptors."""
        if not self._closed:
            self._closed = True
            self.inner.close()
            self._gate.close()
