"""A time limit for each test: a store that never answers fails a test, not the whole run."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["BOUND", "NeverEnded", "bounded"]

BOUND = 600.0  # seconds a test may take; the longest takes a tenth of that on a slow host

_GRACE = 30.0  # seconds for a test to end after NeverEnded was raised in it


class NeverEnded(BaseException):
    """A test that did not end in time; derives from BaseException, so that no ``except Exception``
    of a store catches it.
    """


@contextmanager
def bounded(seconds: float, stuck: Callable[[], None]) -> Iterator[None]:
    """Raise NeverEnded in the block after ``seconds``; call ``stuck`` where that does not end it.

    A block that waits inside an engine's native code cannot be interrupted: ``stuck`` is then
    called from another thread, a grace period later. The signal works only in the main thread and
    on a system that has ``setitimer``; elsewhere only ``stuck`` is called.
    """
    watchdog = threading.Timer(seconds + _GRACE, stuck)
    watchdog.daemon = True
    watchdog.start()
    main = threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer")

    def ended(*_: object) -> None:
        raise NeverEnded(f"the test did not end within {seconds:g} s")

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
