"""Absorb what legacy programs wrote, and bring the target or the logs up to date."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from backends.dual_write.recovery import inside_gate
from backends.dual_write.session import Session
from registry_api.capabilities import (
    ForeignWriters,
    Logged,
    Reconciled,
    find_capability,
    provides,
)
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
        logged = session.store.logged_target()
        with inside_gate(session):
            if provides(logged, Logged):
                return logged.reconcile(dry_run=dry_run)
            return Reconciled()
    with inside_gate(session):
        source = session.store.source
        found = Reconciled()
        logs = find_capability(session.store, Logged)
        if provides(source, ForeignWriters):
            found = Reconciled(written=source.restore(dry_run=dry_run))
        elif logs is not None:
            found = logs.reconcile(dry_run=dry_run)
        task_ids = session.task_ids()
    if session.record().phase is MigrationPhase.SOURCE_ONLY:
        return found
    if dry_run:
        return replace(found, caught_up=len(session.replicator().lagging(task_ids)))
    caught_up = session.catch_up(task_ids, progress, inside=partial(inside_gate, session))
    return replace(found, caught_up=caught_up)
