"""Make this workspace the owner of its move's stores: the original is gone, or one was restored."""

from __future__ import annotations

from backends.dual_write.role_stamps import roles_in
from backends.dual_write.session import Session
from backends.dual_write.switch_lock import alone
from registry_api.errors import BackendMismatch, PreflightFailed
from registry_api.migration import MigrationPhase
from registry_api.roles import Role
from registry_api.workspace import registry_id

__all__ = ["take_over"]


def take_over(session: Session) -> tuple[str, ...]:
    """See Migration.take_over."""
    with alone(session):
        record, roles, stores = session.record(), session.store.roles, session.store.stores
        if record.phase is MigrationPhase.SOURCE_ONLY:
            raise PreflightFailed(
                "no move is under way: only the stores of a move have an owner",
                next_step="registry-backend status",
            )
        with session.gate.closed():
            for place, role in roles_in(record).items():
                store = stores.get(place, record)
                stamp = roles.of(store)
                ours = {"", registry_id(session.folder)}
                here = stamp is None or stamp.workspace == str(session.context.workspace)
                if stamp is not None and stamp.registry not in ours and not here:
                    raise BackendMismatch(
                        f"{place} belongs to the registry in {stamp.workspace}, of which this "
                        "workspace is no copy",
                        next_step="Name another store",
                    )
                writer = "" if role is Role.WRITER else record.writer
                roles.give(store, record, role, writer=writer)
    return (f"the stores of the move belong to {session.context.workspace} now",)
