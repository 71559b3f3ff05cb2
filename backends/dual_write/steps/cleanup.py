"""3 to 4: the source is archived and removed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from backends.dual_write.steps.base import BaseStep
from registry_api.capabilities import ForeignWriters
from registry_api.errors import PreflightFailed, VerificationFailed
from registry_api.migration import PhaseRecord

__all__ = ["CleanUp"]


@dataclass(slots=True)
class CleanUp(BaseStep):
    """3 to 4: the source is archived, and removed when no process has its files open."""

    archive: str = ""

    def prepare(self) -> int:
        """See Step.prepare."""
        context = self.context
        context.set_late_writes_aside()
        if context.foreign is not None:
            if context.reason is None:
                _refuse(context.foreign)
            differing = context.foreign.frozen_differences()
            if differing:
                raise VerificationFailed(
                    f"{len(differing)} frozen document(s) have changed, the first: {differing[0]}",
                    next_step="registry-backend verify",
                )
        progress = context.progress
        counted = None if progress is None else lambda n, of: progress("archive", n, of)
        self.archive = context.migration_source.archive(progress=counted)
        return 0

    def changed(self, record: PhaseRecord) -> PhaseRecord:
        """See Step.changed."""
        return replace(record, archive=self.archive)

    def clean_up(self, record: PhaseRecord) -> None:
        """See Step.clean_up."""
        self.context.retire(record.archive)


def _refuse(foreign: ForeignWriters) -> None:
    kept = foreign.kept_late_writes()
    if kept:
        raise PreflightFailed(
            f"{len(kept)} late write(s) are not resolved, the first: {kept[0]}",
            next_step="Read the report, then move it away; or --force --reason TEXT",
        )
    holders = foreign.holders()
    if holders:
        raise PreflightFailed(
            f"a process has a document open: {holders[0]}",
            next_step="End that program; or --force --reason TEXT",
        )
