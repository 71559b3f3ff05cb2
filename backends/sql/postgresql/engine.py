"""The PostgreSQL engine: transactions, their locks, and the order of the feed.

A transaction that writes holds two advisory locks from its first statement to its end: the one of
its task exclusively, so that the commits of a task are one after the other and tasks do not wait
for each other; and the one of the registry's writers, shared. The latter is what others wait for:

- a fence (``writing(alone=True)``) takes it exclusively: when it is committed, no transaction that
  has read the old role is still open. It asks in rounds: while it waits in the server's queue, no
  other transaction that writes begins, on any host;
- a reader of the feed that meets a gap in the numbers waits until all who held it have ended: a
  number is taken from a sequence by a holder, so after that the gap stays a gap.

Statements are sent in a pipeline: they wait for an answer only where it is read. So ``BEGIN``, the
locks and the first reading are one round trip, and what a commit only writes is sent with COMMIT.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psycopg

from backends.sql.postgresql.connection import Connection
from backends.sql.postgresql.failures import failed_commit, refuse_local_commit
from backends.sql.postgresql.leases import PostgresLeases
from backends.sql.postgresql.pool import ConnectionPool
from backends.sql.postgresql.report_function import CALL, NOT_DONE
from backends.sql.postgresql.tables import VERSION, create_or_upgrade
from backends.sql.write_transaction import Feed
from registry_api.errors import Busy, NotSupported, Unavailable
from registry_api.workspace.lock_timeout import gives_way, patience
from registry_api.workspace.store_location import public

__all__ = ["PostgresEngine"]

# psycopg reports what it ignores at the end of a pipeline; its first error is raised, and told.
logging.getLogger("psycopg").addHandler(logging.NullHandler())

_SHARDS = 32  # rows that share a counter, so that tasks rarely wait for each other there
_ROUND = 0.1  # seconds of the first round in which others wait for a transaction that is alone
_SLICE = 1.0  # seconds in a lock's queue, inside the gate, until the gate is left for a moment
_WRITERS, _NUMBERS = 0, -1  # keys of locks; those of tasks are positive

_COPYING = 3600.0  # seconds that one statement of an archive may take
_SLOWLY = "SET LOCAL idle_in_transaction_session_timeout = 600000"  # a whole task is read meanwhile
_BEGIN_READING = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_BEGIN_WRITING = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
# The class of a registry's locks: the id of its table ``meta``, so that registries in one database
# share none. Looked up each time, since a restore makes another table.
_CLASS = "'meta'::regclass::oid::int"
_HOLDERS = """
SELECT pg_is_in_recovery(), coalesce(array_agg(virtualtransaction), '{}'),
  coalesce(array_agg(pid), '{}')
FROM pg_locks WHERE locktype = 'advisory' AND classid = 'meta'::regclass::oid AND objid = 0
  AND objsubid = 2 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND granted
"""
_OLDEST = """
SELECT pid, usename, coalesce(host(client_addr), 'an unknown place'), state,
  coalesce(extract(epoch FROM clock_timestamp() - xact_start)::float, 0)
