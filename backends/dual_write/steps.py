"""The steps between two phases: work while writers continue, while the gate is held, and after.

The gate is the readers-writer lock that every operation shares and a switch takes exclusively. A
step may be interrupted anywhere. Before the phase record is replaced it is undone (``undo``), after
that it is finished (``finalize`` while the gate is held, then ``clean_up``); both may be repeated.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Protocol, cast

from backends.dual_write.replicator import Replicator
from backends.dual_write.throttle import Throttle
from backends.dual_write.verify import compare_tail, verify_tasks
from registry_api.capabilities import LateWrite, Logged, MigrationSource, provides
from registry_api.client import all_tasks
from registry_api.errors import (
    Busy,
    CorruptDocument,
    PreflightFailed,
    RegistryError,
    TaskNotFound,
    VerificationFailed,
)
from registry_api.migration import MigrationPhase, Mismatch, PhaseRecord, Progress, VerifyReport
from registry_api.records import Head, TaskQuery, TaskSnapshot
from registry_api.store import RegistryStore
from registry_api.workspace import at_most

__all__ = ["Step", "StepContext", "step_between"]

_AT_ONCE = 20  # tasks copied between two progress reports
_ROUNDS = 6
_SHORT = 0.02  # seconds of a round that leaves almost nothing to copy
_MOMENT = 0.05  # seconds to wait for a locked document while all callers wait


@dataclass(slots=True, kw_only=True)
class StepContext:
    """The stores, settings and notes of a step.

    ``heads`` returns the source's heads. ``keep_logs`` wraps the target so that it writes the logs,
    even if the settings turn them off: after a rollback they are the record. Only steps that need
    the target open it, so that a rollback from a broken target works.
    """

    source: RegistryStore
    open_replicator: Callable[[], Replicator]
    throttle: Throttle
    keep_logs: Callable[[RegistryStore], RegistryStore]
    heads: Callable[[], dict[str, Head]]
    catch_up: Callable[[list[str], Progress | None], int]
    progress: Progress | None = None
    reason: str | None = None
    archive: str | None = None  # the one that the phase record names
    retire_seconds: float = 0.0
    patience: float = 0.0  # seconds to wait for removed documents
    notes: list[str] = field(default_factory=list)

    @property
    def replicator(self) -> Replicator:
        """Return the replicator from source to target."""
        replicator = self.open_replicator()
        replicator.copied = self.throttle.copied
        return replicator

    @property
    def migration_source(self) -> MigrationSource:
        """Return the source; raise PreflightFailed if it is not a MigrationSource."""
        # Opens the target too: no step that changes documents may begin if the target is lost.
        source = self.replicator.source
        if not provides(source, MigrationSource):
            raise PreflightFailed(
                f"the store {source.info.name!r} cannot be frozen and retired as a source",
                next_step="Stay in phase 2: only a store that implements MigrationSource can",
            )
        return source

    def now(self, task_id: str) -> TaskSnapshot | None:
        """Return the task's state in the target, None if it has none."""
        try:
            return self.replicator.target.load(task_id)
        except TaskNotFound:
            return None

    def set_late_writes_aside(self) -> None:
        """Keep late writes to frozen documents in conflicts/, with a note for each."""
        found = self.migration_source.late_writes(self.now)
        self.notes += [
            f"{_name(s)}: a late write after the cut-over, kept: {s.kept}" for s in found
        ]

    def retire(self, archive: str | None) -> None:
        """Remove the archived documents; nothing to do if None (a workspace created in phase 4)."""
        if archive is None:
            return
        progress = self.progress
        try:
            found = self.migration_source.retire(
                archive,
                wait=self.retire_seconds,
                patience=self.patience,
                now=self.now,
                progress=None if progress is None else lambda n, of: progress("wait", n, of),
            )
        except CorruptDocument as error:
            # The switch is committed: keep the documents rather than block the whole registry.
            again = "to make another archive: registry-backend switch 3, then 4"
            self.notes.append(f"no document was removed: {error.message}; {again}")
            return
        self.notes += [f"{_name(s)}: a late write after archiving, kept: {s.kept}" for s in found]
        left = self.migration_source.retiring()
        if left:
            self.notes.append(
                f"{left} removed document(s) are pending deletion; `recover` deletes them"
            )


def _name(late_write: LateWrite) -> str:
    return f"task {late_write.task_id}" if late_write.task_id else "the list of tasks"


