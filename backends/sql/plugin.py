"""The plugin: registers ``sqlite``, in the workspace or at a path, and ``postgresql``, by URL."""

from __future__ import annotations

from pathlib import Path

from backends.sql.health import check_sqlite
from backends.sql.sqlite.engine import SqliteEngine
from backends.sql.sqlite.retirement import SqliteRetirement
from backends.sql.sqlite_sql import FRAGMENTS, STATEMENTS
from backends.sql.store import SqlStore
from registry_api.errors import SettingsError
from registry_api.plugins import OpenContext, RegisterCheck, RegisterStore, hookimpl
from registry_api.store import RegistryStore
from registry_api.workspace import SQLITE_FILE, STATE_DIR, make_state_folder

__all__ = ["registry_register_stores"]


@hookimpl
def registry_register_stores(register: RegisterStore) -> None:
    """Register ``sqlite`` (``sqlite:///absolute/path`` names another file) and ``postgresql``."""
    register("sqlite", _open_sqlite)
    register("postgresql", _open_postgresql, with_server=True)


@hookimpl
def registry_register_health_checks(register: RegisterCheck) -> None:
    """Register the health check ``sqlite``."""
    register("sqlite", check_sqlite)


def _open_postgresql(context: OpenContext) -> RegistryStore:
    if not context.location:
        raise SettingsError(
            "postgresql needs a URL", next_step="postgresql://user@host/database?passfile=…"
        )
    try:
        from backends.sql.postgresql.plugin import open_postgresql  # noqa: PLC0415  (needs an extra)
    except ImportError as error:
        raise SettingsError(
            f"the store postgresql needs {error.name}",
            next_step="pip install 'registry-backend[postgres]'",
        ) from error
    return open_postgresql(context)


def _open_sqlite(context: OpenContext) -> RegistryStore:
    default = context.workspace / STATE_DIR / SQLITE_FILE
    if not context.location and not context.read_only:
        make_state_folder(context.workspace / STATE_DIR)
    path = Path(context.location) if context.location else default
    settings = context.settings
    engine = SqliteEngine(
        context.workspace / path,
        timeout=settings.lock_timeout,
        durable=settings.durable,
        read_only=context.read_only,
        create=not context.removed,
    )
    return SqlStore(
        engine,
        name="sqlite",
        retirement=SqliteRetirement(engine, context.workspace / STATE_DIR / "archive", context.now),
        statements=STATEMENTS,
        fragments=FRAGMENTS,
        now=context.now,
        durable=settings.durable,
        read_only=context.read_only,
    )
