"""The state of a move, as the API and the pages show it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from typing import Any

from dashboard.answers import sendable
from dashboard.views.conflicts import conflicts_of
from registry_api import RegistryStore, Settings, open_migration
from registry_api.errors import RegistryError
from registry_api.migration import MigrationPhase, MoveStatus, PhaseFile, PhaseRecord
from registry_api.workspace import STATE_DIR, at_most, has_legacy_registry, living

__all__ = ["MigrationView"]

_FRESH = 1.0  # seconds for which an answer is reused: it takes a count of all tasks
_COUNTING = 0.1  # seconds that a count waits for a lock
_HISTORY = 50
_PHASES = frozenset(map(int, MigrationPhase))
_NOTHING: dict[str, Any] = {"compared": {}, "held": {}, "slow_ms": 0.0, "conflicts": []}
_COMPARED = ("compared", "mismatched", "in_flight", "healed", "lagging", "fallbacks")


class MigrationView:
    """The state of a workspace's move, read at most once a second for all callers; thread-safe."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._folder = settings.workspace / STATE_DIR
        self._clock = clock
        self._lock = threading.Lock()
        self._looked: tuple[float, int, dict[str, Any]] | None = None

    def to_dict(self, store: RegistryStore, *, busy: bool) -> dict[str, Any]:
        """Return phase, writer of record, tasks behind, counts, comparisons and history.

        Without a move: only the name of the store. ``busy``: a job runs here, so anything that
        would wait for it or delay it is left out.
        """
        record = PhaseFile(self._folder).read()
        if record is None and not has_legacy_registry(self._settings.workspace):
            return {"phase": None, "writer_of_record": store.info.name, "history": []}
        if busy:
            known = {"history": [], **_NOTHING, **(self._looked[2] if self._looked else {})}
            now = MoveStatus(record=record or PhaseRecord(), dirty=None)
            return _to_dict(now, []) | {k: known[k] for k in ("history", *_NOTHING)}
        with self._lock:
            epoch = record.epoch if record else 0
            looked = self._looked
            if looked is None or looked[1] != epoch or self._clock() - looked[0] >= _FRESH:
                self._looked = looked = self._clock(), epoch, self._look(record, store)
            return looked[2]

    def _look(self, record: PhaseRecord | None, store: RegistryStore) -> dict[str, Any]:
        counts = _counted(store)
        if record is None:  # opening the move would create files
            return _to_dict(MoveStatus(record=PhaseRecord()), []) | _NOTHING | counts
        try:
            with closing(open_migration(self._settings)) as moving:
                status, history = moving.status(), moving.history()
        except RegistryError as error:  # a switch is running, or a disk failed
            status, history = MoveStatus(record=record, dirty=None, notes=(str(error),)), []
        compared = Counter[str]()
        processes = living(self._folder)
        for process in processes:
            compared.update(process.counts)
        sampled = {name: compared[name] for name in _COMPARED}
        # Reading the status keeps new late writes, so their reports are read after it.
        held = {name: sum(kinds.values()) for name, kinds in status.records.items()}
        more = {
            "conflicts": conflicts_of(self._folder),
            "held": held,
            "slow_ms": 1000 * max((p.slow for p in processes), default=0.0),
        }
        return _to_dict(status, history) | {"compared": sampled} | counts | more


def _counted(store: RegistryStore) -> dict[str, Any]:
    """Return how many tasks and records the writer of record holds; None if it cannot be read."""
    try:
        with at_most(_COUNTING):  # or the page would wait for a switch of another program
            counts = store.counts()
    except RegistryError:
        return {"tasks": None, "records": None}
    return {"tasks": counts.total_tasks, "records": sum(counts.records.values())}


def _to_dict(status: MoveStatus, history: list[dict[str, Any]]) -> dict[str, Any]:
    record = status.record
    return {
        "phase": int(record.phase),
        "name": record.phase.name,
        "next": _beside(record.phase, +1),
        "back": _beside(record.phase, -1),
        "epoch": record.epoch,
        "source": record.source,
        "target": record.target,
        "completed": [asdict(done) for done in record.completed],
        "writer_of_record": record.writer,
        "verified": record.verified,
        "dirty": status.dirty,
        "notes": sendable(status.notes),
        "stragglers": sendable(status.late_writes),
        "history": [s for line in history[-_HISTORY:] if (s := _switch(line))],
    }


def _switch(line: Any) -> dict[str, Any] | None:
    """Return a line of the history as it is shown; None if it is not valid."""
    if not isinstance(line, dict):
        return None
    phase, at, pause = line.get("phase"), line.get("at"), line.get("pause_ms") or 0.0
    ours = isinstance(at, str) and isinstance(pause, int | float)
    if not ours or type(phase) is not int or phase not in _PHASES:
        return None
    return {
        "at": at,
        "phase": phase,
        "epoch": line.get("epoch"),
        "by": str(line.get("by", "")),
        "pause_ms": float(pause),
        "stepped_back": line.get("stepped_back") is True,
        "completed": line.get("target") == "",
    }


def _beside(phase: MigrationPhase, step: int) -> int | None:
    return int(phase) + step if 0 <= phase + step < len(MigrationPhase) else None
