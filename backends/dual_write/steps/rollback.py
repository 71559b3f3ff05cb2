"""Steps back: 3 to 2 brings the source up to date; 2 to 1 and 1 to 0 need no target."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime

from backends.dual_write.comparison import verify_tasks
from backends.dual_write.replicator import Replicator
from backends.dual_write.steps.base import BaseStep
from backends.dual_write.steps.sync import narrow, require_equal, settle
from registry_api.capabilities import Logged, provides
from registry_api.client import all_tasks
from registry_api.errors import (
    Busy,
    RegistryError,
)
from registry_api.migration import PhaseRecord
from registry_api.records import Head, TaskQuery
from registry_api.roles import Role
from registry_api.store import RegistryStore

__all__ = ["Rollback", "StepDown"]


@dataclass(slots=True)
class StepDown(BaseStep):
    """2 to 1, 1 to 0: settle interrupted writes. The target is not needed, it may be lost."""

    def final_sync(self) -> int:
        """See Step.final_sync."""
        foreign = self.context.foreign
        if foreign is not None:
            try:
                foreign.settle()
            except Busy:
                raise
            except RegistryError as error:
                # A rollback must not depend on one document, nor on an unacknowledged write.
                self.context.notes.append(
                    f"an interrupted write was left as it is: {error.message}"
                )
        return 0


@dataclass(slots=True)
class Rollback(BaseStep):
    """3 to 2: the source catches up with the target, and becomes the writer of record again."""

    is_marked: bool = True
    seen: dict[str, Head] = field(default_factory=dict)
    fenced_at: datetime | None = None

    def _replicator(self) -> Replicator:
        return self.context.replicator.reversed()

    def _heads(self) -> dict[str, Head]:
        return target_heads(self.context.replicator.target)

    def prepare(self) -> int:
        """See Step.prepare."""
        context, replicator, record = self.context, self._replicator(), self.context.record()
        context.set_late_writes_aside()
        # A missing document could not be written in phase 2.
        context.migration_source.reinstate(None)
        context.roles.give(context.source, record, Role.REPLICA, writer=record.writer)
        logged = context.keep_logs(context.replicator.target)
        if provides(logged, Logged):
            logged.reconcile()
        heads = self._heads()
        behind = replicator.lagging(list(heads))
        replicator.catch_up_in_batches(behind, what="bring back", progress=context.progress)
        self.verified = verify_tasks(replicator, list(heads), progress=context.progress)
        # A task not written since the cut-over can differ too: its log may have been removed.
        differing = {m.task_id for m in self.verified.mismatches}
        for task_id in differing:
            replicator.replace(task_id)
        if differing:
            self.verified = verify_tasks(replicator, list(heads), progress=context.progress)
        require_equal(self.verified)
        self.seen = {t: h for t, h in heads.items() if t not in self.verified.in_flight}
        narrow(replicator, self.seen, self._heads, context.throttle)
        return len(behind)

    def final_sync(self) -> int:
        """See Step.final_sync: fence first, so that nothing is committed after the comparison."""
        context, replicator = self.context, self._replicator()
        context.roles.give(context.replicator.target, context.record(), Role.FENCED)
        self.fenced_at = datetime.now(UTC)
        nowhere = Head()
        moved = [
            task.task_id
            for task in all_tasks(replicator.source, TaskQuery())
            if self.seen.get(task.task_id, nowhere).revision != task.revision
        ]
        with context.foreign.as_recorded() if context.foreign is not None else nullcontext():
            return settle(replicator, moved, self.seen)

    def undo(self) -> None:
        """See Step.undo."""
        if self.context.foreign is not None:
            self.context.foreign.keep_fenced()
        self.context.settle_roles()

    def finalize(self) -> None:
        """See Step.finalize."""
        context, record = self.context, self.context.record()
        context.roles.give(context.replicator.target, record, Role.REPLICA, writer=record.writer)
        context.migration_source.unfence(context.writer_stamp())

    def clean_up(self, record: PhaseRecord) -> None:
        """See Step.clean_up."""
        self.context.complete_logs(lambda: self.context.replicator.target, self.fenced_at)


def target_heads(target: RegistryStore) -> dict[str, Head]:
    """Return the head of every task of a store that only this library writes."""
    return {t.task_id: target.head(t.task_id) for t in all_tasks(target, TaskQuery())}