class Step(Protocol):
    """One step between adjacent phases."""

    verified: VerifyReport | None
    touches_files: bool  # while the gate is held: an interruption must be recovered first

    def prepare(self) -> int:
        """Do the long part while writers continue; returns how many tasks were copied."""

    def final_sync(self) -> int:
        """Work while the gate is held, before the commit; raises Busy if it should be retried."""

    def undo(self) -> None:
        """Undo what the step did before the record was replaced."""

    def finalize(self) -> None:
        """Work while the gate is held, after the record was replaced."""

    def clean_up(self, record: PhaseRecord) -> None:
        """Work after the commit, while writers continue."""

    def changed(self, record: PhaseRecord) -> PhaseRecord:
        """Return the new record with this step's results added."""


@dataclass(slots=True)
class _Base:
    """A step that does nothing: the base class of the others."""

    context: StepContext
    verified: VerifyReport | None = None
    touches_files: bool = False

    def prepare(self) -> int:
        return 0

    def final_sync(self) -> int:
        return 0

    def undo(self) -> None:
        pass

    def finalize(self) -> None:
        pass

    def clean_up(self, record: PhaseRecord) -> None:
        pass

    def changed(self, record: PhaseRecord) -> PhaseRecord:
        return record


@dataclass(slots=True)
class _StepDown(_Base):
    """2 to 1, 1 to 0: only the record changes. The target is not needed, it may be lost."""

    def final_sync(self) -> int:
        source = self.context.source
        if provides(source, MigrationSource):
            try:
                source.settle()
            except Busy:
                raise
            except RegistryError as error:
                # A rollback must not depend on one document, nor on an unacknowledged write.
                self.context.notes.append(
                    f"an interrupted write was left as it is: {error.message}"
                )
        return 0


@dataclass(slots=True)
class _Follow(_Base):
    """0 to 1, 1 to 2: the target catches up with the source and is compared with it."""

    seen: dict[str, Head] = field(default_factory=dict)

    def prepare(self) -> int:
        context, replicator = self.context, self.context.replicator
        task_ids = list(context.heads())
        done = context.catch_up(task_ids, context.progress)
        seen = context.heads()
        self.verified = verify_tasks(replicator, task_ids, progress=context.progress)
        require_equal(self.verified)
        # Tasks that kept changing are compared from their start, still while writers continue.
        self.seen = {t: h for t, h in seen.items() if t not in self.verified.in_flight}
        narrow(replicator, self.seen, context.heads, context.throttle)
        return done

    def final_sync(self) -> int:
        source = self.context.source
        if provides(source, MigrationSource):
            return self._settle(source.moved(self.seen))
        return self._settle(
            {t: h for t, h in self.context.heads().items() if self.seen.get(t) != h}
        )

    def _settle(self, moved: dict[str, Head]) -> int:
        replicator, source = self.context.replicator, self.context.source
        with source.as_recorded() if provides(source, MigrationSource) else nullcontext():
            return settle(replicator, list(moved), self.seen)


@dataclass(slots=True)
class _CutOver(_Follow):
    """2 to 3: the documents are frozen, the target becomes the writer of record."""

    touches_files: bool = True

    def prepare(self) -> int:
        context = self.context
        context.notes += [
            f"open in another process: {h}" for h in context.migration_source.holders()
        ]
        context.migration_source.prepare_freeze()
        # dataclass(slots=True) makes a new class, which super() without arguments does not know.
        return _Follow.prepare(self)

    def final_sync(self) -> int:
        return self._settle(self.context.migration_source.freeze(self.seen))

    def undo(self) -> None:
        self.context.migration_source.thaw()

    def finalize(self) -> None:
        # A legacy program that waited for a document's lock may have written while the other
        # documents were being frozen.
        with at_most(_MOMENT):  # a write to a locked document becomes a late write
            moved = self.context.migration_source.sweep()
        self.context.replicator.catch_up_all(moved)


