"""Open the store ``postgresql``; imported only when it is used, since it needs an extra."""

from __future__ import annotations

from backends.sql.postgresql.engine import PostgresEngine
from backends.sql.postgresql.store import PostgresStore
from registry_api.plugins import OpenContext
from registry_api.store import RegistryStore
from registry_api.workspace import STATE_DIR

__all__ = ["open_postgresql"]


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
        archives=context.workspace / STATE_DIR / "archive",
        now=context.now,
        durable=settings.durable,
        read_only=context.read_only,
    )
