"""The leases of a registry in PostgreSQL: one row each, by the clock of the server."""

from __future__ import annotations

from typing import Any

import psycopg

from backends.sql.postgresql.failures import failed_commit, refuse_local_commit
from backends.sql.postgresql.pool import ConnectionPool
from registry_api.errors import ReadOnly
from registry_api.leases import Lease, check_lease, check_name
from registry_api.workspace import patience

__all__ = ["PostgresLeases"]

_AGAIN = "Ask for the lease again: its holder keeps the token"
_NOW = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"

_ACQUIRE = f"""
INSERT INTO leases AS known (name, holder, token, expires)
VALUES (%(name)s, %(holder)s, 1, {_NOW} + %(ms)s)
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires = excluded.expires,
  token = known.token + CASE WHEN known.expires > {_NOW} THEN 0 ELSE 1 END
WHERE known.holder = excluded.holder OR known.expires <= {_NOW}
RETURNING token
""".encode()  # noqa: S608  (parts of this module)
_RELEASE = f"""
UPDATE leases SET holder = '', expires = 0
WHERE name = %(name)s AND holder = %(holder)s AND token = %(token)s AND expires > {_NOW}
RETURNING token
""".encode()  # noqa: S608  (parts of this module)
_HOLDER = f"""
SELECT holder, token, expires - {_NOW} FROM leases WHERE name = %(name)s AND expires > {_NOW}
""".encode()  # noqa: S608  (parts of this module)


class PostgresLeases:
    """The leases of one database, which all hosts that use it share.

    ``timeout``: seconds that a call waits for another one.
    """

    def __init__(
        self, pool: ConnectionPool, location: str, *, timeout: float, read_only: bool
    ) -> None:
        self._pool = pool
        self._location = location
        self._timeout = timeout
        self._read_only = read_only

    def acquire_lease(self, name: str, holder: str, *, seconds: float) -> Lease | None:
        """See Leases.acquire_lease."""
        check_lease(name, holder, seconds)
        row = self._change(_ACQUIRE, name=name, holder=holder, ms=max(1, int(1000 * seconds)))
        if row is None:
            return None
        return Lease(name=name, holder=holder, token=row[0], seconds=seconds)

    def release_lease(self, lease: Lease) -> bool:
        """See Leases.release_lease."""
        check_name(lease.name)
        values = {"name": lease.name, "holder": lease.holder, "token": lease.token}
        return self._change(_RELEASE, **values) is not None

    def lease_holder(self, name: str) -> Lease | None:
        """See Leases.lease_holder."""
        check_name(name)
        with self._pool.lent() as connection:
            row = connection.execute(_HOLDER, {"name": name}).fetchone()
        if row is None:
            return None
        return Lease(name=name, holder=row[0], token=row[1], seconds=row[2] / 1000)

    def _change(self, statement: bytes, **values: Any) -> tuple[Any, ...] | None:
        """Run a statement that is committed at once; OutcomeUnknown if its answer is lost."""
        if self._read_only:
            raise ReadOnly(
                "the store was opened for reading only", next_step="Open it without read_only"
            )
        with self._pool.lent() as connection:
            connection.wait_for_locks(patience(self._timeout))
            connection.warnings.clear()
            try:
                row = connection.execute(statement, values).fetchone()
            except psycopg.Error as error:
                raise failed_commit(error, self._location, next_step=_AGAIN) from error
            refuse_local_commit(connection.warnings, self._location, next_step=_AGAIN)
            return row
