"""Change the migration phase, step by step, each verified before it is committed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from itertools import pairwise

from backends.dual_write.best_effort import answering_target
from backends.dual_write.history import note_switch, now
from backends.dual_write.preflight import (
    check_legacy_state,
    check_merged,
    check_place,
    check_unreadable,
)
from backends.dual_write.recovery import recover_switch
from backends.dual_write.session import Session
from backends.dual_write.steps.base import Step
from backends.dual_write.steps.order import step_between
from backends.dual_write.switch_lock import alone
from registry_api.capabilities import MigrationSource, provides
from registry_api.errors import Busy, PreflightFailed, RegistryError, SwitchTimedOut, Unavailable
from registry_api.migration import (
    MigrationPhase,
    PhaseRecord,
    Progress,
    Switching,
    SwitchReport,
    SwitchStep,
)
from registry_api.store import Capability
from registry_api.workspace import at_most, within
from registry_api.workspace.time_zone import machine_zone

__all__ = ["plan", "switch"]

_MOMENT = 0.05  # seconds of all waits for locks while the gate is held, at least
_LONGEST_MOMENT = 0.2  # at most; on a slow host as long as an operation takes there


def plan(
    session: Session, to: MigrationPhase, *, json_is_truth: bool, leave_unreadable: bool
) -> SwitchReport:
    """Check the first step and list all steps; changes nothing."""
    start, notes = session.record().phase, tuple[str, ...]()
    steps = tuple(SwitchStep(from_phase=a, to_phase=b) for a, b in _pairs(start, to))
    if steps:
        _preflight(session, start, steps[0].to_phase, json_is_truth=json_is_truth)
        _unreadable(session, start, steps[0].to_phase, leave=leave_unreadable)
        notes += _unreached(session, start, steps[0].to_phase)
    if session.journal.path.exists():
        notes += ("a switch is in progress or interrupted",)
    return SwitchReport(steps=steps, dry_run=True, notes=notes)


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
    progress: Progress | None = None,
) -> SwitchReport:
    """See Migration.switch."""
    with alone(session):
        notes = recover_switch(session, progress=progress)
        steps: list[SwitchStep] = []
        if only_from_epoch not in {None, session.record().epoch}:
            return SwitchReport(notes=(*notes, "nothing done: the phase was changed meanwhile"))
        try:
            for phase in _way(session.record().phase, to):
                before = session.record().phase
                _preflight(session, before, phase, json_is_truth=json_is_truth)
                left = _unreadable(session, before, phase, leave=leave_unreadable)
                if unreached := _unreached(session, before, phase):
                    raise PreflightFailed(
                        unreached[0],
                        next_step="Start the target or correct REGISTRY_TARGET, then try again",
                    )
                _check_target(session, before)
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
        except RegistryError as error:
            if steps:
                error.message += f" (earlier steps are done: the phase is {steps[-1].to_phase:d})"
            raise
    return SwitchReport(steps=tuple(steps), notes=notes)


def _preflight(
    session: Session, before: MigrationPhase, after: MigrationPhase, *, json_is_truth: bool
) -> None:
    if after < before:
        return
    check_place(session.context.workspace)
    if before is MigrationPhase.JSON_ONLY:
        check_merged(session.store.source, session.folder)
    recorded = session.record().json_is_truth
    check_legacy_state(session.store.source, json_is_truth=json_is_truth or recorded)


def _unreached(session: Session, before: MigrationPhase, after: MigrationPhase) -> tuple[str, ...]:
    """Return a message if the next step needs a target that cannot be reached.

    Checked for third-party stores only: ours is created by the step itself. Opened for reading
    only, a target without data yet may also be unavailable.
    """
    record, plugins = session.record(), session.context.plugins
    scheme = record.target.partition("://")[0]
    if after < before or before > MigrationPhase.PARALLEL_WRITE or plugins.is_ours(scheme):
        return ()
    try:
        with answering_target(), closing(session.store.open_target(record)) as target:
            target.counts()
    except Unavailable as error:
        empty = ", or has no data yet" if session.context.read_only else ""
        return (f"the target {record.target} cannot be reached{empty}: {error.message}",)
    return ()


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


def _check_target(session: Session, before: MigrationPhase) -> None:
    if before is MigrationPhase.JSON_ONLY:
        target = session.replicator().target
        if Capability.MOVE_TARGET not in target.info.capabilities:
            raise PreflightFailed(
                f"the store {target.info.name!r} cannot be the target of a move",
                next_step="Name a store that declares the capability move_target",
            )


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
    gate is opened for callers and ``final_sync`` is tried again, until the timeout. Returns
    (tasks caught up, pause in ms).
    """
    start = time.monotonic()
    while True:
        moment = max(_MOMENT, min(_LONGEST_MOMENT, session.gate.slow()))
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
    if step.touches_files:
        session.journal.write(replace(under_way, inside=True), durable=False)
    try:
        with within(moment):
            caught_up = step.final_sync()
        session.control.advance(new.epoch - 1, new)
    except BaseException as error:
        if session.control.current().epoch == new.epoch - 1:
            step.undo()
        if step.touches_files:
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
    if step.touches_files:
        session.journal.write(under_way, durable=False)
    return caught_up


def _project(session: Session, before: MigrationPhase, after: MigrationPhase) -> None:
    """After a step back, bring the list of all tasks up to date for legacy programs."""
    source = session.store.source
    if before > after < MigrationPhase.WRITE_CUTOVER and provides(source, MigrationSource):
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
