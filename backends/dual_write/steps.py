"""The steps between two phases: what each does beside the writers, behind the gate, and after.

A step may die anywhere. Before the record is replaced it is undone (``undo``), after that it is
finished (``finalize`` behind the gate, then ``after``); both may be repeated.
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
from registry_api.control import PhaseRecord
from registry_api.deadline import at_most
from registry_api.errors import (
    Busy,
    CorruptDocument,
    PreflightFailed,
    RegistryError,
    TaskNotFound,
    VerificationFailed,
)
from registry_api.migration import MigrationPhase, Mismatch, Progress, VerifyReport
from registry_api.query import TaskQuery
from registry_api.silence import all_tasks
from registry_api.snapshot import Head, TaskSnapshot
from registry_api.store import LateWrite, Logged, MigrationSource, RegistryStore
from registry_api.wrapper import provides

__all__ = ["Step", "StepContext", "step_between"]

_AT_ONCE = 20  # tasks brought over between two reports of progress
_ROUNDS = 6
_SHORT = 0.02  # seconds of a round that leaves next to nothing
_MOMENT = 0.05  # seconds that a locked document is waited for while everybody waits


@dataclass(slots=True, kw_only=True)
class StepContext:
    """What a step works on; ``heads`` tells where the source stands, ``keep_logs`` puts the logs
    round the target whether they are wanted or not: on the way back they become the record.

    The target is opened by who needs it: there is a way back from one that is broken.
    """

    source: RegistryStore
    open_replicator: Callable[[], Replicator]
    throttle: Throttle
    keep_logs: Callable[[RegistryStore], RegistryStore]
    heads: Callable[[], dict[str, Head]]
    catch_up: Callable[[list[str], Progress | None], int]
    progress: Progress | None = None
    reason: str | None = None
    archive: str | None = None  # that the record names
    retire_seconds: float = 0.0
    patience: float = 0.0  # seconds to wait for removed documents
    notes: list[str] = field(default_factory=list)

    @property
    def replicator(self) -> Replicator:
        """Source and target."""
        replicator = self.open_replicator()
        replicator.copied = self.throttle.copied
        return replicator

    @property
    def migration_source(self) -> MigrationSource:
        """The source as one that can be given up; raises PreflightFailed where it cannot."""
        # Opened with the target: no step over documents may begin where that is lost.
        source = self.replicator.source
        if not provides(source, MigrationSource):
            raise PreflightFailed(
                f"the store {source.info.name!r} cannot be given up as a source",
                next_step="Stay in phase 2: only a store that has all of Movable can",
            )
        return source

    def now(self, task_id: str) -> TaskSnapshot | None:
        """Where a task stands in the target, None: nowhere."""
        try:
            return self.replicator.target.load(task_id)
        except TaskNotFound:
            return None

    def set_late_writes_aside(self) -> None:
        """Look for what others wrote to frozen documents, and say so."""
        found = self.migration_source.late_writes(self.now)
        self.notes += [f"{_name(s)}: written after the cut-over, kept: {s.kept}" for s in found]

    def retire(self, archive: str | None) -> None:
        """Remove the archived documents; None: born in phase 4, there are none."""
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
            # The switch is made: a document is kept rather than the whole registry held up.
            again = "registry-backend switch 3, then 4, makes another archive"
            self.notes.append(f"no document was removed: {error.message}; {again}")
            return
        self.notes += [f"{_name(s)}: written too late, kept: {s.kept}" for s in found]
        left = self.migration_source.retiring()
        if left:
            self.notes.append(
                f"{left} removed document(s) lie aside; recover removes them for good"
            )


def _name(late_write: LateWrite) -> str:
    return f"task {late_write.task_id}" if late_write.task_id else "the list of tasks"


class Step(Protocol):
    """One step between adjacent phases."""

    verified: VerifyReport | None
    touches_files: bool  # behind the gate, so that a death there is to be recovered at once

    def prepare(self) -> int:
        """Do the long part, beside the writers; returns how many tasks were brought over."""

    def final_sync(self) -> int:
        """Behind the gate, before the record is replaced; raises Busy to be tried again."""

    def undo(self) -> None:
        """Take back what ``final_sync`` did."""

    def finalize(self) -> None:
        """Behind the gate, after the record was replaced."""

    def clean_up(self, record: PhaseRecord) -> None:
        """Beside the writers again."""

    def changed(self, record: PhaseRecord) -> PhaseRecord:
        """Add to the new record what this step found."""


@dataclass(slots=True)
class _Base:
    """A step that does nothing: what the others begin from."""

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
    """2 to 1, 1 to 0: only the record changes. The target is not needed: it may be gone."""

    def final_sync(self) -> int:
        source = self.context.source
        if provides(source, MigrationSource):
            try:
                source.settle()
            except Busy:
                raise
            except RegistryError as error:
                # The way back must not depend on one document, nor on a write never acknowledged.
                self.context.notes.append(f"a write that was cut off is left: {error.message}")
        return 0


@dataclass(slots=True)
class _Follow(_Base):
    """0 to 1, 1 to 2: the target comes to hold what the source holds, and is proven to."""

    seen: dict[str, Head] = field(default_factory=dict)

    def prepare(self) -> int:
        context, replicator = self.context, self.context.replicator
        task_ids = list(context.heads())
        done = context.catch_up(task_ids, context.progress)
        seen = context.heads()
        self.verified = verify_tasks(replicator, task_ids, progress=context.progress)
        require_equal(self.verified)
        # What never stood still is compared from its beginning, still beside the writers.
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
        # In a class with slots, super() without arguments knows another class.
        return _Follow.prepare(self)

    def final_sync(self) -> int:
        return self._settle(self.context.migration_source.freeze(self.seen))

    def undo(self) -> None:
        self.context.migration_source.thaw()

    def finalize(self) -> None:
        # Who was waiting in flock for a document got its turn while the others were frozen.
        with at_most(_MOMENT):  # a document that is locked just now will be a straggler
            moved = self.context.migration_source.sweep()
        self.context.replicator.catch_up_all(moved)


@dataclass(slots=True)
class _Return(_Base):
    """3 to 2: the frozen documents are brought to where the target stands, then thawed."""

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
        context.migration_source.reinstate(None)  # what is missing could not be written in phase 2
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
        # Where nothing was written since the cut-over, a log may have been removed.
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
    """3 to 4: the documents go into an archive, and are removed when nobody has them open."""

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
                f"{len(differing)} document(s) differ, the first: {differing[0]}",
                next_step="registry-backend verify",
            )
        self.archive = context.migration_source.archive(progress=counted)
        return 0

    def _refuse(self) -> None:
        kept = self.context.migration_source.kept_late_writes()
        if kept:
            raise PreflightFailed(
                f"{len(kept)} straggler(s) are not dealt with, the first: {kept[0]}",
                next_step="Read the report, then move it away; or --anyway --reason TEXT",
            )
        holders = self.context.migration_source.holders()
        if holders:
            raise PreflightFailed(
                f"a process has a document open: {holders[0]}",
                next_step="End that program; or --anyway --reason TEXT",
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
    """Return the step from one phase to the next; one that does nothing where a switch that died
    did not say which it was.
    """
    return cast(Step, _KINDS.get((before, after), _Base)(context))


def target_heads(target: RegistryStore) -> dict[str, Head]:
    """Return where every task of a store stands that nobody but us writes."""
    return {t.task_id: target.head(t.task_id) for t in all_tasks(target, TaskQuery())}


def narrow(
    replicator: Replicator,
    seen: dict[str, Head],
    heads: Callable[[], dict[str, Head]],
    throttle: Throttle,
) -> None:
    """Bring over and compare, beside the writers, what moved since ``seen``, or is not in it;
    ``seen`` moves on.

    Each round takes less time than the one before, and so leaves less to the next, and at last
    to the moment behind the gate; where one does not take much less, writers are slowed down. What
    differs here is left to be told there.
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
    """Bring over and compare, behind the gate, what moved since ``seen``; returns how many tasks
    lagged. Raises VerificationFailed.
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
