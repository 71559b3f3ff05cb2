"""Where a move is: its phase and its record."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import IntEnum
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from registry_api.workspace.store_location import public

__all__ = ["CompletedMove", "MigrationPhase", "PhaseRecord"]


class MigrationPhase(IntEnum):
    """The phase of a move.

    0: only the source is used; a registry that no move has touched is in phase 0, too. 1: writes go
    to both stores. 2: reads come from the target too. 3: the target is the writer of record, the
    source is fenced. 4: the source is removed.
    """

    SOURCE_ONLY = 0
    JSON_ONLY = SOURCE_ONLY  # its name in version 0.1
    PARALLEL_WRITE = 1
    READ_MIGRATION = 2
    WRITE_CUTOVER = 3
    CLEANUP = 4


_KEYS = {"target_phase": "wish"}  # field: key in the file, where they differ


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletedMove:
    """A move that was completed: its target is the workspace's store from then on.

    ``move`` is its id, ``epoch`` that of the record that completed it; ``at`` and ``by`` say when
    and by whom. ``source`` and ``target`` are names or URLs without credentials.
    """

    move: str
    source: str
    target: str
    epoch: int
    archive: str | None = None
    at: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseRecord:
    """The state of a workspace's move; every switch and every completion increments ``epoch``.

    ``move`` is the id of the move under way, empty before its first switch. ``target`` is empty
    where none was named yet. ``completed`` are the moves before this one, oldest first.
    ``foreign_writers``: programs outside the contract edit the source's files.

    ``target_phase`` is the last ``REGISTRY_PHASE`` that was acted on. ``zone`` is the time zone in
    which the timestamps of legacy programs are read. ``verified`` is when both stores were last
    found equal. ``archive``: the name and SHA-256 of the archive that holds the removed documents.
    ``unreadable``: files of the source that could not be read and that the operator left out.
    ``source`` and ``target`` are names or URLs without credentials.
    """

    phase: MigrationPhase = MigrationPhase.SOURCE_ONLY
    epoch: int = 0
    source: str = "json"
    target: str = "sqlite"
    move: str = ""
    completed: tuple[CompletedMove, ...] = ()
    foreign_writers: bool = True
    target_phase: int | None = None
    stepped_back: bool = False
    zone: str | None = None
    verified: str | None = None
    json_is_truth: bool = False
    archive: str | None = None
    unreadable: tuple[str, ...] = ()
    at: str = ""
    by: str = ""

    def __post_init__(self) -> None:
        """Remove credentials, wherever the record comes from."""
        for side in ("source", "target"):
            object.__setattr__(self, side, public(getattr(self, side)))

    @property
    def writer(self) -> str:
        """The writer of record."""
        return self.target if self.phase >= MigrationPhase.WRITE_CUTOVER else self.source

    def to_dict(self) -> dict[str, Any]:
        """Return the record under the keys of ``phase.json`` and ``history.jsonl``."""
        return {_KEYS.get(name, name): value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> PhaseRecord:
        """Build a record from what ``phase.json`` holds; raises ValueError, KeyError, TypeError."""
        known = {f: data[_KEYS.get(f, f)] for f in cls.__slots__ if _KEYS.get(f, f) in data}
        return _adapter().validate_python(known | {"phase": MigrationPhase(data["phase"])})


@cache
def _adapter() -> TypeAdapter[PhaseRecord]:
    return TypeAdapter(PhaseRecord)