@dataclass(slots=True)
class _Return(_Base):
    """3 to 2: the frozen documents are brought up to the target's revisions, then thawed."""

    touches_files: bool = True
    seen: dict[str, Head] = field(default_factory=dict)

    def _replicator(self) -> Replicator:
        replicator = self.context.replicator
        copied = self.context.throttle.copied
        return Replicator(replicator.target, replicator.source, copied=copied)

    def _heads(self) -> dict[str, Head]:
        return target_heads(self.context.replicator.target)

    def prepare(self) -> int:
        context, replicator = self.context, self._replicator()
        context.set_late_writes_aside()
        # A missing document could not be written in phase 2.
        context.migration_source.reinstate(None)
        logged = context.keep_logs(context.replicator.target)
        if provides(logged, Logged):
            logged.reconcile()
        heads = self._heads()
        behind = replicator.lagging(list(heads))
        for start in range(0, len(behind), _AT_ONCE):
            replicator.catch_up_all(behind[start : start + _AT_ONCE])
            if context.progress is not None:
                context.progress("bring back", min(start + _AT_ONCE, len(behind)), len(behind))
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
        replicator = self._replicator()
        nowhere = Head()
        moved = [
            task.task_id
            for task in all_tasks(replicator.source, TaskQuery())
            if self.seen.get(task.task_id, nowhere).revision != task.revision
        ]
        return settle(replicator, moved, self.seen)

    def undo(self) -> None:
        self.context.migration_source.keep_frozen()

    def finalize(self) -> None:
        self.context.migration_source.thaw()


@dataclass(slots=True)
class _CleanUp(_Base):
    """3 to 4: the documents are archived, and removed when no process has them open."""

    archive: str = ""

    def prepare(self) -> int:
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
        return replace(record, archive=self.archive)

    def clean_up(self, record: PhaseRecord) -> None:
        self.context.retire(record.archive)


@dataclass(slots=True)
class _Reinstate(_Base):
    """4 to 3: the removed documents are put back, frozen."""

    def prepare(self) -> int:
        self.context.migration_source.reinstate(self.context.archive)
        self.context.set_late_writes_aside()
        return 0

    def undo(self) -> None:
        self.context.retire(self.context.archive)


_KINDS: dict[tuple[int, int], type[_Base]] = {
    (0, 1): _Follow,
    (1, 2): _Follow,
    (2, 3): _CutOver,
    (3, 4): _CleanUp,
    (4, 3): _Reinstate,
    (3, 2): _Return,
    (2, 1): _StepDown,
    (1, 0): _StepDown,
}


def step_between(before: MigrationPhase, after: MigrationPhase, context: StepContext) -> Step:
    """Return the step from one phase to the next; one that does nothing if the phases are unknown.

    They are unknown if an interrupted switch did not record them.
    """
    return cast(Step, _KINDS.get((before, after), _Base)(context))


def target_heads(target: RegistryStore) -> dict[str, Head]:
    """Return the head of every task of a store that only this library writes."""
    return {t.task_id: target.head(t.task_id) for t in all_tasks(target, TaskQuery())}


def narrow(
    replicator: Replicator,
    seen: dict[str, Head],
    heads: Callable[[], dict[str, Head]],
    throttle: Throttle,
) -> None:
    """Copy and compare, while writers continue, the tasks that are not at their head in ``seen``.

    ``seen`` is updated. Each round should take less time than the one before, and so leave less
    work to the next one and finally to the part while the gate is held; if a round takes more than
    half the time, writers are slowed down. Differences found here are reported by that last part.
    """
    before = math.inf
    for _ in range(_ROUNDS):
        start = time.monotonic()
        moved = [t for t, h in heads().items() if seen.get(t) != h]
        for task_id in moved:
            head, differences = compare_tail(replicator, task_id, seen.get(task_id, Head()))
            if not differences:
                seen[task_id] = head
        took = time.monotonic() - start
        if took < _SHORT:
            break
        if took > before / 2:
            throttle.slower()
        before = took
    replicator.catch_up_all(heads())


def settle(replicator: Replicator, moved: list[str], seen: dict[str, Head]) -> int:
    """Copy and compare, while the gate is held, the tasks that changed since ``seen``.

    Returns how many were behind. Raises VerificationFailed.
    """
    caught_up = replicator.catch_up_all(moved)
    mismatches: list[Mismatch] = []
    for task_id in moved:
        mismatches += compare_tail(replicator, task_id, seen.get(task_id, Head()))[1]
    require_equal(VerifyReport(tasks=len(moved), mismatches=tuple(mismatches)))
    return caught_up


def require_equal(report: VerifyReport) -> None:
    """Raise VerificationFailed, naming the first difference."""
    if report.mismatches:
        first = report.mismatches[0]
        raise VerificationFailed(
            f"{len(report.mismatches)} differences, the first in task {first.task_id} at "
            f"{first.pointer or '/'}: {first.source!r} in the source, {first.target!r} in the "
            "target; the phase is unchanged",
            next_step=f"registry-backend diff {first.task_id}",
        )
