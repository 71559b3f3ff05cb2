"""4 to 3: the removed source is put back, fenced."""

from __future__ import annotations

from dataclasses import dataclass

from backends.dual_write.steps.base import BaseStep
from registry_api.errors import CorruptDocument
from registry_api.roles import Role

__all__ = ["Reinstate"]


@dataclass(slots=True)
class Reinstate(BaseStep):
    """4 to 3: the removed source is put back, fenced."""

    def prepare(self) -> int:
        """See Step.prepare."""
        context, record = self.context, self.context.record()
        try:
            context.migration_source.reinstate(context.archive)
        except CorruptDocument as error:
            context.notes.append(
                f"the source is empty until a step back to 2 fills it again: {error.message}"
            )
        context.roles.give(context.source, record, Role.FENCED, writer=record.writer)
        context.set_late_writes_aside()
        return 0

    def undo(self) -> None:
        """See Step.undo."""
        self.context.retire(self.context.archive, at_once=True)
