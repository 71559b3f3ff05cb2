"""Where a move is: its phase, how far the target has followed, late writes."""

from __future__ import annotations

from contextlib import ExitStack

from backends.dual_write.best_effort import answering_target
from backends.dual_write.recovery import inside_gate
from backends.dual_write.session import Session
from registry_api.errors import Busy, RegistryError, Unavailable
from registry_api.migration import (
    MigrationPhase,
    MoveStatus,
    PhaseRecord,
)
from registry_api.records import Kind

__all__ = ["read_status"]


def read_status(session: Session) -> MoveStatus:
    """See Migration.status."""
    with ExitStack() as stack:
        try:
            # Reading the status absorbs what legacy programs wrote.
            stack.enter_context(inside_gate(session))
        except Busy:
            raise
        except Unavailable:
            pass  # a read-only disk, where nothing can be absorbed either
        return _status(session)


def _status(session: Session) -> MoveStatus:
    record = session.record()
    if record.phase >= MigrationPhase.WRITE_CUTOVER:
        return _status_taken_over(session, record)
    records = {record.source: dict(session.store.source.counts().records)}
    dirty: int | None = 0
    notes: tuple[str, ...] = ()
    if record.phase is not MigrationPhase.SOURCE_ONLY:
        try:
            task_ids = session.task_ids()
            with answering_target():
                replicator = session.replicator()
                records[record.target] = dict(replicator.target.counts().records)
                dirty = len(replicator.lagging(task_ids))
        except RegistryError as error:
            dirty = None
            notes = (f"the target {record.target} cannot be read: {error.message}",)
    return MoveStatus(record=record, dirty=dirty, records=records, notes=notes)


def _status_taken_over(session: Session, record: PhaseRecord) -> MoveStatus:
    """Return the status if the target is the writer of record, and keep new late writes."""
    context = session.step_context()
    records = dict[str, dict[Kind, int]]()
    try:
        if not session.context.read_only:
            context.set_late_writes_aside()
        records = {record.target: dict(session.replicator().target.counts().records)}
    except (Unavailable, OSError) as error:  # a disk that is read-only, or full
        context.notes.append(f"cannot check for late writes: {error}")
    kept = context.foreign.kept_late_writes() if context.foreign is not None else ()
    return MoveStatus(record=record, records=records, notes=tuple(context.notes), late_writes=kept)
