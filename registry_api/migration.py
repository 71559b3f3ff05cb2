"""A move from one store to another: its phases, what a switch and a verification report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol

from registry_api.models import Kind

if TYPE_CHECKING:
    from registry_api.control import PhaseRecord
    from registry_api.store import Reconciled

__all__ = [
    "Migration",
    "MigrationPhase",
    "Mismatch",
    "MoveStatus",
    "Progress",
    "SwitchReport",
    "SwitchStep",
    "VerifyReport",
]


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


Progress = Callable[[str, int, int], None]  # (what, done, of how many)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """One difference: where (a JSON pointer below the task), and both values."""

    task_id: str
    pointer: str
    source: Any
    target: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What a verification compared; ``mismatches`` empty: both stores hold the same.

    ``in_flight``: tasks that never stood still for as long as two reads; they were not compared.
    """

    tasks: int = 0
    records: int = 0
    mismatches: tuple[Mismatch, ...] = ()
    in_flight: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchStep:
    """One step of a switch; ``pause_ms`` is how long callers were held off."""

    from_phase: MigrationPhase
    to_phase: MigrationPhase
    pause_ms: float = 0.0
    caught_up: int = 0
    verified: VerifyReport | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchReport:
    """The steps taken, or with ``dry_run`` to be taken; ``notes`` say what else happened."""

    steps: tuple[SwitchStep, ...] = ()
    dry_run: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveStatus:
    """A move as it stands; ``dirty`` tasks lag in the target, None: it cannot be read.

    ``late_writes``: reports of what others wrote after the cut-over, not dealt with yet.
    """

    record: PhaseRecord
    dirty: int | None = 0
    records: dict[str, dict[Kind, int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    late_writes: tuple[str, ...] = ()


class Migration(Protocol):
    """The operator's side of a move; opened by ``open_migration``."""

    def status(self) -> MoveStatus:
        """Return where the move stands; changes nothing."""

    def switch(
        self,
        to: MigrationPhase,
        *,
        actor: str,
        dry_run: bool = False,
        timeout: float | None = None,
        json_is_truth: bool = False,
        leave_unreadable: bool = False,
        only_from_epoch: int | None = None,
        force: str | None = None,
        progress: Progress | None = None,
    ) -> SwitchReport:
        """Walk to a phase, a step at a time, each verified before it commits.

        ``timeout``: seconds for the gate to become free, and for any lock; None: 5, or more where
        operations take long just now. ``leave_unreadable``: go on though files of the source cannot
        be read; recorded. ``only_from_epoch``: do nothing where the record is of
        another epoch by now. ``force``: why to go on where stragglers or foreign holders forbid
        it; recorded.

        Raises Busy (another switch runs), SwitchTimedOut (the gate did not become free),
        PreflightFailed or VerificationFailed; nothing is changed beyond the steps before.
        """

    def verify(self, *, progress: Progress | None = None) -> VerifyReport:
        """Compare every task of both stores, field by field, beside the writers."""

    def diff(self, task_id: str) -> list[Mismatch]:
        """Compare one task of both stores, field by field."""

    def reconcile(self, *, dry_run: bool = False, progress: Progress | None = None) -> Reconciled:
        """Take in what others wrote and bring the target up to date, or in phases 3 and 4 the logs.

        ``dry_run``: only count what would be done.
        """

    def recover(self, *, dry_run: bool = False, wait: bool = True) -> tuple[str, ...]:
        """Finish what the dead left: switches, writes, a target that lags; says what was done.

        Without ``wait`` removed documents that must still rest are left for a later one.
        Every operation does what it needs of this by itself. Raises Busy while a switch runs.
        """

    def history(self) -> list[dict[str, Any]]:
        """Return the switches made, oldest first."""

    def close(self) -> None:
        """Release everything."""
