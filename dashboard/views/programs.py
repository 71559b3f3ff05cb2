"""The programs of this host that use a registry, and how many operations each makes."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from registry_api.workspace import Living, living

__all__ = ["Program", "Programs"]

_EVERY = 5.0  # seconds that a rate is measured over at least
_OURS = {
    "registry-backend",
    "registry-orchestrator",
    "registry-dashboard",
    "orchestrator",
    "dashboard",
}
_COMMANDS = {
    "serve",
    "health",
    "switch",
    "verify",
    "reconcile",
    "recover",
    "watch",
    "top",
    "compact",
}
_WORD = re.compile(r"[\w.-]{1,40}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A live process: ``rate`` in operations a second, ``slow_ms``: 99 % of its calls took less."""

    pid: int
    name: str
    since: datetime
    rate: float
    refused: int
    failed: int
    slow_ms: float


class Programs:
    """The processes of one workspace; thread-safe. Rates are those since a look 5 s ago or more."""

    def __init__(self, state: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._state = state
        self._clock = clock
        self._lock = threading.Lock()
        self._before: tuple[float, dict[str, int]] | None = None
        self._rates: dict[str, float] = {}

    def rows(self) -> list[Program]:
        """Return the live processes in the order of their ids."""
        found, now = living(self._state), self._clock()
        totals = {p.name: sum(map(sum, (p.times["read"], p.times["write"]))) for p in found}
        with self._lock:
            self._measure(totals, now)
            rates = dict(self._rates)
        return sorted((_program(p, totals, rates) for p in found), key=lambda p: p.pid)

    def _measure(self, totals: dict[str, int], now: float) -> None:
        if self._before is not None:
            at, before = self._before
            if now - at < _EVERY:
                return
            self._rates = {
                name: (total - before[name]) / (now - at)
                for name, total in totals.items()
                if name in before
            }
        self._before = now, totals


def _program(process: Living, totals: dict[str, int], rates: dict[str, float]) -> Program:
    since = datetime.fromisoformat(process.at)
    rate = rates.get(process.name)
    if rate is None:  # it has been seen once: since it began
        rate = totals[process.name] / max(1.0, (datetime.now(UTC) - since).total_seconds())
    return Program(
        pid=process.pid,
        name=_name(process.pid),
        since=since,
        rate=rate,
        refused=process.counts["refused"],
        failed=process.counts["failed"],
        slow_ms=1000 * process.slow,
    )


def _name(pid: int) -> str:
    """Return the program of a process, empty if that cannot be read.

    Of our own programs with their command. No other argument: it may be a secret.
    """
    words: list[str] = []
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    if words and Path(words[0]).name.startswith("python"):
        words = _run_by_python(words[1:])
    if not words or not _WORD.fullmatch(name := Path(words[0]).name):
        return ""
    command = words[1] if len(words) > 1 else ""
    return f"{name} {command}" if name in _OURS and command in _COMMANDS else name


def _run_by_python(words: list[str]) -> list[str]:
    """Return what an interpreter runs, from its name on: a module or a file."""
    words = list(words)
    while words and words[0].startswith("-"):
        option = words.pop(0)
        if option == "-m":
            return words
        if option == "-c":
            return ["python"]
        if option in {"-X", "-W"} and words:
            words.pop(0)
    return words
