"""``.registry/switch.json`` records a switch under way, so that an interrupted one is noticed.

It is written before a switch's first side effect and removed after its last. While it says
``inside``, the switch holds the gate and documents may be partly frozen: an operation that enters
the gate and still reads ``inside`` knows that the switch was interrupted, leaves, and recovers it
first.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from registry_api.errors import Unavailable
from registry_api.migration.phase import MigrationPhase
from registry_api.workspace.durable_files import replace_file

__all__ = ["SwitchJournal", "Switching"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Switching:
    """A switch under way: its two phases and the epoch it began in. ``reason``: why the preflight
    was overruled.
    """

    before: MigrationPhase
    after: MigrationPhase
    epoch: int
    inside: bool = False
    reason: str | None = None


def _unsynced(_: int) -> None:
    """Skip the sync: ``inside`` need not survive a power loss, which ends every process."""


class SwitchJournal:
    """The file; only the holder of ``switch.lock`` writes it, every process reads it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "switch.json"
        self._place = str(self.path)

    def read(self) -> Switching | None:
        """Return the switch under way, or None; if unreadable, one that had done nothing yet."""
        try:
            data = orjson.loads(self.path.read_bytes())
            return Switching(
                before=MigrationPhase(data["before"]),
                after=MigrationPhase(data["after"]),
                epoch=data["epoch"],
                inside=data["inside"],
                reason=data["reason"],
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            return Switching(before=MigrationPhase(0), after=MigrationPhase(0), epoch=-1)

    def is_inside(self) -> bool:
        """Return whether a switch holds the gate or was interrupted in it; every operation asks."""
        if not os.access(self._place, os.F_OK):
            return False
        found = self.read()
        return found is not None and found.inside

    def write(self, switching: Switching, *, durable: bool = True) -> None:
        """Write or replace it; raises Unavailable."""
        data = orjson.dumps(asdict(switching))
        try:
            # Replaced, never truncated: an empty file would mean that nothing had begun.
            sync = os.fsync if durable else _unsynced
            replace_file(self.path, data, aside=self.path.with_suffix(".new"), sync=sync)
        except OSError as error:
            raise Unavailable(
                f"{self.path} cannot be written: {error.strerror}; nothing was changed",
                next_step="Free space or check the folder, then try again",
            ) from error

    def clear(self) -> None:
        """Remove it: the switch is done, or undone."""
        self.path.unlink(missing_ok=True)
