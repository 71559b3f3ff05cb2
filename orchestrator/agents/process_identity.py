"""Identities of processes that stay unique when a pid is reused: ``pid:birth:place``.

The birth is when the process started. The place is the machine's id, its boot and the pid
namespace: a host may change its name, and after a reboot, or in another container, another process
may have the same pid and birth.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from contextlib import suppress
from functools import cache

from registry_api.records import is_id
from registry_api.workspace import boot, machine

__all__ = [
    "age",
    "alive",
    "host",
    "host_name",
    "host_of",
    "identity_of",
    "is_here",
    "of_earlier_boot",
    "own_identity",
    "pid_of",
    "uptime",
]


_LONGEST = 100  # characters of a host's id, which is a part of other ids
_HOST_SPACE = "4026531836"  # the pid namespace of a Linux host itself (linux/proc_ns.h)


def identity_of(pid: int) -> str | None:
    """Return the identity of a live process, None if there is none.

    On Linux the birth is the kernel's count of ticks since boot: psutil's creation time changes
    when the clock is set.
    """
    birth = _birth(pid)
    return None if birth is None else f"{pid}:{birth}:{_place()}"


def pid_of(identity: str) -> int | None:
    """Return the pid in an identity, None for other texts: a foreign program may write any."""
    pid, _, rest = identity.partition(":")
    if not (pid.isascii() and pid.isdigit() and rest and len(pid) < 10):
        return None
    return int(pid) if int(pid) > 1 else None  # 0 is our own group, 1 is everyone's


def is_here(identity: str) -> bool:
    """Return whether a process identity is of this machine and container.

    The processes of other machines and containers cannot be seen. A process from before this
    machine's last boot counts as local: it has certainly ended.
    """
    place = identity.split(":")[2:3]
    return not place or place[0] in {_place(), _name()} or of_earlier_boot(identity)


def of_earlier_boot(identity: str) -> bool:
    """Return whether an identity is of this machine before its last boot: that process has ended.

    Always False in containers, which may share one machine's id on several hosts.
    """
    parts = identity.split(":")
    theirs, ours = (parts[2] if len(parts) > 2 else "").split("."), _place().split(".")
    if len(theirs) != len(ours) or theirs[0] != ours[0]:
        return False
    return theirs[1] != ours[1] and theirs[2] == ours[2] == _HOST_SPACE


def alive(identity: str) -> bool:
    """Return whether exactly this process is alive here."""
    pid = pid_of(identity)
    if pid is None:
        return False
    parts, now = identity.split(":")[:3], (identity_of(pid) or "").split(":")
    # An earlier version used the host's name as the place, and its agents may still run.
    return parts == now or parts == [*now[:2], _name()]


def uptime() -> float:
    """Return the seconds since this machine's boot: a clock that nobody sets."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def age(identity: str) -> float | None:
    """Return for how many seconds a live process of this machine has run; None: not known."""
    pid = pid_of(identity)
    if pid is None or not alive(identity):
        return None
    if sys.platform == "linux":
        return uptime() - int(identity.split(":")[1]) / os.sysconf("SC_CLK_TCK")
    import psutil  # noqa: PLC0415  (imported when needed: slow)

    with suppress(psutil.Error):
        return time.time() - psutil.Process(pid).create_time()
    return None


def host_of(identity: str) -> str | None:
    """Return the id of the host, or container, on which a process runs; None: not known.

    It stays the same when the machine is booted again, and is an id of the contract.
    """
    parts = identity.split(":")
    place = parts[2].split(".") if len(parts) > 2 else []
    if len(place) != 3:
        return None
    found = place[0] if place[2] in {"", _HOST_SPACE} else f"{place[0]}-{place[2]}"
    return found if is_id(found) and len(found) <= _LONGEST else None


def host() -> str:
    """Return the id of this host, or container."""
    found = host_of(own_identity())
    assert found is not None
    return found


def host_name() -> str:
    """Return this host's name, for people: it may be changed, and other hosts may have the same."""
    return platform.node()[:_LONGEST]


def own_identity() -> str:
    """Return this process's own identity."""
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
            with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123  (an open descriptor, or hot path)
                # The name in brackets may hold anything; state is the next field, birth the 22nd.
                fields = file.read().rpartition(b")")[2].split()
            return None if fields[0] in {b"Z", b"X"} else fields[19].decode()
        return None
    import psutil  # noqa: PLC0415  (imported when needed: slow)

    with suppress(psutil.Error):
        process = psutil.Process(pid)
        if process.status() != psutil.STATUS_ZOMBIE:
            return f"{process.create_time():.2f}"
    return None
