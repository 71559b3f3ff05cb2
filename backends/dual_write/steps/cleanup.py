"""3 to 4: the documents are archived and removed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from backends.dual_write.steps.base import BaseStep
from registry_api.errors import (
    PreflightFailed,
    VerificationFailed,
)
from registry_api.migration import PhaseRecord

__all__ = ["CleanUp"]


@dataclass(slots=True)
class CleanUp(BaseStep):
    """3 to 4: the documents are archived, and removed when no process has them open."""

    archive: str = ""

    def prepare(self) -> int:
        """See Step.prepare."""
        context = self.context
        context.set_late_writes_aside()
        if context.reason is None:
            self._refuse()
        progress = context.progress
        counted = None if progress is None else lambda n, of: progress("archive", n, of)
        differing = context.migration_source.frozen_differences()
        if differing:
            raise VerificationFailed(
                f"{len(differing)} frozen document(s) have changed, the first: {differing[0]}",
                next_step="registry-backend verify",
            )
        self.archive = context.migration_source.archive(progress=counted)
        return 0

    def _refuse(self) -> None:
        kept = self.context.migration_source.kept_late_writes()
        if kept:
            raise PreflightFailed(
                f"{len(kept)} late write(s) are not resolved, the first: {kept[0]}",
                next_step="Read the report, then move it away; or --force --reason TEXT",
            )
        holders = self.context.migration_source.holders()
        if holders:
            raise PreflightFailed(
                f"a process has a document open: {holders[0]}",
                next_step="End that program; or --force --reason TEXT",
            )

    def changed(self, record: PhaseRecord) -> PhaseRecord:
        """See Step.changed."""
        return replace(record, archive=self.archive)

    def clean_up(self, record: PhaseRecord) -> None:
        """See Step.clean_up."""
        self.context.retire(record.archive)
