"""The phases of a move from one store to another."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["MigrationPhase"]


class MigrationPhase(IntEnum):
    """Where a move stands.

    0: the source alone. 1: writes go to both. 2: reads come from the target too. 3: the target is
    the writer of record, the source a frozen archive. 4: the source's registries are removed.
    """

    JSON_ONLY = 0
    PARALLEL_WRITE = 1
    READ_MIGRATION = 2
    WRITE_CUTOVER = 3
    CLEANUP = 4
