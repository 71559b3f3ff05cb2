"""Whether a store can become the target of a move: checked before the first switch changes it."""

from __future__ import annotations

from contextlib import suppress

from backends.dual_write.best_effort import answering_target
from backends.dual_write.session import Session
from registry_api.errors import PreflightFailed, Unavailable
from registry_api.migration import MigrationPhase, PhaseRecord
from registry_api.store import Capability, RegistryStore
from registry_api.workspace import same_place

__all__ = ["check_target"]


def check_target(session: Session, before: MigrationPhase, after: MigrationPhase) -> str | None:
    """Raise PreflightFailed or BackendMismatch unless the next step's target can be used.

    Returns a message if it cannot be reached; opened for reading only, a store without data yet may
    also be unavailable.
    """
    if after < before or before > MigrationPhase.PARALLEL_WRITE:
        return None
    record = session.record()
    if before is MigrationPhase.SOURCE_ONLY:
        _check_name(record)
    unreached = _unreached(session, record)
    if unreached is None and before is MigrationPhase.SOURCE_ONLY:
        with suppress(Unavailable):  # ours, and it has no file yet: opened for reading only
            _check_store(session, record, session.replicator().target)
    return unreached


def _check_name(record: PhaseRecord) -> None:
    if not record.target:
        raise PreflightFailed(
            f"the move from {record.source} has no target",
            next_step="registry-backend switch 1 --to URL, or set REGISTRY_TARGET",
        )
    if same_place(record.source, record.target):
        raise _same(record)


def _same(record: PhaseRecord) -> PreflightFailed:
    return PreflightFailed(
        f"the target {record.target} is the source of the move",
        next_step="Name another store with --to",
    )


def _unreached(session: Session, record: PhaseRecord) -> str | None:
    """Return a message if a third-party target cannot be reached; ours is created by the step."""
    if session.context.plugins.is_ours(record.target.partition("://")[0]):
        return None
    try:
        with answering_target():
            session.replicator().target.counts()
    except Unavailable as error:
        empty = ", or has no data yet" if session.context.read_only else ""
        return f"the target {record.target} cannot be reached{empty}: {error.message}"
    return None


def _check_store(session: Session, record: PhaseRecord, target: RegistryStore) -> None:
    source = session.store.source.info
    if (source.name, source.location) == (target.info.name, target.info.location):
        raise _same(record)
    if Capability.MOVE_TARGET not in target.info.capabilities:
        raise PreflightFailed(
            f"the store {target.info.name!r} cannot be the target of a move",
            next_step="Name a store that declares the capability move_target",
        )
    session.store.roles.refuse_target(target, record)
