"""``.registry/switch.json``: that a switch is under way, so that one that dies is noticed.

Written before a switch's first side effect, removed after its last. While it says ``inside``, the
gate is closed and documents may be half frozen: an operation that gets in and still reads that
knows that the switch died, leaves, and recovers it first.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from registry_api.durable import replace_file
from registry_api.errors import Unavailable
from registry_api.migration import MigrationPhase

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
    """What is behind the gate need not outlive a power loss: then everybody is dead."""


class SwitchJournal:
    """The file; written by the holder of ``switch.lock`` alone, read by everybody."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "switch.json"
        self._place = str(self.path)

    def read(self) -> Switching | None:
        """Return the switch under way, None: none. One that was cut off had done nothing yet."""
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
        """Whether a switch is, or died, behind the closed gate; asked with every operation."""
        if not os.access(self._place, os.F_OK):
            return False
        found = self.read()
        return found is not None and found.inside

    def write(self, switching: Switching, *, durable: bool = True) -> None:
        """Write or replace it; raises Unavailable."""
        data = orjson.dumps(asdict(switching))
        try:
            # Replaced, never cut off: an empty one would tell that nothing had begun.
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
