"""How a move went in the last hour: the counters of all live processes, sampled, in memory only."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from registry_api.errors import RegistryError
from registry_api.migration import MigrationPhase, PhaseFile
from registry_api.workspace import living

__all__ = ["MoveHistory"]

log = logging.getLogger("registry_backend")
_EVERY = 15.0  # seconds between two samples
_KEPT = 240
_COPYING = {MigrationPhase.PARALLEL_WRITE, MigrationPhase.READ_MIGRATION}
_COUNTED = ("mirrored", "lagging", "compared", "mismatched")


class MoveHistory:
    """Samples while writes are copied to a target; empty otherwise.

    A row holds what happened since the row before: (commits that the target followed at once,
    commits that it did not, reads that agreed, reads that differed).
    """

    def __init__(self, state: Path, *, every: float = _EVERY) -> None:
        self.every = every
        self.rows: deque[tuple[int, int, int, int]] = deque(maxlen=_KEPT)
        self._state = state
        self._before: Mapping[str, Mapping[str, int]] = {}

    async def sample(self) -> None:
        """Take samples until cancelled."""
        while True:
            try:
                await asyncio.to_thread(self.look)
            except RegistryError as error:  # as of a damaged record: the page shows it
                log.info("the move cannot be sampled: %s", error)
            except Exception:
                log.exception("sampling the move failed")
            await asyncio.sleep(self.every)

    def look(self) -> None:
        """Take one sample."""
        record = PhaseFile(self._state).read()
        if record is None or record.phase not in _COPYING:
            self.rows.clear()
            self._before = {}
            return
        now = {p.name: {n: p.counts[n] for n in _COUNTED} for p in living(self._state)}
        before, self._before = self._before, now
        grown = dict.fromkeys(_COUNTED, 0)
        for name, counts in now.items():
            for what, number in counts.items():
                grown[what] += number - before.get(name, {}).get(what, 0)
        if before:
            agreed = grown["compared"] - grown["mismatched"]
            self.rows.append((grown["mirrored"], grown["lagging"], agreed, grown["mismatched"]))
