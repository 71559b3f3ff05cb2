"""End a move in phase 4: its target becomes the workspace's store, and another move may begin."""

from __future__ import annotations

from backends.dual_write.history import note_switch, now
from backends.dual_write.recovery import recover_switch
from backends.dual_write.session import Session
from backends.dual_write.switch_lock import alone
from registry_api.capabilities import ForeignWriters, MigrationSource, provides
from registry_api.errors import PreflightFailed
from registry_api.migration import CompletedMove, MigrationPhase, PhaseRecord, SwitchStep

__all__ = ["complete"]


def complete(session: Session, *, actor: str, only_from_epoch: int | None) -> PhaseRecord:
    """See Migration.complete."""
    with alone(session):
        recover_switch(session)
        record = session.record()
        if record.phase is not MigrationPhase.CLEANUP:
            raise PreflightFailed(
                f"the workspace is in phase {record.phase:d}: only a move in phase 4 can be "
                "completed",
                next_step="registry-backend switch 4",
            )
        if only_from_epoch not in {None, record.epoch}:
            raise PreflightFailed(
                f"the phase was changed meanwhile: the epoch is {record.epoch}",
                next_step="registry-backend status, then registry-backend complete",
            )
        _refuse_unfinished(session)
        target = session.replicator().target
        done = CompletedMove(
            move=record.move,
            source=record.source,
            target=record.target,
            epoch=record.epoch + 1,
            archive=record.archive,
            at=now(),
            by=actor,
        )
        new = PhaseRecord(
            epoch=record.epoch + 1,
            source=record.target,
            target="",
            completed=(*record.completed, done),
            foreign_writers=provides(target, ForeignWriters),
            target_phase=record.target_phase,
            zone=record.zone,
            at=done.at,
            by=actor,
        )
        session.drop_source()  # a next move may make a store of that name
        with session.gate.closed():
            new = session.control.advance(record.epoch, new)
    step = SwitchStep(from_phase=record.phase, to_phase=new.phase)
    note_switch(session, new, step)
    return new


def _refuse_unfinished(session: Session) -> None:
    context = session.step_context()
    source = context.source
    left = source.retiring() if provides(source, MigrationSource) else 0
    if left:
        raise PreflightFailed(
            f"{left} removed file(s) of the source are pending deletion",
            next_step="registry-backend recover, then registry-backend complete",
        )
    kept = context.foreign.kept_late_writes() if context.foreign is not None else ()
    if kept:
        raise PreflightFailed(
            f"{len(kept)} late write(s) are not resolved, the first: {kept[0]}",
            next_step="Read the report, then move it away",
        )
