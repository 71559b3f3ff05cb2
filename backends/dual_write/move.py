"""The operator's side of a move: switch, verify, reconcile, in migration phases 0 to 2."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
from filelock import FileLock, Timeout

from backends.dual_write.mirror import Mirror
from backends.dual_write.preflight import check_older_state, check_place
from backends.dual_write.store import DualWriteStore, stamp_target
from backends.dual_write.verify import (
    compare_tail,
    compare_task,
    surplus_tasks,
    verify_tasks,
)
from registry_api.control import FileControl, PhaseRecord
from registry_api.deadline import at_most
from registry_api.durable import write_file
from registry_api.errors import (
    Busy,
    NotSupported,
    PreflightFailed,
    RegistryError,
    SwitchTimedOut,
    Unavailable,
    VerificationFailed,
)
from registry_api.gate import Gate
from registry_api.migration import (
    MigrationPhase,
    Mismatch,
    MoveStatus,
    Progress,
    SwitchReport,
    SwitchStep,
    VerifyReport,
)
from registry_api.opening import OpenContext
from registry_api.snapshot import Head
from registry_api.store import MoveTarget
from registry_api.zone import machine_zone

__all__ = ["Move"]

_LAST = MigrationPhase.READ_MIGRATION
_AT_ONCE = 20  # tasks brought over between two reports of progress
_ROUNDS = 3
_MOMENT = 0.05  # seconds that anything waits for a lock while the gate is closed


class Move:
    """Implements registry_api.migration.Migration over a DualWriteStore of its own."""

    def __init__(self, context: OpenContext, store: DualWriteStore, control: FileControl) -> None:
        self._context = context
        self._folder = context.workspace / ".registry"
        self._store = store
        self._control = control
        if not context.read_only:
            self._folder.mkdir(mode=0o700, exist_ok=True)
        self._gate = Gate(self._folder, timeout=context.settings.lock_timeout)
        self._filling: Mirror | None = None

    def _record(self) -> PhaseRecord:
        return self._store.record()

    def _mirror(self) -> Mirror:
        """Return the mirror, also in phase 0: a switch to 1 fills the target beforehand."""
        mirror = self._store.mirror()
        if mirror is not None:
            return mirror
        if self._filling is None:
            self._filling = Mirror(self._store.source, self._store.open_target(self._record()))
        return self._filling

    # -- looking -----------------------------------------------------------------------------

    def status(self) -> MoveStatus:
        """See Migration.status."""
        with ExitStack() as stack:
            try:
                # Looking takes in what older programs wrote.
                stack.enter_context(self._gate.passing())
            except Busy:
                raise
            except Unavailable:
                pass  # a read-only disk, where nothing can be taken in either
            return self._status()

    def _status(self) -> MoveStatus:
        record = self._record()
        records = {record.source: dict(self._store.source.counts().records)}
        dirty: int | None = 0
        notes: tuple[str, ...] = ()
        if record.phase is not MigrationPhase.JSON_ONLY:
            try:
                mirror = self._mirror()
                records[record.target] = dict(mirror.target.counts().records)
                dirty = len(mirror.lagging(self._task_ids()))
            except RegistryError as error:
                dirty = None
                notes = (f"the target {record.target} cannot be read: {error.message}",)
        return MoveStatus(record=record, dirty=dirty, records=records, notes=notes)

    def history(self) -> list[dict[str, Any]]:
        """See Migration.history."""
        try:
            lines = (self._folder / "history.jsonl").read_bytes().splitlines()
        except FileNotFoundError:
            return []
        return [line for line in map(_parsed, lines) if line is not None]

    def _task_ids(self) -> list[str]:
        return [task_id for task_id, _ in self._store.heads()]

    # -- working beside the writers -----------------------------------------------------------

    def verify(self, *, progress: Progress | None = None) -> VerifyReport:
        """See Migration.verify."""
        if self._record().phase is MigrationPhase.JSON_ONLY:
            counts = self._store.source.counts()
            return VerifyReport(tasks=counts.total_tasks, records=sum(counts.records.values()))
        epoch = self._record().epoch
        mirror, inside = self._mirror(), self._gate.passing
        with inside():
            task_ids = self._task_ids()
        report = verify_tasks(mirror, task_ids, inside=inside, progress=progress)
        surplus = surplus_tasks(mirror, set(task_ids))
        report = replace(report, mismatches=(*report.mismatches, *surplus))
        if not report.mismatches and not report.in_flight:
            self._control.note(epoch=epoch, verified=_now())
        return report

    def diff(self, task_id: str) -> list[Mismatch]:
        """See Migration.diff."""
        with self._gate.passing():
            self._store.source.load(task_id)
            if self._record().phase is MigrationPhase.JSON_ONLY:
                return []
            return compare_task(self._mirror(), task_id)[1]

    def reconcile(self, *, progress: Progress | None = None) -> int:
        """See Migration.reconcile."""
        with self._gate.passing():
            task_ids = self._task_ids()
        if self._record().phase is MigrationPhase.JSON_ONLY:
            return 0
        return self._catch_up(task_ids, progress)

    def _catch_up(self, task_ids: list[str], progress: Progress | None) -> int:
        mirror, healed = self._mirror(), 0
        for start in range(0, len(task_ids), _AT_ONCE):
            with self._gate.passing():
                healed += mirror.heal_all(task_ids[start : start + _AT_ONCE])
            if progress is not None:
                progress("catch up", min(start + _AT_ONCE, len(task_ids)), len(task_ids))
        return healed

    # -- switching ---------------------------------------------------------------------------

    def switch(
        self,
        to: MigrationPhase,
        *,
        actor: str,
        dry_run: bool = False,
        timeout: float = 5.0,
        json_is_truth: bool = False,
        only_from_epoch: int | None = None,
        progress: Progress | None = None,
    ) -> SwitchReport:
        """See Migration.switch."""
        if to > _LAST:
            raise NotSupported(
                f"this version moves between phases 0 and 2, not to {to:d}",
                next_step="Phases 3 and 4 come with a later version",
            )
        if dry_run:
            return self._plan(to, json_is_truth=json_is_truth)
        with self._alone():
            notes = self._recover()
            steps: list[SwitchStep] = []
            if only_from_epoch not in {None, self._record().epoch}:
                return SwitchReport(notes=(*notes, "the phase was changed meanwhile"))
            try:
                for phase in _way(self._record().phase, to):
                    before = self._record().phase
                    self._preflight(before, phase, json_is_truth=json_is_truth)
                    self._check_target(before)
                    steps.append(
                        self._step(
                            before,
                            phase,
                            actor=actor,
                            timeout=timeout,
                            json_is_truth=json_is_truth,
                            progress=progress,
                        )
                    )
            except RegistryError as error:
                if steps:
                    error.message += f" (the phase is {steps[-1].to_phase:d}, reached before that)"
                raise
        return SwitchReport(steps=tuple(steps), notes=notes)

    def _plan(self, to: MigrationPhase, *, json_is_truth: bool) -> SwitchReport:
        """Check the first step and name all; leaves no trace."""
        now = self._record().phase
        steps = tuple(SwitchStep(from_phase=a, to_phase=b) for a, b in _pairs(now, to))
        if steps:
            self._preflight(now, steps[0].to_phase, json_is_truth=json_is_truth)
        pending = (self._folder / "switch.json").exists()
        notes = ("a switch is under way, or died",) if pending else ()
        return SwitchReport(steps=steps, dry_run=True, notes=notes)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        lock = FileLock(self._folder / "switch.lock", mode=0o600, fallback_to_soft=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise Busy(
                "another switch is running", next_step="Wait for it: registry-backend status"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def recover(self, *, dry_run: bool = False) -> tuple[str, ...]:
        """See Migration.recover."""
        with self._alone():
            notes = self._recover(dry_run=dry_run)
            task_ids = self._task_ids()  # settles the writes of the dead
            if self._record().phase is not MigrationPhase.JSON_ONLY:
                lagging = self._mirror().lagging(task_ids)
                if lagging and not dry_run:
                    self._catch_up(lagging, None)
                if lagging:
                    done = "lag" if dry_run else "lagged and were brought up to date"
                    notes += (f"{len(lagging)} task(s) {done}",)
        return notes

    def _recover(self, *, dry_run: bool = False) -> tuple[str, ...]:
        """Finish or undo a switch that died: the record decides which of the two it was."""
        journal = self._folder / "switch.json"
        if not journal.exists():
            return ()
        record = self._record()
        if dry_run:
            return (f"a switch that died would be recovered: the phase is {record.phase:d}",)
        if record.phase is not MigrationPhase.JSON_ONLY:
            self._stamp(record)
        journal.unlink(missing_ok=True)
        return (f"a switch that died was recovered: the phase is {record.phase:d}",)

    def _preflight(
        self, before: MigrationPhase, after: MigrationPhase, *, json_is_truth: bool
    ) -> None:
        if after < before:
            return
        check_place(self._context.workspace)
        recorded = self._record().json_is_truth
        check_older_state(self._store.source, json_is_truth=json_is_truth or recorded)

    def _check_target(self, before: MigrationPhase) -> None:
        if before is MigrationPhase.JSON_ONLY:
            target = self._mirror().target
            if not isinstance(target, MoveTarget):
                raise PreflightFailed(
                    f"the store {target.info.name!r} cannot be the target of a move",
                    next_step="Only a store that declares move_target can",
                )

    def _step(
        self,
        before: MigrationPhase,
        after: MigrationPhase,
        *,
        actor: str,
        timeout: float,
        json_is_truth: bool,
        progress: Progress | None,
    ) -> SwitchStep:
        record = self._record()
        self._write_journal(before, after, record.epoch)
        caught_up, verified = 0, None
        forward = after > before
        try:
            if forward:
                # The long part, beside the writers: nobody waits for it.
                with _in_time(timeout):
                    task_ids = self._task_ids()
                    caught_up = self._catch_up(task_ids, progress)
                    seen = self._heads()
                    verified = verify_tasks(self._mirror(), task_ids, progress=progress)
                    _require_equal(verified)
                    # What never stood still is compared from its beginning, still beside them.
                    seen = {t: h for t, h in seen.items() if t not in verified.in_flight}
                    self._narrow(seen)
            new = replace(
                record,
                phase=after,
                epoch=record.epoch + 1,
                stepped_back=not forward,
                zone=record.zone or self._context.settings.legacy_tz or machine_zone(),
                verified=_now() if forward else record.verified,
                json_is_truth=record.json_is_truth or json_is_truth,
                at=_now(),
                by=actor,
            )
            healed, pause = self._commit_closed(new, seen if forward else None, timeout)
            caught_up += healed
        finally:
            (self._folder / "switch.json").unlink(missing_ok=True)
        step = SwitchStep(
            from_phase=before,
            to_phase=after,
            pause_ms=round(pause, 3),
            caught_up=caught_up,
            verified=verified,
        )
        self._stamp(new)
        self._note(new, step)
        return step

    def _narrow(self, seen: dict[str, Head]) -> None:
        """Bring over and compare, beside the writers, what moved since ``seen``, or is not in it;
        ``seen`` moves on.

        Each round takes less time than the one before, and so leaves less to the next, and at last
        to the moment behind the gate. What differs here is left to be told there.
        """
        for _ in range(_ROUNDS):
            moved = [t for t, h in self._heads().items() if seen.get(t) != h]
            mirror = self._mirror()
            mirror.heal_all(moved)
            for task_id in moved:
                head, differences = compare_tail(mirror, task_id, seen.get(task_id, Head()))
                if not differences:
                    seen[task_id] = head
        self._catch_up(self._task_ids(), None)

    def _commit_closed(
        self, new: PhaseRecord, seen: dict[str, Head] | None, timeout: float
    ) -> tuple[int, float]:
        """Close the gate, settle what moved since ``seen``, replace the record, open it again.

        Nothing inside waits longer than a moment for a lock: else the gate is opened, callers get
        in, and it is tried again until the timeout. Returns (tasks healed, pause in ms).
        """
        deadline = time.monotonic() + timeout
        while True:
            with self._gate.closed(timeout=max(0.0, deadline - time.monotonic())) as since:
                try:
                    with at_most(_MOMENT):
                        healed = 0 if seen is None else self._settle_moved(seen)
                except Busy as error:
                    if time.monotonic() > deadline:
                        raise SwitchTimedOut(
                            f"something stayed locked for {timeout:g} s: {error.message}",
                            next_step="See what that process waits for, or try again",
                        ) from error
                else:
                    self._control.advance(new.epoch - 1, new)
                    return healed, (time.monotonic() - since) * 1000
            time.sleep(0.01)

    def _heads(self) -> dict[str, Head]:
        return dict(self._store.heads())

    def _settle_moved(self, seen: dict[str, Head]) -> int:
        """Bring over and verify what moved since it was verified, intents of the dead included.

        Behind the gate. Taking the heads settles every task under its locks: a document whose stat
        is unchanged may still have an intent beside it.
        """
        mirror = self._mirror()
        mismatches: list[Mismatch] = []
        moved = [t for t, h in self._heads().items() if seen.get(t) != h]
        healed = mirror.heal_all(moved)
        for task_id in moved:
            mismatches += compare_tail(mirror, task_id, seen.get(task_id, Head()))[1]
        _require_equal(VerifyReport(tasks=len(moved), mismatches=tuple(mismatches)))
        return healed

    def _write_journal(self, before: MigrationPhase, after: MigrationPhase, epoch: int) -> None:
        data = orjson.dumps({"from": before, "to": after, "epoch": epoch, "at": _now()})
        path = self._folder / "switch.json"
        try:
            write_file(path, data)
        except OSError as error:
            raise Unavailable(
                f"{path} cannot be written: {error.strerror}; nothing was changed",
                next_step="Free space or check the folder, then try again",
            ) from error

    def _stamp(self, record: PhaseRecord) -> None:
        with suppress(RegistryError):
            stamp_target(self._mirror().target, record)

    def _note(self, record: PhaseRecord, step: SwitchStep) -> None:
        line = orjson.dumps(asdict(record) | {"pause_ms": step.pause_ms}) + b"\n"
        path = self._folder / "history.jsonl"
        # The switch is committed: a history that cannot be written must not say otherwise.
        with suppress(OSError):
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
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
    """Wait for no lock longer than that; one that stays taken is the switch's time-out."""
    try:
        with at_most(seconds):
            yield
    except Busy as error:
        raise SwitchTimedOut(
            f"something stayed locked, nothing was changed: {error.message}",
            next_step="See what that process waits for, or try again",
        ) from error


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None  # cut off by a kill
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


def _require_equal(report: VerifyReport) -> None:
    if report.mismatches:
        first = report.mismatches[0]
        raise VerificationFailed(
            f"{len(report.mismatches)} differences, the first in task {first.task_id} at "
            f"{first.pointer or '/'}: {first.source!r} in the source, {first.target!r} in the "
            "target; the phase is unchanged",
            next_step=f"registry-backend diff {first.task_id}",
        )


def keep_mismatches(path: Path, found: list[Mismatch], *, most: int = 100) -> None:
    """Append differences that a sample found, keeping the last hundred."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    lines += [orjson.dumps(asdict(m) | {"at": _now()}) for m in found]
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:  # noqa: PTH123  (an open descriptor)
        file.write(b"\n".join(lines[-most:]) + b"\n")
