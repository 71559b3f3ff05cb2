"""The operator's commands for a move: status, switch, verify, diff, reconcile, recover.

The gate is the readers-writer lock that every operation shares and a switch takes exclusively.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
from filelock import FileLock, Timeout

from backends.dual_write.preflight import (
    check_legacy_state,
    check_merged,
    check_place,
    check_unreadable,
)
from backends.dual_write.replicator import Replicator
from backends.dual_write.steps import Step, StepContext, step_between, target_heads
from backends.dual_write.store import ANSWER, DualWriteStore, stamp_target
from backends.dual_write.throttle import Throttle
from backends.dual_write.verify import (
    compare_task,
    surplus_tasks,
    verify_tasks,
)
from registry_api.capabilities import Logged, MigrationSource, Reconciled, provides
from registry_api.errors import Busy, PreflightFailed, RegistryError, SwitchTimedOut, Unavailable
from registry_api.migration import (
    Gate,
    MigrationPhase,
    Mismatch,
    MoveStatus,
    PhaseFile,
    PhaseRecord,
    Progress,
    Switching,
    SwitchJournal,
    SwitchReport,
    SwitchStep,
    VerifyReport,
)
from registry_api.opening import keep_logs
from registry_api.plugins import OpenContext
from registry_api.records import Kind
from registry_api.store import Capability, RegistryStore
from registry_api.workspace import answering, at_most, make_state_folder, open_owned, within
from registry_api.workspace.time_zone import machine_zone

__all__ = ["Move"]

_AT_ONCE = 20  # tasks copied between two progress reports
_MOMENT = 0.05  # seconds of all waits for locks while the gate is held, at least
_LONGEST_MOMENT = 0.2  # at most; on a slow host as long as an operation takes there


class Move:
    """Implements registry_api.migration.protocol.Migration over a DualWriteStore of its own."""

    def __init__(self, context: OpenContext, store: DualWriteStore, control: PhaseFile) -> None:
        self._context = context
        self._folder = context.workspace / ".registry"
        self._store = store
        self._control = control
        if not context.read_only:
            make_state_folder(self._folder)
        self._gate = Gate(self._folder, timeout=context.settings.lock_timeout)
        self._filling: Replicator | None = None
        self._journal = SwitchJournal(self._folder)

    def _record(self) -> PhaseRecord:
        return self._store.record()

    def _replicator(self) -> Replicator:
        """Return the replicator, also in phase 0: a switch to 1 fills the target beforehand."""
        replicator = self._store.replicator()
        if replicator is not None:
            return replicator
        if self._filling is None:
            self._filling = Replicator(self._store.source, self._store.open_target(self._record()))
        return self._filling

    # -- status ------------------------------------------------------------------------------

    def status(self) -> MoveStatus:
        """See Migration.status."""
        with ExitStack() as stack:
            try:
                # Reading the status absorbs what legacy programs wrote.
                stack.enter_context(self._gate.passing())
            except Busy:
                raise
            except Unavailable:
                pass  # a read-only disk, where nothing can be absorbed either
            return self._status()

    def _status(self) -> MoveStatus:
        record = self._record()
        if record.phase >= MigrationPhase.WRITE_CUTOVER:
            return self._status_taken_over(record)
        records = {record.source: dict(self._store.source.counts().records)}
        dirty: int | None = 0
        notes: tuple[str, ...] = ()
        if record.phase is not MigrationPhase.JSON_ONLY:
            try:
                task_ids = self._task_ids()
                with answering(ANSWER):
                    replicator = self._replicator()
                    records[record.target] = dict(replicator.target.counts().records)
                    dirty = len(replicator.lagging(task_ids))
            except RegistryError as error:
                dirty = None
                notes = (f"the target {record.target} cannot be read: {error.message}",)
        return MoveStatus(record=record, dirty=dirty, records=records, notes=notes)

    def _status_taken_over(self, record: PhaseRecord) -> MoveStatus:
        """Return the status if the target is the writer of record, and keep new late writes."""
        context, source = self._step_context(), self._store.source
        records = dict[str, dict[Kind, int]]()
        try:
            if not self._context.read_only:
                context.set_late_writes_aside()
            records = {record.target: dict(self._replicator().target.counts().records)}
        except (Unavailable, OSError) as error:  # a disk that is read-only, or full
            context.notes.append(f"cannot check for late writes: {error}")
        kept = source.kept_late_writes() if provides(source, MigrationSource) else ()
        return MoveStatus(
            record=record, records=records, notes=tuple(context.notes), late_writes=kept
        )

    def history(self) -> list[dict[str, Any]]:
        """See Migration.history."""
        try:
            lines = (self._folder / "history.jsonl").read_bytes().splitlines()
        except FileNotFoundError:
            return []
        return [line for line in map(_parsed, lines) if line is not None]

    def _task_ids(self) -> list[str]:
        if self._record().phase >= MigrationPhase.WRITE_CUTOVER:
            return list(target_heads(self._replicator().target))
        return [task_id for task_id, _ in self._store.heads()]

    # -- verifying and catching up while writers continue -------------------------------------

    def verify(self, *, progress: Progress | None = None) -> VerifyReport:
        """See Migration.verify."""
        if self._record().phase is MigrationPhase.JSON_ONLY:
            counts = self._store.source.counts()
            return VerifyReport(tasks=counts.total_tasks, records=sum(counts.records.values()))
        if self._record().phase >= MigrationPhase.WRITE_CUTOVER:
            return self._verify_taken_over(progress)
        epoch = self._record().epoch
        replicator, inside = self._replicator(), self._gate.passing
        with inside():
            task_ids = self._task_ids()
        report = verify_tasks(replicator, task_ids, inside=inside, progress=progress)
        surplus = surplus_tasks(replicator, set(task_ids))
        report = replace(report, mismatches=(*report.mismatches, *surplus))
        if not report.mismatches and not report.in_flight:
            self._control.note(epoch=epoch, verified=_now())
        return report

    def _verify_taken_over(self, progress: Progress | None) -> VerifyReport:
        """Compare the frozen documents with their recorded hashes, or check the archive.

        Tasks that the target has not written since the cut-over are compared with the documents.
        """
        record, context = self._record(), self._step_context()
        with self._gate.passing():
            context.set_late_writes_aside()
            gone = record.phase is MigrationPhase.CLEANUP
            differing = () if gone else context.migration_source.frozen_differences()
            if gone and record.archive is not None:
                context.migration_source.check_archive(record.archive)
        replicator = self._replicator()
        still = [
            t for t in self._task_ids() if replicator.source.head(t) == replicator.target.head(t)
        ]
        back = Replicator(replicator.target, replicator.source)
        report = verify_tasks(
            back, [] if gone else still, inside=self._gate.passing, progress=progress
        )
        found = [Mismatch(task_id="", pointer=d, source="frozen", target=None) for d in differing]
        counts = replicator.target.counts()
        return replace(
            report,
            tasks=counts.total_tasks,
            records=sum(counts.records.values()),
            mismatches=(*found, *map(_turned, report.mismatches)),
        )

    def diff(self, task_id: str) -> list[Mismatch]:
        """See Migration.diff."""
        with self._gate.passing():
            if self._record().phase >= MigrationPhase.WRITE_CUTOVER:
                replicator = self._replicator()
                replicator.target.load(task_id)
                found = compare_task(
                    Replicator(replicator.target, replicator.source), task_id, catch_up=False
                )[1]
                return [_turned(m) for m in found]
            self._store.source.load(task_id)
            if self._record().phase is MigrationPhase.JSON_ONLY:
                return []
            return compare_task(self._replicator(), task_id)[1]

    def reconcile(self, *, dry_run: bool = False, progress: Progress | None = None) -> Reconciled:
        """See Migration.reconcile."""
        if self._record().phase >= MigrationPhase.WRITE_CUTOVER:
            logged = self._store.logged(self._replicator().target)
            with self._gate.passing():
                if provides(logged, Logged):
                    return logged.reconcile(dry_run=dry_run)
                return Reconciled()
        with self._gate.passing():
            source = self._store.source
            written = source.restore(dry_run=dry_run) if provides(source, MigrationSource) else 0
            found = Reconciled(written=written)
            task_ids = self._task_ids()
        if self._record().phase is MigrationPhase.JSON_ONLY:
            return found
        if dry_run:
            return replace(found, caught_up=len(self._replicator().lagging(task_ids)))
        return replace(found, caught_up=self._catch_up(task_ids, progress))

    def _catch_up(self, task_ids: list[str], progress: Progress | None) -> int:
        replicator, caught_up = self._replicator(), 0
        for start in range(0, len(task_ids), _AT_ONCE):
            with self._gate.passing():
                caught_up += replicator.catch_up_all(task_ids[start : start + _AT_ONCE])
            if progress is not None:
                progress("catch up", min(start + _AT_ONCE, len(task_ids)), len(task_ids))
        return caught_up

    # -- switching ---------------------------------------------------------------------------

    def switch(
        self,
        to: MigrationPhase,
        *,
        actor: str,
        dry_run: bool = False,
        timeout: float | None = None,
        json_is_truth: bool = False,
        leave_unreadable: bool = False,
        only_from_epoch: int | None = None,
        force: str | None = None,
        progress: Progress | None = None,
    ) -> SwitchReport:
        """See Migration.switch."""
        if dry_run:
            return self._plan(to, json_is_truth=json_is_truth, leave_unreadable=leave_unreadable)
        with self._alone():
            notes = self._recover(progress=progress)
            steps: list[SwitchStep] = []
            if only_from_epoch not in {None, self._record().epoch}:
                return SwitchReport(notes=(*notes, "nothing done: the phase was changed meanwhile"))
            try:
                for phase in _way(self._record().phase, to):
                    before = self._record().phase
                    self._preflight(before, phase, json_is_truth=json_is_truth)
                    left = self._unreadable(before, phase, leave=leave_unreadable)
                    if unreached := self._unreached(before, phase):
                        raise PreflightFailed(
                            unreached[0],
                            next_step="Start the target or correct REGISTRY_TARGET, then try again",
                        )
                    self._check_target(before)
                    step, said = self._step(
                        before,
                        phase,
                        actor=actor,
                        timeout=timeout,
                        json_is_truth=json_is_truth,
                        unreadable=left,
                        reason=force,
                        progress=progress,
                    )
                    steps.append(step)
                    notes += tuple(said)
            except RegistryError as error:
                if steps:
                    error.message += (
                        f" (earlier steps are done: the phase is {steps[-1].to_phase:d})"
                    )
                raise
        return SwitchReport(steps=tuple(steps), notes=notes)

    def _plan(
        self, to: MigrationPhase, *, json_is_truth: bool, leave_unreadable: bool
    ) -> SwitchReport:
        """Check the first step and list all steps; changes nothing."""
        now, notes = self._record().phase, tuple[str, ...]()
        steps = tuple(SwitchStep(from_phase=a, to_phase=b) for a, b in _pairs(now, to))
        if steps:
            self._preflight(now, steps[0].to_phase, json_is_truth=json_is_truth)
            self._unreadable(now, steps[0].to_phase, leave=leave_unreadable)
            notes += self._unreached(now, steps[0].to_phase)
        if self._journal.path.exists():
            notes += ("a switch is in progress or interrupted",)
        return SwitchReport(steps=steps, dry_run=True, notes=notes)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        path = self._folder / "switch.lock"
        lock = FileLock(path, mode=0o600, fallback_to_soft=False)
        try:
            os.close(open_owned(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC))
            lock.acquire(timeout=0)
            yield
        except Timeout:
            raise Busy(
                "another switch is running", next_step="Wait for it: registry-backend status"
            ) from None
        except OSError as error:  # a full or read-only disk, a file of another user
            if isinstance(error, RegistryError):
                raise
            raise Unavailable(
                f"{error.filename or self._folder}: {error.strerror or error}; the phase is "
                f"{self._record().phase:d}",
                next_step="Free space or check that file, then try again",
            ) from error
        finally:
            lock.release()

    def recover(self, *, dry_run: bool = False, wait: bool = True) -> tuple[str, ...]:
        """See Migration.recover."""
        with self._alone():
            notes = self._recover(dry_run=dry_run, wait=wait)
            task_ids = self._task_ids()  # settles what dead processes left unfinished
            if self._record().phase in {
                MigrationPhase.PARALLEL_WRITE,
                MigrationPhase.READ_MIGRATION,
            }:
                lagging = self._replicator().lagging(task_ids)
                if lagging and not dry_run:
                    self._catch_up(lagging, None)
                if lagging:
                    done = "are behind" if dry_run else "were behind and have caught up"
                    notes += (f"{len(lagging)} task(s) {done}",)
        return notes

    def _recover(
        self, *, dry_run: bool = False, wait: bool = True, progress: Progress | None = None
    ) -> tuple[str, ...]:
        """Finish or undo an interrupted switch: the phase record decides which of the two."""
        died, record = self._journal.read(), self._record()
        if died is None:
            return self._retire_rest(record, dry_run=dry_run, wait=wait)
        if dry_run:
            return (f"an interrupted switch would be recovered: the phase is {record.phase:d}",)
        committed = record.epoch != died.epoch
        context = self._step_context(progress, reason=died.reason, wait=wait)
        try:
            step = step_between(died.before, died.after, context)
            if died.epoch >= 0 and died.before != died.after:
                with self._gate.closed():
                    if not committed:
                        step.undo()
                    elif died.inside:  # else it was finalized, and writers have written since
                        step.finalize()
                    self._journal.write(replace(died, inside=False))
                if committed:
                    step.clean_up(record)
            elif died.epoch < 0 and record.phase is MigrationPhase.READ_MIGRATION:
                # A power loss destroyed the journal: it may have been a switch to phase 3, or back.
                with self._gate.closed():
                    context.migration_source.thaw()
        finally:
            context.throttle.end()
        if record.phase is not MigrationPhase.JSON_ONLY:
            self._stamp(record)
        self._journal.clear()
        return (
            f"an interrupted switch was recovered: the phase is {record.phase:d}",
            *context.notes,
        )

    def _retire_rest(self, record: PhaseRecord, *, dry_run: bool, wait: bool) -> tuple[str, ...]:
        """Delete what an earlier switch to 4 left pending deletion."""
        source = self._store.source
        if record.phase is not MigrationPhase.CLEANUP or not provides(source, MigrationSource):
            return ()
        left = source.retiring()
        if not left or dry_run:
            return (
                (f"{left} removed document(s) are pending deletion; `recover` deletes them",)
                if left
                else ()
            )
        context = self._step_context(wait=wait)
        context.retire(record.archive)
        return tuple(context.notes)

    def _preflight(
        self, before: MigrationPhase, after: MigrationPhase, *, json_is_truth: bool
    ) -> None:
        if after < before:
            return
        check_place(self._context.workspace)
        if before is MigrationPhase.JSON_ONLY:
            check_merged(self._store.source, self._folder)
        recorded = self._record().json_is_truth
        check_legacy_state(self._store.source, json_is_truth=json_is_truth or recorded)

    def _unreached(self, before: MigrationPhase, after: MigrationPhase) -> tuple[str, ...]:
        """Return a message if the next step needs a target that cannot be reached.

        Checked for third-party stores only: ours is created by the step itself. Opened for reading
        only, a target without data yet may also be unavailable.
        """
        record, plugins = self._record(), self._context.plugins
        scheme = record.target.partition("://")[0]
        if after < before or before > MigrationPhase.PARALLEL_WRITE or plugins.is_ours(scheme):
            return ()
        try:
            with answering(ANSWER), closing(self._store.open_target(record)) as target:
                target.counts()
        except Unavailable as error:
            empty = ", or has no data yet" if self._context.read_only else ""
            return (f"the target {record.target} cannot be reached{empty}: {error.message}",)
        return ()

    def _unreadable(
        self, before: MigrationPhase, after: MigrationPhase, *, leave: bool
    ) -> tuple[str, ...]:
        """Return the files that are not moved because they cannot be read.

        Raises PreflightFailed if the operator has not accepted that. On a step back, and if the
        source is frozen, the recorded list is returned.
        """
        left = self._record().unreadable
        if after < before or before >= MigrationPhase.WRITE_CUTOVER:
            return left
        return check_unreadable(self._store.source, left=left, leave=leave)

    def _check_target(self, before: MigrationPhase) -> None:
        if before is MigrationPhase.JSON_ONLY:
            target = self._replicator().target
            if Capability.MOVE_TARGET not in target.info.capabilities:
                raise PreflightFailed(
                    f"the store {target.info.name!r} cannot be the target of a move",
                    next_step="Name a store that declares the capability move_target",
                )

    def _step_context(
        self, progress: Progress | None = None, *, reason: str | None = None, wait: bool = True
    ) -> StepContext:
        retire_seconds = self._context.settings.retire_seconds
        return StepContext(
            source=self._store.source,
            open_replicator=self._replicator,
            throttle=Throttle(self._gate.slow_down),
            keep_logs=self._with_logs,
            heads=lambda: dict(self._store.heads()),
            catch_up=self._catch_up,
            progress=progress,
            reason=reason,
            archive=self._record().archive,
            retire_seconds=retire_seconds,
            patience=4 * retire_seconds if wait else 0.0,
        )

    def _project(self, before: MigrationPhase, after: MigrationPhase) -> None:
        """After a step back, bring the list of all tasks up to date for legacy programs."""
        source = self._store.source
        if before > after < MigrationPhase.WRITE_CUTOVER and provides(source, MigrationSource):
            with suppress(RegistryError, OSError), self._gate.passing():
                source.project()

    def _with_logs(self, target: RegistryStore) -> RegistryStore:
        settings, record = self._context.settings, self._record()
        if settings.logs != "off":
            return self._store.logged(target)
        wanted = {"logs": "jsonl", "legacy_tz": record.zone or settings.legacy_tz}
        context = replace(self._context, settings=settings.model_copy(update=wanted))
        return keep_logs(target, context)

    def _step(
        self,
        before: MigrationPhase,
        after: MigrationPhase,
        *,
        actor: str,
        timeout: float | None,
        json_is_truth: bool,
        unreadable: tuple[str, ...],
        reason: str | None,
        progress: Progress | None,
    ) -> tuple[SwitchStep, list[str]]:
        record = self._record()
        forward = after > before
        under_way = Switching(before=before, after=after, epoch=record.epoch, reason=reason)
        self._journal.write(under_way)
        context = self._step_context(progress, reason=reason)
        step = step_between(before, after, context)
        try:
            # The long part runs while writers continue: no caller waits for it.
            with _in_time(self._gate.timeout() if timeout is None else timeout):
                copied = step.prepare()
            new = replace(
                record,
                phase=after,
                epoch=record.epoch + 1,
                stepped_back=not forward,
                zone=record.zone or self._context.settings.legacy_tz or machine_zone(),
                verified=_now() if step.verified is not None else record.verified,
                json_is_truth=record.json_is_truth or json_is_truth,
                unreadable=unreadable,
                at=_now(),
                by=actor if reason is None else f"{actor}, forced: {reason}",
            )
            new = step.changed(new)
            caught_up, pause = self._commit_closed(new, step, under_way, timeout)
        except BaseException:
            under = self._journal.read()
            if under is None or not under.inside:  # else the next recovery finishes or undoes it
                if self._control.current().epoch == record.epoch:
                    with suppress(RegistryError, OSError):
                        step.undo()
                self._journal.clear()
            raise
        finally:
            context.throttle.end()
        step.clean_up(new)
        self._journal.clear()
        self._project(before, after)
        done = SwitchStep(
            from_phase=before,
            to_phase=after,
            pause_ms=round(pause, 3),
            caught_up=copied + caught_up,
            verified=step.verified,
        )
        self._stamp(new)
        self._note(new, done)
        return done, context.notes

    def _commit_closed(
        self, new: PhaseRecord, step: Step, under_way: Switching, timeout: float | None
    ) -> tuple[int, float]:
        """Close the gate, run ``final_sync``, replace the record, open the gate again.

        While the gate is held, no lock is waited for longer than a moment. If one stays taken, the
        gate is opened for callers and ``final_sync`` is tried again, until the timeout. Returns
        (tasks caught up, pause in ms).
        """
        start = time.monotonic()
        while True:
            moment = max(_MOMENT, min(_LONGEST_MOMENT, self._gate.slow()))
            left = None if timeout is None else max(0.0, start + timeout - time.monotonic())
            with self._gate.closed(timeout=left) as since:
                deadline = start + (self._gate.timeout() if timeout is None else timeout)
                done = self._try_closed(new, step, under_way, deadline=deadline, moment=moment)
            if done is not None:
                return done, (time.monotonic() - since) * 1000
            time.sleep(max(0.01, moment / 2))

    def _try_closed(
        self, new: PhaseRecord, step: Step, under_way: Switching, *, deadline: float, moment: float
    ) -> int | None:
        """Run ``final_sync`` while the gate is held; return None if a lock was taken: try again."""
        if step.touches_files:
            self._journal.write(replace(under_way, inside=True), durable=False)
        try:
            with within(moment):
                caught_up = step.final_sync()
            self._control.advance(new.epoch - 1, new)
        except BaseException as error:
            if self._control.current().epoch == new.epoch - 1:
                step.undo()
            if step.touches_files:
                self._journal.write(under_way, durable=False)
            if not isinstance(error, Busy):
                raise
            if time.monotonic() > deadline:
                raise SwitchTimedOut(
                    f"something stayed locked until the deadline: {error.message}",
                    next_step="See what that process waits for, or try again",
                ) from error
            return None
        # The switch is committed. If the rest fails, the next recovery does it.
        step.finalize()
        if step.touches_files:
            self._journal.write(under_way, durable=False)
        return caught_up

    def _stamp(self, record: PhaseRecord) -> None:
        with suppress(RegistryError), answering(ANSWER):
            stamp_target(self._replicator().target, record)

    def _note(self, record: PhaseRecord, step: SwitchStep) -> None:
        line = orjson.dumps(record.to_dict() | {"pause_ms": step.pause_ms}) + b"\n"
        path = self._folder / "history.jsonl"
        # The switch is committed: a history that cannot be written must not say otherwise.
        with suppress(OSError):
            fd = open_owned(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
            try:
                os.write(fd, line)
                os.fsync(fd)
            finally:
                os.close(fd)

    def close(self) -> None:
        """See Migration.close."""
        self._store.close()
        if self._filling is not None:
            self._filling.target.close()
        self._gate.close()


@contextmanager
def _in_time(seconds: float) -> Iterator[None]:
    """Wait for no lock longer than ``seconds``; raise SwitchTimedOut if one stays taken."""
    try:
        with at_most(seconds):
            yield
    except Busy as error:
        raise SwitchTimedOut(
            f"something stayed locked, nothing was changed: {error.message}",
            next_step="See what that process waits for, or try again",
        ) from error


def _turned(found: Mismatch) -> Mismatch:
    """Return a difference with source and target exchanged."""
    return replace(found, source=found.target, target=found.source)


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None  # a line cut off by a kill
    return value if isinstance(value, dict) else None


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _way(start: MigrationPhase, end: MigrationPhase) -> list[MigrationPhase]:
    step = 1 if end > start else -1
    return (
        [MigrationPhase(n) for n in range(start + step, end + step, step)] if end != start else []
    )


def _pairs(
    start: MigrationPhase, end: MigrationPhase
) -> list[tuple[MigrationPhase, MigrationPhase]]:
    way = [start, *_way(start, end)]
    return list(pairwise(way))


def keep_mismatches(path: Path, found: list[Mismatch], *, most: int = 100) -> None:
    """Append differences that sampled reads found; keep the last ``most`` lines."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    lines += [orjson.dumps(asdict(m) | {"at": _now()}) for m in found]
    fd = open_owned(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC)
    with open(fd, "wb") as file:  # noqa: PTH123  (an open descriptor)
        file.write(b"\n".join(lines[-most:]) + b"\n")
