"""Names of processes that outlast their pids: ``pid:birth:host``."""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress

__all__ = ["alive", "is_here", "mark_of", "own_mark", "pid_of"]


def mark_of(pid: int) -> str | None:
    """Return the mark of a live process, None where there is none.

    On Linux the birth is the kernel's count of ticks since boot: psutil's moment of creation moves
    when the clock is set.
    """
    birth = _birth(pid)
    return None if birth is None else f"{pid}:{birth}:{_host()}"


def pid_of(mark: str) -> int | None:
    """Return the pid in a mark; None for a text that is none: a foreign program may write any."""
    pid, _, rest = mark.partition(":")
    if not (pid.isascii() and pid.isdigit() and rest and len(pid) < 10):
        return None
    return int(pid) if int(pid) > 1 else None  # 0 and 1 would be groups of ours and of everybody


def is_here(mark: str) -> bool:
    """Return whether a mark is of this host: of another's, or another container's, processes one
    knows nothing.
    """
    parts = mark.split(":")
    return len(parts) < 3 or parts[2] == _host()


def alive(mark: str) -> bool:
    """Return whether that very process is alive here."""
    pid = pid_of(mark)
    return pid is not None and mark.split(":")[:3] == (mark_of(pid) or "").split(":")


def own_mark() -> str:
    """Return this process's own mark."""
    mark = mark_of(os.getpid())
    assert mark is not None
    return mark


def _host() -> str:
    return platform.node().replace(":", "_")


def _birth(pid: int) -> str | None:
    if sys.platform == "linux":
        with suppress(OSError):
            with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
                # The name in brackets may hold anything; state is the next field, birth the 22nd.
                fields = file.read().rpartition(b")")[2].split()
            return None if fields[0] in {b"Z", b"X"} else fields[19].decode()
        return None
    import psutil  # noqa: PLC0415

    with suppress(psutil.Error):
        process = psutil.Process(pid)
        if process.status() != psutil.STATUS_ZOMBIE:
            return f"{process.create_time():.2f}"
    return None
