"""Compare both stores of a move, all tasks or one, while writers continue."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from backends.dual_write.comparison import compare_task, surplus_tasks, verify_tasks
from backends.dual_write.history import now
from backends.dual_write.recovery import inside_gate
from backends.dual_write.replicator import Replicator
from backends.dual_write.session import Session
from registry_api.migration import (
    MigrationPhase,
    Mismatch,
    Progress,
    VerifyReport,
)

__all__ = ["diff", "verify"]


def verify(session: Session, *, progress: Progress | None = None) -> VerifyReport:
    """See Migration.verify."""
    if session.record().phase is MigrationPhase.SOURCE_ONLY:
        counts = session.store.source.counts()
        return VerifyReport(tasks=counts.total_tasks, records=sum(counts.records.values()))
    if session.record().phase >= MigrationPhase.WRITE_CUTOVER:
        return _verify_taken_over(session, progress)
    epoch = session.record().epoch
    replicator, inside = session.replicator(), partial(inside_gate, session)
    with inside():
        task_ids = session.task_ids()
    report = verify_tasks(replicator, task_ids, inside=inside, progress=progress)
    surplus = surplus_tasks(replicator, set(task_ids))
    report = replace(report, mismatches=(*report.mismatches, *surplus))
    if not report.mismatches and not report.in_flight:
        session.control.note(epoch=epoch, verified=now())
    return report


def _verify_taken_over(session: Session, progress: Progress | None) -> VerifyReport:
    """Compare frozen documents with their recorded hashes, or check the archive.

    Tasks that the target has not written since the cut-over are compared with the source.
    """
    record, context = session.record(), session.step_context()
    with inside_gate(session):
        context.set_late_writes_aside()
        gone = record.phase is MigrationPhase.CLEANUP
        foreign = None if gone else context.foreign
        differing = () if foreign is None else foreign.frozen_differences()
        if gone and record.archive is not None:
            context.migration_source.check_archive(record.archive)
    replicator = session.replicator()
    task_ids = [] if gone else session.task_ids()
    report = _verify_unwritten(session, replicator, task_ids, progress)
    found = [Mismatch(task_id="", pointer=d, source="frozen", target=None) for d in differing]
    counts = replicator.target.counts()
    return replace(
        report,
        tasks=counts.total_tasks,
        records=sum(counts.records.values()),
        mismatches=(*found, *map(_turned, report.mismatches)),
    )


def _verify_unwritten(
    session: Session, replicator: Replicator, task_ids: list[str], progress: Progress | None
) -> VerifyReport:
    """Compare the tasks that the target has not written since the cut-over; changes neither."""
    source, target, back = replicator.source, replicator.target, replicator.reversed()
    mismatches = list[Mismatch]()
    for done, task_id in enumerate(task_ids):
        with inside_gate(session):
            head = target.head(task_id)
            if source.head(task_id).position == head.position:
                found = compare_task(back, task_id, catch_up=False)[1]
                if target.head(task_id) == head:  # else it was written meanwhile
                    mismatches += found
        if progress is not None:
            progress("verify", done + 1, len(task_ids))
    return VerifyReport(mismatches=tuple(mismatches))


def diff(session: Session, task_id: str) -> list[Mismatch]:
    """See Migration.diff."""
    with inside_gate(session):
        if session.record().phase >= MigrationPhase.WRITE_CUTOVER:
            replicator = session.replicator()
            replicator.target.load(task_id)
            record = session.record()
            if record.phase is MigrationPhase.CLEANUP and not record.foreign_writers:
                return []  # the source is removed
            found = compare_task(replicator.reversed(), task_id, catch_up=False)[1]
            return [_turned(m) for m in found]
        session.store.source.load(task_id)
        if session.record().phase is MigrationPhase.SOURCE_ONLY:
            return []
        return compare_task(session.replicator(), task_id)[1]


def _turned(found: Mismatch) -> Mismatch:
    """Return a difference with source and target exchanged."""
    return replace(found, source=found.target, target=found.source)
