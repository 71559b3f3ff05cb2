"""Names of processes that outlast their pids: ``pid:birth:place``.

The place is the machine by its id, its boot and the pid namespace: a host may change its name, and
after a reboot, or in another container, a pid and a birth may be another process's.
"""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress
from functools import cache

from registry_api.instance import boot, machine

__all__ = ["alive", "identity_of", "is_here", "of_earlier_boot", "own_identity", "pid_of"]


_HOST_SPACE = "4026531836"  # the pid namespace of a Linux host itself (linux/proc_ns.h)


def identity_of(pid: int) -> str | None:
    """Return the mark of a live process, None where there is none.

    On Linux the birth is the kernel's count of ticks since boot: psutil's moment of creation moves
    when the clock is set.
    """
    birth = _birth(pid)
    return None if birth is None else f"{pid}:{birth}:{_place()}"


def pid_of(identity: str) -> int | None:
    """Return the pid in a mark; None for a text that is none: a foreign program may write any."""
    pid, _, rest = identity.partition(":")
    if not (pid.isascii() and pid.isdigit() and rest and len(pid) < 10):
        return None
    return int(pid) if int(pid) > 1 else None  # 0 and 1 would be groups of ours and of everybody


def is_here(identity: str) -> bool:
    """Return whether a mark is of this machine: of another's, or another container's, processes
    one knows nothing. What was before this machine's last boot is over.
    """
    place = identity.split(":")[2:3]
    return not place or place[0] in {_place(), _name()} or of_earlier_boot(identity)


def of_earlier_boot(identity: str) -> bool:
    """Return whether a mark is of this machine before its last boot: that process is gone.

    Not said of containers, which may share one machine's id on several hosts.
    """
    parts = identity.split(":")
    theirs, ours = (parts[2] if len(parts) > 2 else "").split("."), _place().split(".")
    if len(theirs) != len(ours) or theirs[0] != ours[0]:
        return False
    return theirs[1] != ours[1] and theirs[2] == ours[2] == _HOST_SPACE


def alive(identity: str) -> bool:
    """Return whether that very process is alive here."""
    pid = pid_of(identity)
    if pid is None:
        return False
    parts, now = identity.split(":")[:3], (identity_of(pid) or "").split(":")
    # Before, the place was the host's name: an agent may have run for longer than this program.
    return parts == now or parts == [*now[:2], _name()]


def own_identity() -> str:
    """Return this process's own mark."""
    identity = identity_of(os.getpid())
    assert identity is not None
    return identity


@cache
def _place() -> str:
    namespace = ""
    with suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid").strip("pid:[]")  # noqa: PTH115  (no path)
    return f"{machine()}.{boot()}.{namespace}"


def _name() -> str:
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
