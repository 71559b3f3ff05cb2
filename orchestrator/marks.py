"""Names of processes that outlast their pids: ``pid:moment of birth``."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

__all__ = ["alive", "mark_of", "pid_of"]


def mark_of(pid: int) -> str | None:
    """Return the mark of a live process, None where there is none.

    On Linux the moment is the kernel's count of ticks since boot: psutil's moment of creation moves
    when the clock is set.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
                # The name in brackets may hold anything; state is the next field, birth the 22nd.
                fields = file.read().rpartition(b")")[2].split()
            return None if fields[0] in {b"Z", b"X"} else f"{pid}:{fields[19].decode()}"
        return None
    import psutil  # noqa: PLC0415

    with suppress(psutil.Error):
        process = psutil.Process(pid)
        if process.status() != psutil.STATUS_ZOMBIE:
            return f"{pid}:{process.create_time():.2f}"
    return None


def pid_of(mark: str) -> int | None:
    """Return the pid in a mark; None for a text that is none: a foreign program may write any."""
    text, _, moment = mark.partition(":")
    if not (text.isascii() and text.isdigit() and moment and len(text) < 10):
        return None
    return int(text) if int(text) > 1 else None


def alive(mark: str) -> bool:
    """Return whether that very process is alive."""
    pid = pid_of(mark)
    return pid is not None and mark_of(pid) == mark


def own_mark() -> str:
    """Return this process's own mark."""
    mark = mark_of(os.getpid())
    assert mark is not None
    return mark
