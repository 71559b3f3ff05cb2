"""Whether a store can become the target of a move: checked before the first switch changes it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from backends.dual_write.best_effort import answering_target
from backends.dual_write.session import Session
from registry_api.errors import PreflightFailed, Unavailable
from registry_api.migration import MigrationPhase, PhaseRecord
from registry_api.store import Capability, RegistryStore
from registry_api.workspace import same_place

__all__ = ["check_target"]

_NEEDED = {Capability.MOVE_TARGET, Capability.PERSISTENT}


def check_target(
    session: Session, before: MigrationPhase, after: MigrationPhase, *, dry_run: bool = False
) -> str | None:
    """Raise PreflightFailed or BackendMismatch unless the next step's target can be used.

    Opened for reading only, so that a refusal creates nothing. Returns a message if it cannot be
    reached; in a plan, a store without data yet may also be unavailable.
    """
    if after < before or before > MigrationPhase.PARALLEL_WRITE:
        return None
    record = session.record()
    if before is MigrationPhase.SOURCE_ONLY:
        _check_name(record)
        try:
            with answering_target(), closing(session.store.look_at(record.target)) as target:
                _check_store(session, record, target)
        except Unavailable:
            pass  # down, or it has no data yet
    return _unreached(session, record, looking=dry_run or session.context.read_only)


def _check_name(record: PhaseRecord) -> None:
    if not record.target:
        raise PreflightFailed(
            f"the move from {record.source} has no target",
            next_step="registry-backend switch 1 --to URL, or set REGISTRY_TARGET",
        )
    if record.target.partition("://")[0] in {"auto", "dual"}:
        raise PreflightFailed(
            f"{record.target} is not one store", next_step="Name a store with --to"
        )
    if same_place(record.source, record.target):
        raise _same(record)


def _same(record: PhaseRecord) -> PreflightFailed:
    return PreflightFailed(
        f"the target {record.target} is the source of the move",
        next_step="Name another store with --to",
    )


def _unreached(session: Session, record: PhaseRecord, *, looking: bool) -> str | None:
    """Return a message if a target that has a server, or is a third party's, cannot be reached."""
    if not session.context.plugins.may_be_away(record.target.partition("://")[0]):
        return None
    try:
        with answering_target():
            if looking:
                with closing(session.store.look_at(record.target)) as target:
                    target.counts()
            else:
                session.replicator().target.counts()
    except Unavailable as error:
        empty = ", or has no data yet" if looking else ""
        return f"the target {record.target} cannot be reached{empty}: {error.message}"
    return None


def _check_store(session: Session, record: PhaseRecord, target: RegistryStore) -> None:
    source = session.store.source.info
    if source.name == target.info.name and _is_one_file(source.location, target.info.location):
        raise _same(record)
    missing = _NEEDED - target.info.capabilities
    if missing:
        raise PreflightFailed(
            f"the store {target.info.name!r} cannot be the target of a move: it does not declare "
            f"{', '.join(sorted(missing))}",
            next_step="Name a store that declares them",
        )
    recorded = session.control.read()
    was_target = recorded is not None and recorded.epoch > 0 and recorded.target == record.target
    session.store.roles.refuse_target(target, record, was_target=was_target)


def _is_one_file(one: str, other: str) -> bool:
    """Return whether two locations are the same file, by whatever path."""
    if one == other:
        return True
    try:
        return Path(one).resolve() == Path(other).resolve() or Path(one).samefile(other)
    except (OSError, ValueError):
        return False
