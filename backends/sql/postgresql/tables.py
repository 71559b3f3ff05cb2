"""Create and upgrade the tables of a registry in a PostgreSQL database."""

from __future__ import annotations

import time
import uuid
from contextlib import suppress
from typing import Any

import psycopg

from backends.sql.postgresql import report_function
from backends.sql.postgresql.connection import Connection
from backends.sql.postgresql_sql import DDL
from registry_api.errors import Busy, NotPermitted, SchemaTooNew, SchemaTooOld, Unavailable

__all__ = ["VERSION", "create_or_upgrade", "upgrade"]

# The schema version that DDL creates: schema.VERSION, without importing SQLAlchemy.
VERSION = "0002"

_ATTEMPTS = 20
_BRIEFLY = 250  # ms for which an upgrade waits for a table: meanwhile others wait behind it
_THERE_ALREADY = (
    psycopg.errors.DuplicateTable,
    psycopg.errors.DuplicateObject,
    psycopg.errors.UniqueViolation,
)
_LOCK = 7_220_158_446  # the advisory lock of the database while tables are created or upgraded


def find_version(connection: Connection) -> str | None:
    """Return the version of the tables, None if there are none."""
    row = connection.execute("SELECT to_regclass('alembic_version')").fetchone()
    if row is None or row[0] is None:
        return None
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])


def create_or_upgrade(connection: Connection, location: str, *, read_only: bool) -> None:
    """Create the tables in an empty database, upgrade older ones.

    Raises SchemaTooNew; with ``read_only`` SchemaTooOld, or Unavailable if there are none; Busy if
    a table or the lock of upgrades stays taken; NotPermitted.
    """
    version = find_version(connection)
    if version == VERSION:
        return
    if version is not None and version > VERSION:
        raise SchemaTooNew(
            f"{location} has schema {version}, this version knows {VERSION}",
            next_step="Install the version that wrote it, or a later one",
        )
    if read_only and version is not None:
        raise SchemaTooOld(
            f"{location} has schema {version}, this version needs {VERSION}",
            next_step="registry-backend schema upgrade",
        )
    if read_only:
        raise Unavailable(f"{location} holds no registry yet", next_step="Open it for writing")
    for attempt in range(_ATTEMPTS):
        try:
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
                now = find_version(connection)  # another process may have been first
                if now is None:
                    _create(connection)
                elif now < VERSION:
                    connection.execute(f"SET LOCAL lock_timeout = {_BRIEFLY}".encode())
                    upgrade(connection)
            break
        except psycopg.errors.LockNotAvailable as error:
            if attempt == _ATTEMPTS - 1:
                raise Busy(
                    f"{location}: a transaction holds a table, or another upgrade is under way",
                    next_step="registry-backend schema upgrade, when that transaction has ended",
                ) from error
            time.sleep(_BRIEFLY / 1000)  # those that had to wait go first
        except _THERE_ALREADY:
            # The wait for the lock did not let the session notice the tables of another one.
            if attempt == _ATTEMPTS - 1:
                raise
        except psycopg.errors.InsufficientPrivilege as error:
            raise NotPermitted(
                f"{location}: {str(error).splitlines()[0]}",
                next_step="registry-backend schema upgrade, with the tables' owner in the URL",
            ) from error


def _create(connection: Connection) -> None:
    """Create the tables from DDL: as all migrations do, without importing Alembic."""
    for statement in DDL:
        connection.execute(statement.encode())
    connection.execute(
        b"CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
        b"CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
    )
    _create_function(connection)
    connection.execute("INSERT INTO alembic_version VALUES (%s)", (VERSION,))
    connection.execute("INSERT INTO meta VALUES ('feed_id', %s)", (str(uuid.uuid4()),))


def _create_function(connection: Connection) -> None:
    """Create the function for reports, and drop those of earlier versions.

    Without PL/pgSQL there is none: reports are committed as any other changeset.
    """
    for name in report_function.EARLIER:
        connection.execute(f"DROP FUNCTION IF EXISTS {name}".encode())
    with (
        suppress(psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedObject),
        connection.transaction(),
    ):
        connection.execute(report_function.CREATE.encode())


def upgrade(connection: Connection) -> None:
    """Run the missing migrations in the transaction of a connection."""
    import sqlalchemy as sa  # noqa: PLC0415  (with Alembic it costs 0.7 s)

    from backends.sql.upgrade import upgrade_by  # noqa: PLC0415  (imports Alembic)

    engine = sa.create_engine(
        "postgresql+psycopg://", creator=lambda: connection, poolclass=sa.pool.StaticPool
    )
    dialect: Any = engine.dialect  # the caller ends the transaction
    dialect.do_rollback = dialect.do_commit = dialect.do_close = lambda _: None
    try:
        with engine.connect() as lent:
            upgrade_by(lent)
    except sa.exc.DBAPIError as error:  # as psycopg raised it
        raise error.orig or error from None
    _create_function(connection)
