"""2 to 3: the documents are frozen and the target becomes the writer of record."""

from __future__ import annotations

from dataclasses import dataclass

from backends.dual_write.steps.sync import Sync
from registry_api.workspace import at_most

__all__ = ["CutOver"]

_MOMENT = 0.05  # seconds to wait for a locked document while all callers wait


@dataclass(slots=True)
class CutOver(Sync):
    """2 to 3: the documents are frozen, the target becomes the writer of record."""

    touches_files: bool = True

    def prepare(self) -> int:
        """See Step.prepare."""
        context = self.context
        context.notes += [
            f"open in another process: {h}" for h in context.migration_source.holders()
        ]
        context.migration_source.prepare_freeze()
        # dataclass(slots=True) makes a new class, which super() without arguments does not know.
        return Sync.prepare(self)

    def final_sync(self) -> int:
        """See Step.final_sync."""
        return self._settle(self.context.migration_source.freeze(self.seen))

    def undo(self) -> None:
        """See Step.undo."""
        self.context.migration_source.thaw()

    def finalize(self) -> None:
        """See Step.finalize."""
        # A legacy program that waited for a document's lock may have written while the other
        # documents were being frozen.
        with at_most(_MOMENT):  # a write to a locked document becomes a late write
            moved = self.context.migration_source.sweep()
        self.context.replicator.catch_up_all(moved)
