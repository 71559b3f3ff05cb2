"""Change the migration phase, step by step, each verified before it is committed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import pairwise

from backends.dual_write.history import note_switch, now
from backends.dual_write.preflight import (
    check_legacy_state,
    check_merged,
    check_place,
    check_processes,
    check_unreadable,
    restart_notes,
)
from backends.dual_write.recovery import recover_switch
from backends.dual_write.session import Session
from backends.dual_write.steps.base import Step
from backends.dual_write.steps.order import step_between
from backends.dual_write.switch_lock import alone
from backends.dual_write.target_check import check_target
from registry_api.capabilities import ForeignWriters, provides
from registry_api.errors import Busy, PreflightFailed, RegistryError, SwitchTimedOut
from registry_api.migration import (
    MigrationPhase,
    PhaseRecord,
    Progress,
    Switching,
    SwitchReport,
    SwitchStep,
)
from registry_api.workspace import at_most, same_place, within
from registry_api.workspace.time_zone import machine_zone

__all__ = ["plan", "switch"]

_MOMENT = 0.05  # seconds of all waits for locks while the gate is held, at least
_LONGEST_MOMENT = 0.2  # at most; on a slow host as long as an operation takes there


def plan(
    session: Session,
    to: MigrationPhase,
    *,
    json_is_truth: bool,
    leave_unreadable: bool,
    target: str | None,
) -> SwitchReport:
    """Check the first step and list all steps; changes nothing."""
    _aim(session, target)
    start, notes, checks = session.record().phase, tuple[str, ...](), tuple[str, ...]()
    steps = tuple(SwitchStep(from_phase=a, to_phase=b) for a, b in _pairs(start, to))
    if steps:
        checks = _preflight(session, start, steps[0].to_phase, json_is_truth=json_is_truth)
        left = _unreadable(session, start, steps[0].to_phase, leave=leave_unreadable)
        if steps[0].to_phase > start:
            what = f"{len(left)} documents are left unreadable, as accepted"
            checks += (what if left else "every document can be read",)
        unreached = check_target(session, start, steps[0].to_phase, dry_run=True)
        notes += (unreached,) if unreached else ()
        checks += () if unreached else ("the stores of the move answer",)
        notes += restart_notes(session.context.settings, to)
    if session.journal.path.exists():
        notes += ("a switch is in progress or interrupted",)
    return SwitchReport(steps=steps, dry_run=True, notes=notes, checks=checks)


def switch(
    session: Session,
    to: MigrationPhase,
    *,
    actor: str,
    timeout: float | None = None,
    json_is_truth: bool = False,
    leave_unreadable: bool = False,
    only_from_epoch: int | None = None,
    force: str | None = None,
    target: str | None = None,
    progress: Progress | None = None,
) -> SwitchReport:
    """See Migration.switch."""
    with alone(session):
        notes = recover_switch(session, progress=progress)
        _aim(session, target)
        steps: list[SwitchStep] = []
        if only_from_epoch not in {None, session.record().epoch}:
            return SwitchReport(notes=(*notes, "nothing done: the phase was changed meanwhile"))
        try:
            for phase in _way(session.record().phase, to):
                before = session.record().phase
                _preflight(session, before, phase, json_is_truth=json_is_truth)
                left = _unreadable(session, before, phase, leave=leave_unreadable)
                if unreached := check_target(session, before, phase):
                    raise PreflightFailed(
                        unreached,
                        next_step="Start the target or correct REGISTRY_TARGET, then try again",
                    )
                step, said = _step(
                    session,
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
                if before is MigrationPhase.SOURCE_ONLY:
                    notes += restart_notes(session.context.settings, phase)
        except RegistryError as error:
            if steps:
                error.message += f" (earlier steps are done: the phase is {steps[-1].to_phase:d})"
            raise
    return SwitchReport(steps=tuple(steps), notes=notes)


def _aim(session: Session, target: str | None) -> None:
    """Take a target for the move that begins; refuse another one for a move under way."""
    session.aim_at(None)
    record = session.record()
    if target is None or same_place(target, record.target):
        return
    if record.phase is not MigrationPhase.SOURCE_ONLY:
        raise PreflightFailed(
            f"the move {record.source} -> {record.target} is under way, in phase {record.phase:d}",
            next_step="Step back to phase 0, or reach phase 4 and run registry-backend complete",
        )
    session.aim_at(target)


def _preflight(
    session: Session, before: MigrationPhase, after: MigrationPhase, *, json_is_truth: bool
) -> tuple[str, ...]:
    """Return the checks that passed; a check that fails raises PreflightFailed."""
    if after < before:
        return ()
    check_place(session.context.workspace)
    passed: tuple[str, ...] = ("the workspace is on a local disk with room for the move",)
    if before is MigrationPhase.SOURCE_ONLY:
        check_processes(session.folder)
        check_merged(session.store.source, session.folder)
        passed += ("no program of an earlier version uses the registry",)
        passed += ("no feed number was given twice",)
    recorded = session.record().json_is_truth
    check_legacy_state(session.store.source, json_is_truth=json_is_truth or recorded)
    return (*passed, "no database of the legacy system is newer, or the operator said so")


def _unreadable(
    session: Session, before: MigrationPhase, after: MigrationPhase, *, leave: bool
) -> tuple[str, ...]:
    """Return the files that are not moved because they cannot be read.

    Raises PreflightFailed if the operator has not accepted that. On a step back, and if the
    source is frozen, the recorded list is returned.
    """
    left = session.record().unreadable
    if after < before or before >= MigrationPhase.WRITE_CUTOVER:
        return left
    return check_unreadable(session.store.source, left=left, leave=leave)


def _step(
    session: Session,
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
    record = session.record()
    forward = after > before
    under_way = Switching(before=before, after=after, epoch=record.epoch, reason=reason)
    session.journal.write(under_way)
    context = session.step_context(progress, reason=reason)
    step = step_between(before, after, context)
    try:
        # The long part runs while writers continue: no caller waits for it.
        with _in_time(session.gate.timeout() if timeout is None else timeout):
            copied = step.prepare()
        new = replace(
            record,
            foreign_writers=context.foreign is not None
            if before is MigrationPhase.SOURCE_ONLY
            else record.foreign_writers,
            phase=after,
            epoch=record.epoch + 1,
            stepped_back=not forward,
            zone=record.zone or session.context.settings.legacy_tz or machine_zone(),
            verified=now() if step.verified is not None else record.verified,
            json_is_truth=record.json_is_truth or json_is_truth,
            unreadable=unreadable,
            at=now(),
            by=actor if reason is None else f"{actor}, forced: {reason}",
        )
        new = step.changed(new)
        caught_up, pause = _commit_closed(session, new, step, under_way, timeout)
    except BaseException:
        under = session.journal.read()
        if under is None or not under.inside:  # else the next recovery finishes or undoes it
            if session.control.current().epoch == record.epoch:
                with suppress(RegistryError, OSError):
                    step.undo()
            session.journal.clear()
        raise
    finally:
        context.throttle.end()
    step.clean_up(new)
    session.journal.clear()
    _project(session, before, after)
    done = SwitchStep(
        from_phase=before,
        to_phase=after,
        pause_ms=round(pause, 3),
        caught_up=copied + caught_up,
        verified=step.verified,
    )
    session.stamp(new)
    note_switch(session, new, done)
    return done, context.notes


def _commit_closed(
    session: Session, new: PhaseRecord, step: Step, under_way: Switching, timeout: float | None
) -> tuple[int, float]:
    """Close the gate, run ``final_sync``, replace the record, open the gate again.

    While the gate is held, no lock is waited for longer than a moment. If one stays taken, the
    gate is opened for callers and ``final_sync`` is tried again, until the timeout. Where other
    hosts share a store, the moment doubles each time: their operations are not measured here.
    Returns (tasks caught up, pause in ms).
    """
    start, longer = time.monotonic(), 1.0
    while True:
        moment = max(_MOMENT, min(_LONGEST_MOMENT, session.gate.slow()))
        if session.is_shared():
            moment = min(longer * moment, session.context.settings.lock_timeout)
            longer *= 2
        left = None if timeout is None else max(0.0, start + timeout - time.monotonic())
        with session.gate.closed(timeout=left) as since:
            deadline = start + (session.gate.timeout() if timeout is None else timeout)
            done = _try_closed(session, new, step, under_way, deadline=deadline, moment=moment)
        if done is not None:
            return done, (time.monotonic() - since) * 1000
        time.sleep(max(0.01, moment / 2))


def _try_closed(
    session: Session,
    new: PhaseRecord,
    step: Step,
    under_way: Switching,
    *,
    deadline: float,
    moment: float,
) -> int | None:
    """Run ``final_sync`` while the gate is held; return None if a lock was taken: try again."""
    if step.is_marked:
        # Durable: after a power loss the roles must be finished, or nobody could write.
        session.journal.write(replace(under_way, inside=True))
    try:
        with within(moment):
            caught_up = step.final_sync()
        session.control.advance(new.epoch - 1, new)
    except BaseException as error:
        if session.control.current().epoch == new.epoch - 1:
            step.undo()
        if step.is_marked:
            session.journal.write(under_way, durable=False)
        if not isinstance(error, Busy):
            raise
        if time.monotonic() > deadline:
            raise SwitchTimedOut(
                f"something stayed locked until the deadline: {error.message}",
                next_step="Check what that process is doing, or try again",
            ) from error
        return None
    # The switch is committed. If the rest fails, the next recovery does it.
    step.finalize()
    if step.is_marked:
        session.journal.write(under_way, durable=False)
    return caught_up


def _project(session: Session, before: MigrationPhase, after: MigrationPhase) -> None:
    """After a step back, bring the list of all tasks up to date for legacy programs."""
    if not before > after < MigrationPhase.WRITE_CUTOVER:
        return
    source = session.store.source
    if provides(source, ForeignWriters):
        with suppress(RegistryError, OSError), session.gate.passing():
            source.project()


@contextmanager
def _in_time(seconds: float) -> Iterator[None]:
    """Wait for no lock longer than ``seconds``; raise SwitchTimedOut if one stays taken."""
    try:
        with at_most(seconds):
            yield
    except Busy as error:
        raise SwitchTimedOut(
            f"something stayed locked, nothing was changed: {error.message}",
            next_step="Check what that process is doing, or try again",
        ) from error


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
