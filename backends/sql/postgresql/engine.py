"""The PostgreSQL engine: connections, transactions, locks, the order of the feed, the schema.

A transaction that writes holds two advisory locks from its first statement to its end: the one of
its task exclusively, so that the commits of a task are one after the other and tasks do not wait
for each other; and the one of the registry's writers, shared. The latter is what others wait for:

- a fence (``writing(alone=True)``) takes it exclusively: when it is committed, no transaction that
  has read the old role is still open;
- a reader of the feed that meets a gap in the numbers waits until all who held it have ended: a
  number is taken from a sequence by a holder, so after that the gap stays a gap.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
import weakref
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

from backends.sql.postgresql.connection import Connection, connect, connection_parameters
from backends.sql.postgresql.failures import failed, failed_commit, is_lost
from backends.sql.postgresql_sql import DDL
from registry_api.errors import (
    Busy,
    NotPermitted,
    OutcomeUnknown,
    SchemaTooNew,
    StoreClosed,
    Unavailable,
)
from registry_api.workspace.lock_timeout import answer_within, give_way, patience
from registry_api.workspace.store_location import public

__all__ = ["PostgresEngine"]

# The schema version that DDL creates: schema.VERSION, without importing SQLAlchemy.
VERSION = "0001"
_CONNECTIONS = 20  # of one store at the same time
_SHARDS = 32  # rows that share a counter, so that tasks rarely wait for each other there
_SLICE = 1.0  # seconds in a lock's queue between two checks whether a switch wants the gate
_WRITERS, _NUMBERS = 0, -1  # keys of locks; those of tasks are positive
_SCHEMA_LOCK = 7_220_158_446  # while the schema is created or upgraded

_VERSION = "SELECT version_num FROM alembic_version"
_TABLES = "SELECT to_regclass('alembic_version')::oid::bigint, to_regclass('meta')::oid::bigint"
_HOLDERS = """
SELECT virtualtransaction FROM pg_locks
WHERE locktype = 'advisory' AND classid = %(registry)s AND objid = 0 AND objsubid = 2
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class PostgresEngine:
    """One database, with reading and writing transactions; shared by threads."""

    statements = {  # noqa: RUF012  (constant)
        "next_number": "SELECT nextval('feed_number')",
        "lock_numbers": f"SELECT pg_advisory_xact_lock(%(registry)s::int, {_NUMBERS})",
        "raise_number": "SELECT setval('feed_number', GREATEST(last_value, %(number)s)) "
        "FROM feed_number",
    }

    def __init__(
        self, url: str, *, timeout: float, durable: bool, read_only: bool, create: bool = True
    ) -> None:
        """``create=False``: nothing is opened or created before ``prepare`` is called."""
        self.location = public(url)
        self._parameters = connection_parameters(url, read_only=read_only)
        self._timeout, self._durable, self._read_only = timeout, durable, read_only
        self._idle: deque[Connection] = deque()
        weakref.finalize(self, _close_all, self._idle)
        self._free = threading.BoundedSemaphore(_CONNECTIONS)
        self._closed = False
        self._registry = 0  # the class of its advisory locks: the id of the table ``meta``
        _engines.add(self)
        if create:
            self.prepare()

    # -- connections -------------------------------------------------------------------------

    @contextmanager
    def _using(self) -> Iterator[Connection]:
        """Lend a connection; discard it if it is lost, and translate errors."""
        if self._closed:
            raise StoreClosed("the store is closed", next_step="Open it again")
        free = self._free
        if not free.acquire(timeout=patience(self._timeout)):
            raise Busy(
                f"{self.location}: all {_CONNECTIONS} connections of this store are in use",
                next_step="Try again, or use fewer threads",
            )
        try:
            connection = self._pop() or self._connect()
            connection.answer_within(answer_within())
            try:
                yield connection
            except psycopg.Error as error:
                connection.close()
                raise failed(error, self.location) from error
            except BaseException:
                self._give_back(connection)
                raise
            self._give_back(connection)
        finally:
            free.release()

    def _pop(self) -> Connection | None:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if connection.pid == os.getpid() and not connection.closed:
                return connection

    def _connect(self) -> Connection:
        parameters, within = self._parameters, answer_within()
        if within is not None:
            parameters = {**parameters, "connect_timeout": max(2, int(within))}  # libpq's least
        try:
            return connect(parameters, durable=self._durable)
        except psycopg.Error as error:
            raise failed(error, self.location) from error

    def _give_back(self, connection: Connection) -> None:
        idle = connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        if self._closed or not idle:
            connection.close()
        else:
            self._idle.append(connection)

    def _begun(self, connection: Connection, command: str) -> Connection:
        """Begin a transaction, on another connection if this one was lost while it was idle."""
        try:
            connection.execute(command.encode(), prepare=False)
        except psycopg.Error as error:
            if not is_lost(error):
                raise
            connection.close()
            _close_all(self._idle)  # they were lost at the same moment
            connection = self._connect()
            connection.answer_within(answer_within())
            connection.execute(command.encode(), prepare=False)
        return connection

    def close(self) -> None:
        """Close every connection that is not in use; the others are closed after their use."""
        self._closed = True
        _close_all(self._idle)

    def after_fork_in_child(self) -> None:
        """Leave the parent's connections alone: two processes cannot share one."""
        for connection in self._idle:
            with suppress(OSError, psycopg.Error):
                os.close(connection.fileno())  # only the descriptor: the server is not told
        _of_parents.extend(self._idle)
        self._idle.clear()
        self._free = threading.BoundedSemaphore(_CONNECTIONS)

    # -- transactions ------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection whose reads all see one state."""
        with self._lent("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") as connection:
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def _lent(self, command: str) -> Iterator[Connection]:
        """Lend a connection in a transaction, which is rolled back if the block fails."""
        with self._using() as lent:
            connection = self._begun(lent, command)
            try:
                yield connection
            except psycopg.Error:
                raise
            except BaseException:
                with suppress(psycopg.Error):
                    connection.execute("ROLLBACK")
                raise
            finally:
                if connection is not lent:
                    self._give_back(connection)

    @contextmanager
    def writing(self, *task_ids: str, alone: bool = False) -> Iterator[Connection]:
        """Give a connection in a transaction that is committed at the end or has no effect.

        It holds the locks of ``task_ids``; ``alone``: no other transaction that writes is open.
        Raises Busy if it waits too long for a lock, Unavailable if nothing happened, and
        OutcomeUnknown if the answer to the commit was lost.
        """
        deadline = time.monotonic() + patience(self._timeout)
        while True:
            left = max(0.001, deadline - time.monotonic())
            with self._using() as lent:
                try:
                    connection = self._begun(lent, self._locking(task_ids, alone, left))
                except psycopg.errors.LockNotAvailable:
                    lent.execute("ROLLBACK")
                    if time.monotonic() < deadline:
                        give_way(Path(self.location))
                        continue
                    raise
                try:
                    yield connection
                except psycopg.Error:
                    raise
                except BaseException:
                    with suppress(psycopg.Error):
                        connection.execute("ROLLBACK")
                    raise
                else:
                    self._commit(connection)
                finally:
                    if connection is not lent:
                        self._give_back(connection)
            return

    def _locking(self, task_ids: tuple[str, ...], alone: bool, left: float) -> str:
        """Return the commands that begin a transaction with its locks: one round trip.

        Each statement of READ COMMITTED sees what was committed before it began: the first one
        behind these, whatever the wait for the locks was.
        """
        shared = "" if alone else "_shared"
        keys = sorted({_key_of(task_id) for task_id in task_ids})
        locks = [f"pg_advisory_xact_lock{shared}({self._registry}, {_WRITERS})"]
        locks += [f"pg_advisory_xact_lock({self._registry}, {key})" for key in keys]
        return (
            f"BEGIN; SET LOCAL lock_timeout = {max(1, int(1000 * min(left, _SLICE)))}; "
            + "; ".join(f"SELECT {lock}" for lock in locks)
            + "; SET LOCAL lock_timeout = DEFAULT"
        )

    def _commit(self, connection: Connection) -> None:
        notices = list[str]()

        def keep(notice: psycopg.errors.Diagnostic) -> None:
            notices.append(notice.message_primary or "")

        connection.add_notice_handler(keep)
        try:
            status = connection.execute("COMMIT").statusmessage
        except psycopg.Error as error:
            connection.close()
            raise failed_commit(error, self.location) from error
        finally:
            connection.remove_notice_handler(keep)
        if status != "COMMIT":
            raise Unavailable(
                f"{self.location}: the server rolled the transaction back", next_step="Try again"
            )
        # The wait for a synchronous standby was cancelled: the commit may be lost in a failover.
        if any("synchronous replication" in notice for notice in notices):
            raise OutcomeUnknown(
                f"{self.location}: {notices[0]}",
                next_step="Commit the same changeset again when the standby answers",
            )

    # -- the feed and the counters -----------------------------------------------------------

    def next_number(self, execute: Callable[..., Any], last: int) -> int:
        """Return the next number of the feed, above ``last``, the highest that is in use.

        The sequence is behind where a move has written the numbers of another store.
        """
        number: int = execute("next_number").fetchone()[0]
        if number <= last:
            execute("lock_numbers", registry=self._registry)
            execute("raise_number", number=last)
            number = execute("next_number").fetchone()[0]
        return number

    def open_writers(self) -> frozenset[str]:
        """Return what identifies each open transaction that may have taken a number of the feed."""
        with self._using() as connection:
            rows = connection.execute(_HOLDERS, {"registry": self._registry % 2**32}).fetchall()
        return frozenset(row[0] for row in rows)

    @staticmethod
    def counter_of(task_id: str) -> str:
        """Return the suffix of the counters that a task's commits change."""
        return f"/{_key_of(task_id) % _SHARDS}"

    # -- the schema --------------------------------------------------------------------------

    def prepare(self) -> None:
        """Create the tables in an empty database, upgrade older ones, refuse newer ones."""
        version = self._version()
        if version == VERSION:
            return
        if version is not None and version > VERSION:
            raise SchemaTooNew(
                f"{self.location} has schema {version}, this version knows {VERSION}",
                next_step="Install the version that wrote it, or a later one",
            )
        if self._read_only:
            raise Unavailable(
                f"{self.location} holds no registry yet", next_step="Open it for writing"
            )
        with self._alone_in_schema() as connection:
            now = self._version_by(connection)
            if now is None:
                _create(connection)
            elif now < VERSION:
                self._upgrade(connection)
        self._version()

    def _version(self) -> str | None:
        with self._using() as connection:
            return self._version_by(connection)

    def _version_by(self, connection: Connection) -> str | None:
        known, meta = connection.execute(_TABLES).fetchone() or (None, None)
        if known is None:
            return None
        self._registry = _signed(meta or 0)
        row = connection.execute(_VERSION).fetchone()
        return None if row is None else str(row[0])

    @staticmethod
    def _upgrade(connection: Connection) -> None:
        """Run the missing migrations in the transaction of a connection."""
        import sqlalchemy as sa  # noqa: PLC0415  (with Alembic it costs 0.7 s)

        from backends.sql.upgrade import upgrade_by  # noqa: PLC0415

        engine = sa.create_engine(
            "postgresql+psycopg://", creator=lambda: connection, poolclass=sa.pool.StaticPool
        )
        dialect: Any = engine.dialect  # the caller ends the transaction
        dialect.do_rollback = dialect.do_commit = dialect.do_close = lambda _: None
        with engine.connect() as lent:
            upgrade_by(lent)

    @contextmanager
    def _alone_in_schema(self) -> Iterator[Connection]:
        """Give a connection in a transaction while no other process changes the schema."""
        begin = f"BEGIN; SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})"
        with self._lent(begin) as connection:
            try:
                yield connection
            except psycopg.errors.InsufficientPrivilege as error:
                raise NotPermitted(
                    f"{self.location}: {str(error).splitlines()[0]}",
                    next_step="Open it once with a role that may create tables: it creates them",
                ) from error
            self._commit(connection)


def _create(connection: Connection) -> None:
    """Create the tables from DDL: as all migrations do, without importing Alembic."""
    for statement in DDL:
        connection.execute(statement.encode())
    connection.execute(
        b"CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
        b"CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
    )
    connection.execute("INSERT INTO alembic_version VALUES (%s)", (VERSION,))
    connection.execute("INSERT INTO meta VALUES ('feed_id', %s)", (str(uuid.uuid4()),))


def _key_of(task_id: str) -> int:
    return zlib.crc32(task_id.encode()) % (2**31 - 1) + 1


def _signed(oid: int) -> int:
    """Return an object id as the signed integer that the lock functions take."""
    return oid - 2**32 if oid >= 2**31 else oid


def _close_all(connections: deque[Connection]) -> None:
    while connections:
        connections.pop().close()


_of_parents: list[Connection] = []  # kept in a fork child: psycopg warns of those it collects
_engines: weakref.WeakSet[PostgresEngine] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for engine in list(_engines):
        engine.after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
