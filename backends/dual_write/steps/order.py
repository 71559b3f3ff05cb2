"""Which step leads from one phase to the next."""

from __future__ import annotations

from typing import cast

from backends.dual_write.steps.base import BaseStep, Step, StepContext
from backends.dual_write.steps.cleanup import CleanUp
from backends.dual_write.steps.cutover import CutOver
from backends.dual_write.steps.reinstate import Reinstate
from backends.dual_write.steps.rollback import Rollback, StepDown
from backends.dual_write.steps.sync import Sync
from registry_api.migration import MigrationPhase

__all__ = ["step_between"]

_KINDS: dict[tuple[int, int], type[BaseStep]] = {
    (0, 1): Sync,
    (1, 2): Sync,
    (2, 3): CutOver,
    (3, 4): CleanUp,
    (4, 3): Reinstate,
    (3, 2): Rollback,
    (2, 1): StepDown,
    (1, 0): StepDown,
}


def step_between(before: MigrationPhase, after: MigrationPhase, context: StepContext) -> Step:
    """Return the step from one phase to the next; one that does nothing if the phases are unknown.

    They are unknown if an interrupted switch did not record them.
    """
    return cast(Step, _KINDS.get((before, after), BaseStep)(context))
