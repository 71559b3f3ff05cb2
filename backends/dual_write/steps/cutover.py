"""2 to 3: the source is fenced and the target becomes the writer of record."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from backends.dual_write.steps.sync import Sync
from registry_api.capabilities import MigrationSource, provides
from registry_api.migration import PhaseRecord
from registry_api.workspace import at_most

__all__ = ["CutOver"]

_MOMENT = 0.05  # seconds to wait for a locked document while all callers wait


@dataclass(slots=True)
class CutOver(Sync):
    """2 to 3: the source is fenced, the target becomes the writer of record."""

    is_marked: bool = True
    fenced_at: datetime | None = None

    def prepare(self) -> int:
        """See Step.prepare."""
        context = self.context
        _ = context.migration_source  # refused before anything is copied
        if context.foreign is not None:
            context.notes += [f"open in another process: {h}" for h in context.foreign.holders()]
            context.foreign.prepare_fence()
        # dataclass(slots=True) makes a new class, which super() without arguments does not know.
        return Sync.prepare(self)

    def final_sync(self) -> int:
        """See Step.final_sync: fence first, so that nothing is committed after the comparison."""
        context = self.context
        moved = context.migration_source.fence(context.fence_stamp(), self.seen)
        self.fenced_at = datetime.now(UTC)
        return self._settle(moved)

    def undo(self) -> None:
        """See Step.undo."""
        context, source = self.context, self.context.source  # the target may be lost
        if provides(source, MigrationSource):
            source.unfence(context.writer_stamp())

    def finalize(self) -> None:
        """See Step.finalize."""
        context = self.context
        if context.roles.is_writer(context.replicator.target, context.record()):
            return  # finalized before: writers have committed since
        if context.foreign is not None:
            # A legacy program that waited for a document's lock may have written while the other
            # documents were being fenced.
            with at_most(_MOMENT):  # a write to a locked document becomes a late write
                moved = context.foreign.sweep()
            context.replicator.catch_up_all(moved)
        context.settle_roles()

    def clean_up(self, record: PhaseRecord) -> None:
        """See Step.clean_up."""
        self.context.complete_logs(lambda: self.context.source, self.fenced_at)
