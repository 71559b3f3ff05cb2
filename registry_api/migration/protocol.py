"""A move from one store to another: its phases, its reports and the Migration protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from registry_api.records.models import Kind

if TYPE_CHECKING:
    from registry_api.capabilities import Reconciled
    from registry_api.migration.phase import PhaseRecord
from registry_api.migration.phase import MigrationPhase

__all__ = [
    "Migration",
    "Mismatch",
    "MoveStatus",
    "Progress",
    "SwitchReport",
    "SwitchStep",
    "VerifyReport",
]

Progress = Callable[[str, int, int], None]  # (what, done, total)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """One difference: ``pointer`` (a JSON pointer below the task) and both values."""

    task_id: str
    pointer: str
    source: Any
    target: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """The result of a verification; ``mismatches`` empty: both stores hold the same.

    ``in_flight``: tasks that kept changing between two reads; they were not compared.
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
    """The steps taken, or with ``dry_run`` to be taken; ``notes`` say what else happened.

    ``checks``, with ``dry_run``: the preconditions of the first step that were checked and hold.
    """

    steps: tuple[SwitchStep, ...] = ()
    dry_run: bool = False
    notes: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveStatus:
    """The state of a move; ``dirty`` tasks are behind in the target, None: it cannot be read.

    ``late_writes``: reports of late writes (to a frozen source) that nobody has dealt with yet.
    """

    record: PhaseRecord
    dirty: int | None = 0
    records: dict[str, dict[Kind, int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    late_writes: tuple[str, ...] = ()


class Migration(Protocol):
    """The operations on a move, for its operator; opened by ``open_migration``."""

    def status(self) -> MoveStatus:
        """Return the state of the move; changes nothing."""

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
        target: str | None = None,
        progress: Progress | None = None,
    ) -> SwitchReport:
        """Switch to a phase, one step at a time, each verified before it commits.

        ``timeout``: seconds for the gate to become free, and for any lock; None: 5, or more while
        operations take long. ``leave_unreadable``: continue although files of the source cannot be
        read; recorded. ``only_from_epoch``: do nothing unless the record has this epoch. ``force``:
        the reason to continue although late writes or foreign holders forbid it; recorded.
        ``target``: name or URL of the target of the move that begins in phase 0.

        Raises Busy (another switch runs), SwitchTimedOut (the gate did not become free),
        PreflightFailed or VerificationFailed; only the completed steps have changed anything.
        """

    def complete(self, *, actor: str, only_from_epoch: int | None = None) -> PhaseRecord:
        """End a move in phase 4: its target is the workspace's store from then on, in phase 0.

        ``only_from_epoch``: refuse if the record has another epoch by now.

        The next move begins with a switch to phase 1. Raises PreflightFailed in another phase, or
        while removed files are pending deletion or late writes are not resolved.
        """

    def verify(self, *, progress: Progress | None = None) -> VerifyReport:
        """Compare every task of both stores, field by field, while writers continue."""

    def diff(self, task_id: str) -> list[Mismatch]:
        """Compare one task of both stores, field by field."""

    def reconcile(self, *, dry_run: bool = False, progress: Progress | None = None) -> Reconciled:
        """Absorb foreign edits and bring the target up to date; in phases 3 and 4 only logs.

        ``dry_run``: only count what would be done.
        """

    def recover(self, *, dry_run: bool = False, wait: bool = True) -> tuple[str, ...]:
        """Finish what dead processes left unfinished; returns descriptions of what was done.

        That is switches, writes and a target that is behind. Without ``wait``, removed documents
        that are still pending deletion are left for a later call. Every operation does the part
        that it needs by itself. Raises Busy while a switch runs.
        """

    def take_over(self) -> tuple[str, ...]:
        """Make this workspace the owner of its move's stores, each with the role of its phase.

        For a copy of a workspace whose original is no longer used, and for a store that was
        restored from a backup of another phase. Raises BackendMismatch if a store belongs to
        another registry.
        """

    def history(self) -> list[dict[str, Any]]:
        """Return the switches made, oldest first."""

    def close(self) -> None:
        """Release everything."""
