"""The live processes of a workspace and their counters, in files that other processes read.

Each process that opens a store for writing keeps a file of its own, ``.registry/procs/<pid>-…``,
which it locks as long as it lives: the lock tells live processes from dead ones. The next process
that opens a store removes the files of dead ones. The files are written, not mapped: a mapped file
that another program truncates, or whose disk fails, kills the process with SIGBUS. They are not
written with each count: that took 15 to 20 µs of the 400 µs of a synced report; ten times a second
costs nothing measurable.
"""

from __future__ import annotations

import fcntl
import math
import os
import threading
import time
import uuid
import weakref
from array import array
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson

from registry_api.workspace.file_lock import Flock
from registry_api.workspace.ownership import make_folder

__all__ = [
    "COUNTS",
    "PER_OPERATION",
    "TIMES",
    "Living",
    "Process",
    "bucket_bound",
    "living",
    "quantile",
]

COUNTS = (
    "mirrored",  # commits that were replicated to the target of a move
    "lagging",  # commits that were not: the replication position is behind
    "healed",  # tasks that caught up later
    "fallbacks",  # reads that the target could not answer
    "compared",  # reads compared with the target
    "mismatched",  # of these, those that differed
    "in_flight",  # of these, those changed meanwhile, which cannot be compared
    "refused",  # calls that will be refused again: conflicts, bad input, no such task
    "failed",  # calls that failed: locks, disks
)

SAMPLED = ("load", "list_tasks", "list_records", "counts")

OUTCOMES = ("matched", "mismatched", "in_flight")

PER_OPERATION = tuple(f"{op}.{outcome}" for op in SAMPLED for outcome in OUTCOMES)

TIMES = ("write", "read", "gate", "inside")

_RECENT = 128  # operations that "slow" is the 99th percentile of

_FRESH = 10.0  # seconds after which they no longer count

_PER_OCTAVE, _OCTAVES = 4, 24  # 1 µs to 16 s, within a fifth

_BUCKETS = _PER_OCTAVE * _OCTAVES

_HEAD = 512

_NAMES = (*COUNTS, *PER_OPERATION, "slow")

_CELLS = len(_NAMES) + len(TIMES) * _BUCKETS

_SIZE = _HEAD + 8 * _CELLS

_PLACE = {name: n for n, name in enumerate(_NAMES)}

_START = {name: len(_NAMES) + n * _BUCKETS for n, name in enumerate(TIMES)}


