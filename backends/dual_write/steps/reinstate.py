"""4 to 3: the removed documents are put back, frozen."""

from __future__ import annotations

from dataclasses import dataclass

from backends.dual_write.steps.base import BaseStep

__all__ = ["Reinstate"]


@dataclass(slots=True)
class Reinstate(BaseStep):
    """4 to 3: the removed documents are put back, frozen."""

    def prepare(self) -> int:
        """See Step.prepare."""
        self.context.migration_source.reinstate(self.context.archive)
        self.context.set_late_writes_aside()
        return 0

    def undo(self) -> None:
        """See Step.undo."""
        self.context.retire(self.context.archive)
