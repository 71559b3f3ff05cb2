"""A registry in PostgreSQL: the store in a relational database, with leases of its own."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from backends.sql.postgresql.archive import PostgresRetirement
from backends.sql.postgresql.engine import PostgresEngine
from backends.sql.postgresql_sql import FRAGMENTS, STATEMENTS
from backends.sql.store import SqlStore
from registry_api.leases import Lease
from registry_api.store import Capability

__all__ = ["PostgresStore"]


class PostgresStore(SqlStore):
    """A registry that several hosts may share; ``archives`` is the folder for its archives."""

    def __init__(
        self,
        engine: PostgresEngine,
        *,
        archives: Path,
        now: Callable[[], datetime],
        durable: bool,
        read_only: bool,
    ) -> None:
        super().__init__(
            engine,
            name="postgresql",
            retirement=PostgresRetirement(engine, archives, now),
            statements={**STATEMENTS, **engine.statements},
            fragments=FRAGMENTS,
            now=now,
            durable=durable,
            read_only=read_only,
            capabilities=frozenset({Capability.MULTI_HOST, Capability.LEASES}),
        )
        self._leases = engine.leases()

    def acquire_lease(self, name: str, holder: str, *, seconds: float) -> Lease | None:
        """See Leases.acquire_lease."""
        return self._leases.acquire_lease(name, holder, seconds=seconds)

    def release_lease(self, lease: Lease) -> bool:
        """See Leases.release_lease."""
        return self._leases.release_lease(lease)

    def lease_holder(self, name: str) -> Lease | None:
        """See Leases.lease_holder."""
        return self._leases.lease_holder(name)