FROM pg_stat_activity WHERE pid = ANY(%s) ORDER BY xact_start NULLS LAST LIMIT 1
"""


class PostgresEngine:
    """One database, with reading and writing transactions; shared by threads."""

    pipelined = True
    schema = VERSION
    statements: Mapping[str, str] = {
        "message": "SELECT pg_logical_emit_message(true, 'registry', '')",
        "lock_numbers": f"SELECT pg_advisory_xact_lock({_CLASS}, {_NUMBERS})",
        "raise_number": "SELECT setval('feed_number', GREATEST(last_value, %(number)s)) "
        "FROM feed_number",
    }

    def __init__(
        self, url: str, *, timeout: float, durable: bool, read_only: bool, create: bool = True
    ) -> None:
        """``create=False``: nothing is opened or created before ``prepare`` is called."""
        self.location = public(url)
        self._timeout, self._read_only = timeout, read_only
        self.reports = True  # whether the server has the function that commits a report
        self._pool = ConnectionPool(
            url, self.location, timeout=timeout, durable=durable, read_only=read_only
        )
        if create:
            self.prepare()

    def prepare(self) -> None:
        """Create the tables in an empty database, upgrade older ones, refuse newer ones."""
        with self._pool.lent() as connection:
            create_or_upgrade(connection, self.location, read_only=self._read_only)

    def leases(self) -> PostgresLeases:
        """Return the leases of the database."""
        return PostgresLeases(
            self._pool, self.location, timeout=self._timeout, read_only=self._read_only
        )

    def close(self) -> None:
        """Close every connection that is not in use; the others are closed after their use."""
        self._pool.close()

    # -- transactions ------------------------------------------------------------------------

    @staticmethod
    def bind(connection: Connection, statements: Mapping[str, str]) -> Callable[..., _Result]:
        """Return a function that runs a named statement in the connection's pipeline."""

        def execute(name: str, /, **parameters: Any) -> _Result:
            return _Result(connection, connection.execute(statements[name].encode(), parameters))

        return execute

    @contextmanager
    def reading(self, *, once: bool = False) -> Iterator[Connection]:
        """Give a connection whose reads all see one state; ``once``: for a single statement."""
        with self._pool.lent() as connection:
            if once:
                yield connection
                return
            with _rolled_back(connection), connection.pipeline():
                connection.execute(_BEGIN_READING)
                yield connection
                connection.execute("COMMIT")

    @contextmanager
    def writing(
        self, *task_ids: str, alone: bool = False, slow: bool = False
    ) -> Iterator[Connection]:
        """Give a connection in a transaction that is committed at the end or has no effect.

        It holds the locks of ``task_ids``; ``alone``: no other transaction that writes is open.
        ``slow``: it may be idle for long between two statements.
        Raises Busy if it waits too long for a lock, Unavailable if nothing happened, and
        OutcomeUnknown if the answer to the commit was lost.
        """
        with self._pool.lent() as connection, _rolled_back(connection):
            commit = _Commit(connection, self.location)
            if alone:
                self._begin_alone(connection)
            with commit, connection.pipeline():
                if not alone:
                    self._begin(connection, task_ids)
                if slow:
                    connection.execute(_SLOWLY)
                yield connection
                commit.send()
            commit.check()

    @contextmanager
    def copying(self, *, write: bool) -> Iterator[Connection]:
        """Give a connection for COPY, which no pipeline takes: reads that see one state, or a
        transaction that is alone.
        """
        with self._pool.lent() as connection, _rolled_back(connection):
            commit = _Commit(connection, self.location)
            connection.answer_within(_COPYING)
            with commit:
                if write:
                    self._begin_alone(connection)
                else:
                    connection.execute(_BEGIN_READING)
                connection.execute("SET LOCAL statement_timeout = 0")
                yield connection
                commit.send()
            commit.check()

    def _begin_alone(self, connection: Connection) -> None:
        """Begin a transaction while no other one that writes is open.

        Raises Busy, naming the oldest one, if they do not end in time.
        """
        start, length, before = time.monotonic(), _ROUND, set[int]()
        while True:
            left = start + patience(self._timeout) - time.monotonic()
            connection.wait_for_locks(min(left, length))
            connection.execute(_BEGIN_WRITING)
            try:
                connection.execute(f"SELECT pg_advisory_xact_lock({_CLASS}, {_WRITERS})".encode())
                return
            except psycopg.errors.LockNotAvailable:
                connection.execute("ROLLBACK")
                holding = set(_holders(connection)[2])
                if left <= length:
                    # Those that held the lock a round ago, if any still do: the others come and go.
                    pids = holding & before or holding
                    raise self._held_up(connection, pids, time.monotonic() - start) from None
                before = holding
            time.sleep(length / 4)  # transactions that have waited begin
            length *= 2

    def _held_up(self, connection: Connection, pids: set[int], seconds: float) -> Busy:
        found = connection.execute(_OLDEST, (list(pids),)).fetchone()
        who = f"a transaction that writes did not end within {seconds:.1f} s"
        if found is not None:
            pid, role, host, state, age = found
            known = f"it is {state}, and has been open for {age:.1f} s"
            who = (
                f"the transaction of the server process {pid} (role {role}, from {host}) did not "
                f"end within {seconds:.1f} s: "
                f"{known if state else 'only its own role may see more of it'}"
            )
        return Busy(
            f"{self.location}: {who}",
            next_step="Try again; if that client has stopped, end it, or ask the server for "
            "pg_terminate_backend of that process",
        )

    def _begin(self, connection: Connection, task_ids: tuple[str, ...]) -> None:
        """Begin a transaction with its locks.

        Each statement of READ COMMITTED sees what was committed before it began: the first one
        behind these, whatever the wait for the locks was. Locks are in one order.
        """
        self._limit_lock_wait(connection)
        connection.execute(_BEGIN_WRITING)
        first = f"SELECT pg_advisory_xact_lock_shared({_CLASS}, {_WRITERS})"
        one = f"pg_advisory_xact_lock({_CLASS}, %s::int)"
        keys = sorted({_key_of(task_id) for task_id in task_ids})
        # The list of a SELECT is evaluated from the left to the right.
        text = f"{first}, {one}" if keys else first
        connection.execute(text.encode(), keys[:1] or None)
        for key in keys[1:]:
            connection.execute(f"SELECT {one}".encode(), (key,))

    def report(self, task_id: str, values: Mapping[str, Any]) -> Sequence[Any] | None:
        """Commit a report by the server's function, which takes the same locks; see Engine.report.

        Raises Busy, and OutcomeUnknown if the answer was lost.
        """
        key = _key_of(task_id)
        parameters = {**values, "lock": key, "shard": self.counter_of(task_id)}
        with self._pool.lent() as connection:
            self._limit_lock_wait(connection)
            connection.warnings.clear()
            try:
                answer = connection.execute(CALL.encode(), parameters).fetchone()
            except (psycopg.errors.UndefinedFunction, psycopg.errors.InsufficientPrivilege):
                self.reports = False
                return None
            except psycopg.errors.ReadOnlySqlTransaction:  # the other way asks for READ WRITE
                return None
            except psycopg.Error as error:
                if error.sqlstate == NOT_DONE:
                    return None
                raise failed_commit(error, self.location) from error
            refuse_local_commit(connection.warnings, self.location)
            return answer

    def _limit_lock_wait(self, connection: Connection) -> None:
        left = patience(self._timeout)
        connection.wait_for_locks(min(left, _SLICE) if gives_way() else left)

    # -- the feed and the counters -----------------------------------------------------------

    def write_something(self, execute: Callable[..., Any]) -> None:
        """Write a message to the log, which COMMIT makes durable, also on synchronous standbys."""
        execute("message")

    def next_number(self, execute: Callable[..., Any], feed: Feed) -> int | None:
        """Return None: the statement that adds a feed line draws its number from the sequence.

        The sequence is behind where a move has written the numbers of another store: it is raised
        to the highest number in use.
        """
        if feed.drawn < feed.last:
            execute("lock_numbers")
            execute("raise_number", number=feed.last)
        return None

    def open_writers(self) -> frozenset[str]:
        """Return what identifies each open transaction that may have taken a number of the feed."""
        with self._pool.lent() as connection:
            standby, holders, _ = _holders(connection)
        if standby:  # the locks of the primary are not known here
            raise NotSupported(
                f"{self.location} is a standby, which cannot tell which changes will still come",
                next_step="Read the feed from the primary, or that of one task",
            )
        return frozenset(holders)

    def counter_of(self, task_id: str) -> str:
        """Return the suffix of the counters that a task's commits change."""
        return f"/{_key_of(task_id) % _SHARDS}"


