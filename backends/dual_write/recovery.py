"""Finish or undo what killed processes left: switches, writes, a target that is behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from backends.dual_write.session import Session
from backends.dual_write.steps.order import step_between
from backends.dual_write.switch_lock import alone
from registry_api.capabilities import MigrationSource, provides
from registry_api.migration import (
    MigrationPhase,
    PhaseRecord,
    Progress,
)

__all__ = ["inside_gate", "recover", "recover_switch"]


@contextmanager
def inside_gate(session: Session) -> Iterator[None]:
    """Pass the gate for one operation; a switch that was interrupted in it is recovered first.

    Raises Busy while another process recovers it.
    """
    while True:
        with session.gate.passing():
            if session.context.read_only or not session.journal.is_inside():
                yield
                return
        with alone(session):
            recover_switch(session, wait=False)


def recover(session: Session, *, dry_run: bool = False, wait: bool = True) -> tuple[str, ...]:
    """See Migration.recover."""
    with alone(session):
        notes = recover_switch(session, dry_run=dry_run, wait=wait)
        context = session.step_context()
        moving = session.record().phase is not MigrationPhase.SOURCE_ONLY
        # They differ where switch.json was lost, or a store was restored from a backup.
        if moving and not dry_run and context.roles_differ():
            with session.gate.closed():
                context.settle_roles()
            notes += ("the roles of the stores did not fit the phase and were set",)
        task_ids = session.task_ids()  # settles what dead processes left unfinished
        if session.record().phase in {
            MigrationPhase.PARALLEL_WRITE,
            MigrationPhase.READ_MIGRATION,
        }:
            lagging = session.replicator().lagging(task_ids)
            if lagging and not dry_run:
                session.catch_up(lagging, None)
            if lagging:
                done = "are behind" if dry_run else "were behind and have caught up"
                notes += (f"{len(lagging)} task(s) {done}",)
    return notes


def recover_switch(
    session: Session, *, dry_run: bool = False, wait: bool = True, progress: Progress | None = None
) -> tuple[str, ...]:
    """Finish or undo an interrupted switch: the phase record decides which of the two."""
    died, record = session.journal.read(), session.record()
    if died is None:
        return _delete_pending(session, record, dry_run=dry_run, wait=wait)
    if dry_run:
        return (f"an interrupted switch would be recovered: the phase is {record.phase:d}",)
    committed = record.epoch != died.epoch
    context = session.step_context(progress, reason=died.reason, wait=wait)
    try:
        step = step_between(died.before, died.after, context)
        if died.epoch >= 0 and died.before != died.after:
            with session.gate.closed():
                if not committed:
                    step.undo()
                elif died.inside:  # else it was finalized, and writers have written since
                    step.finalize()
                session.journal.write(replace(died, inside=False))
            if committed:
                step.clean_up(record)
        elif died.epoch < 0 and record.phase is not MigrationPhase.SOURCE_ONLY:
            # A power loss destroyed the journal: it may have been any switch.
            with session.gate.closed():
                context.settle_roles()
                source = context.source
                if record.phase is MigrationPhase.READ_MIGRATION and provides(
                    source, MigrationSource
                ):
                    source.unfence(context.writer_stamp())
    finally:
        context.throttle.end()
    if record.phase is not MigrationPhase.SOURCE_ONLY:
        session.stamp(record)
    session.journal.clear()
    return (
        f"an interrupted switch was recovered: the phase is {record.phase:d}",
        *context.notes,
    )


def _delete_pending(
    session: Session, record: PhaseRecord, *, dry_run: bool, wait: bool
) -> tuple[str, ...]:
    """Delete what an earlier switch to 4 left pending deletion."""
    if record.phase is not MigrationPhase.CLEANUP:
        return ()
    source = session.store.source
    if not provides(source, MigrationSource):
        return ()
    left = source.retiring()
    if not left or dry_run:
        return (
            (f"{left} removed file(s) are pending deletion; `recover` deletes them",)
            if left
            else ()
        )
    context = session.step_context(wait=wait)
    context.retire(record.archive)
    return tuple(context.notes)
