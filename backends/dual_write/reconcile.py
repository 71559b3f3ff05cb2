"""Absorb what legacy programs wrote, and bring the target or the logs up to date."""

from __future__ import annotations

from dataclasses import replace

from backends.dual_write.session import Session
from registry_api.capabilities import Logged, MigrationSource, Reconciled, provides
from registry_api.migration import (
    MigrationPhase,
    Progress,
)

__all__ = ["reconcile"]


def reconcile(
    session: Session, *, dry_run: bool = False, progress: Progress | None = None
) -> Reconciled:
    """See Migration.reconcile."""
    if session.record().phase >= MigrationPhase.WRITE_CUTOVER:
        logged = session.store.logged(session.replicator().target)
        with session.gate.passing():
            if provides(logged, Logged):
                return logged.reconcile(dry_run=dry_run)
            return Reconciled()
    with session.gate.passing():
        source = session.store.source
        written = source.restore(dry_run=dry_run) if provides(source, MigrationSource) else 0
        found = Reconciled(written=written)
        task_ids = session.task_ids()
    if session.record().phase is MigrationPhase.JSON_ONLY:
        return found
    if dry_run:
        return replace(found, caught_up=len(session.replicator().lagging(task_ids)))
    return replace(found, caught_up=session.catch_up(task_ids, progress))