class _Result:
    """The answer to a statement in a pipeline; it is waited for where it is read."""

    __slots__ = ("_connection", "_cursor", "fetchall", "fetchone")

    def __init__(self, connection: Connection, cursor: psycopg.Cursor[tuple[Any, ...]]) -> None:
        self._connection, self._cursor = connection, cursor
        self.fetchone, self.fetchall = cursor.fetchone, cursor.fetchall

    @property
    def rowcount(self) -> int:
        """The number of rows that the statement has changed."""
        if self._cursor.pgresult is None:
            self._connection.await_answers()
        return self._cursor.rowcount


class _Commit:
    """The COMMIT of a transaction: an error after it was sent leaves its outcome unknown."""

    def __init__(self, connection: Connection, location: str) -> None:
        self._connection, self._location = connection, location
        self._sent: psycopg.Cursor[tuple[Any, ...]] | None = None

    def send(self) -> None:
        """Send it; in a pipeline it is answered at the pipeline's end."""
        self._connection.warnings.clear()
        self._sent = self._connection.execute("COMMIT")

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._sent is not None and isinstance(error, psycopg.Error):
            self._connection.close()
            raise failed_commit(error, self._location) from error

    def check(self) -> None:
        """Raise an error unless the server has committed, and everywhere it was told to."""
        status = self._sent.statusmessage if self._sent else None
        if status != "COMMIT":
            raise Unavailable(
                f"{self._location}: the server rolled the transaction back", next_step="Try again"
            )
        refuse_local_commit(self._connection.warnings, self._location)


@contextmanager
def _rolled_back(connection: Connection) -> Iterator[None]:
    """Roll the transaction back if the block fails."""
    try:
        yield
    except BaseException:
        with suppress(psycopg.Error):
            if not connection.closed:
                connection.execute("ROLLBACK")
        connection.forget_lock_timeout()  # the rollback may have undone its setting
        raise


def _holders(connection: Connection) -> tuple[bool, list[str], list[int]]:
    """Return whether the server is a standby, and the transactions that write and their pids."""
    row = connection.execute(_HOLDERS).fetchone()
    assert row is not None
    standby, transactions, pids = row
    return standby, transactions, pids


def _key_of(task_id: str) -> int:
    return zlib.crc32(task_id.encode()) % (2**31 - 1) + 1