class Process:
    """The counters of this process; thread-safe. Nothing is counted without its file.

    The file is written at most every ``every`` seconds, and only when something is counted: counts
    since the last write appear with the next one.
    """

    def __init__(
        self, folder: Path, *, target_phase: int | None = None, every: float = 0.1
    ) -> None:
        self._folder = folder / "procs"
        self._target_phase = target_phase
        self._every = every
        self._due = 0.0
        self._lock = threading.Lock()
        self._file: Flock | None = None
        self._cells = array("Q", bytes(8 * _CELLS))
        self._recent = deque[tuple[float, float]](maxlen=_RECENT)
        self._open()
        _entries.add(self)

    def _open(self) -> None:
        with suppress(OSError):
            make_folder(self._folder, mode=0o700, parents=True)
            _bury(self._folder)
        for _ in range(3):  # until it is locked, another process may remove it as a dead one's
            if self._file is None:
                self._enter()

    def _enter(self) -> None:
        with suppress(OSError):
            path = self._folder / f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
            head = {
                "pid": os.getpid(),
                "at": datetime.now(UTC).isoformat(),
                "wish": self._target_phase,
                "gated": True,
            }
            file = Flock(path)
            if not file.try_acquire():
                return
            os.stat(path)  # noqa: PTH116  (raises where it was unlinked meanwhile)
            file.write(orjson.dumps(head).ljust(_HEAD) + bytes(8 * _CELLS), 0)
            self._file = file

    def count(self, name: str, n: int = 1) -> None:
        """Add to one of COUNTS or PER_OPERATION."""
        if n:
            with self._lock:
                self._cells[_PLACE[name]] += n
                self._write(time.monotonic())

    def time(self, name: str, seconds: float) -> None:
        """Add a duration to one of TIMES."""
        with self._lock:
            self._cells[_START[name] + _bucket(seconds)] += 1
            self._write(time.monotonic())

    def passed_gate(self, waited: float, inside: float | None) -> None:
        """Add the seconds that an operation waited for the gate, and those that it was inside."""
        with self._lock:
            now = time.monotonic()
            self._cells[_START["gate"] + _bucket(waited)] += 1
            if inside is not None:
                self._cells[_START["inside"] + _bucket(inside)] += 1
                self._recent.append((now, inside))
            self._write(now)

    def _write(self, now: float) -> None:
        """Write the file if it is time to; called with the lock held."""
        if now < self._due or self._file is None:
            return
        self._due = now + self._every
        recent = sorted(seconds for at, seconds in self._recent if now - at < _FRESH)
        if recent:
            self._cells[_PLACE["slow"]] = int(1e6 * recent[math.ceil(0.99 * len(recent)) - 1])
        with suppress(OSError):
            self._file.write(self._cells.tobytes(), _HEAD)

    def after_fork_in_child(self) -> None:
        """Continue with a file of its own in the child: lock and counters are the parent's."""
        self._lock = threading.Lock()
        self._cells, self._file = array("Q", bytes(8 * _CELLS)), None
        self._recent.clear()
        self._open()

    def close(self) -> None:
        """Remove the file."""
        with self._lock:
            file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.path.unlink()
            file.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Living:
    """A live process and its counters: ``counts`` by COUNTS and PER_OPERATION, ``times`` by TIMES
    (buckets); ``slow``: 99th percentile of the seconds its recent operations were inside the gate;
    ``gated``: it passes the gate whatever store it uses, which version 0.1 did in a move only.
    """

    name: str
    pid: int
    at: str
    target_phase: int | None
    counts: Mapping[str, int]
    times: Mapping[str, Sequence[int]]
    slow: float = 0.0
    gated: bool = True


def living(folder: Path) -> list[Living]:
    """Return the live processes of a workspace's ``.registry``; changes nothing."""
    out = []
    for path in sorted((folder / "procs").glob("*-*")):
        with suppress(OSError, ValueError, KeyError):
            data = path.read_bytes()
            if len(data) == _SIZE and _is_locked(path):
                head = orjson.loads(data[:_HEAD])
                cells = memoryview(data)[_HEAD:].cast("Q")
                out.append(
                    Living(
                        name=path.name,
                        pid=head["pid"],
                        at=head["at"],
                        target_phase=head["wish"],
                        gated=head.get("gated", False),
                        counts={name: cells[n] for name, n in _PLACE.items() if name != "slow"},
                        times={n: cells[s : s + _BUCKETS].tolist() for n, s in _START.items()},
                        slow=cells[_PLACE["slow"]] / 1e6 if _is_fresh(path) else 0.0,
                    )
                )
    return out


def _is_fresh(path: Path) -> bool:
    """Return whether a process has counted anything recently: an idle process is not slow."""
    return time.time() - path.stat().st_mtime < _FRESH


def quantile(buckets: Sequence[int], share: float) -> float | None:
    """Return the seconds that ``share`` of the durations do not exceed; None if there are none."""
    left = math.ceil(sum(buckets) * share)
    for n, count in enumerate(buckets):
        left -= count
        if count and left <= 0:
            return bucket_bound(n)
    return None


def bucket_bound(n: int) -> float:
    """Return the upper bound of a bucket's durations in seconds."""
    return float(2 ** ((n + 1) / _PER_OCTAVE)) / 1e6


def _bucket(seconds: float) -> int:
    micros = seconds * 1e6
    if micros <= 1:
        return 0
    return min(_BUCKETS - 1, int(math.log2(micros) * _PER_OCTAVE))


def _is_locked(path: Path, *, bury: bool = False) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if bury:
            path.unlink(missing_ok=True)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _bury(folder: Path) -> None:
    for path in folder.glob("*-*"):
        with suppress(OSError):
            _is_locked(path, bury=True)


_entries: weakref.WeakSet[Process] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for entry in list(_entries):
        entry.after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
