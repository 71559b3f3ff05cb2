"""A bound for each test: a store that never answers fails it, and the run gives its verdict."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["BOUND", "NeverEnded", "bounded"]

BOUND = 600.0  # seconds that a test may take: on a slow host the longest takes a tenth of it

_GRACE = 30.0  # seconds for a test to end once it was told to


class NeverEnded(BaseException):
    """A test that did not end in time; no ``except Exception`` of a store holds it back."""


@contextmanager
def bounded(seconds: float, stuck: Callable[[], None]) -> Iterator[None]:
    """Raise NeverEnded in what runs here after ``seconds``; where that does not end it, since it
    waits in an engine's own code, call ``stuck`` from another thread.

    The signal needs the main thread, and a system that has it; elsewhere ``stuck`` alone is called.
    """
    watchdog = threading.Timer(seconds + _GRACE, stuck)
    watchdog.daemon = True
    watchdog.start()
    main = threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer")

    def ended(*_: object) -> None:
        raise NeverEnded(f"it did not end within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ended) if main else None
    if main:
        signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        if main:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        watchdog.cancel()
