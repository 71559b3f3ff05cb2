"""Open the store ``postgresql``; imported only when it is used, since it needs an extra."""

from __future__ import annotations

from typing import Any

from backends.sql.postgresql.archive import PostgresRetirement
from backends.sql.postgresql.engine import PostgresEngine
from backends.sql.postgresql_sql import FRAGMENTS, STATEMENTS
from backends.sql.store import SqlStore
from registry_api.plugins import OpenContext
from registry_api.store import Capability, RegistryStore
from registry_api.workspace import STATE_DIR

__all__ = ["open_postgresql"]


class PostgresStore(SqlStore):
    """A registry in PostgreSQL, with the leases that all its hosts share."""

    def __init__(self, engine: PostgresEngine, **options: Any) -> None:
        super().__init__(engine, **options)
        self.leases = engine.leases()


def open_postgresql(context: OpenContext) -> RegistryStore:
    """Open the database that ``context.location`` names, the part of the URL after ``://``."""
    settings = context.settings
    engine = PostgresEngine(
        f"postgresql://{context.location}",
        timeout=settings.lock_timeout,
        durable=settings.durable,
        read_only=context.read_only,
        create=not context.removed,
    )
    return PostgresStore(
        engine,
        name="postgresql",
        retirement=PostgresRetirement(
            engine, context.workspace / STATE_DIR / "archive", context.now
        ),
        statements={**STATEMENTS, **engine.statements},
        fragments=FRAGMENTS,
        now=context.now,
        durable=settings.durable,
        read_only=context.read_only,
        capabilities=frozenset({Capability.MULTI_HOST, Capability.LEASES}),
    )
