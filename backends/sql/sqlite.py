"""The SQLite engine: connections, transactions, the queue of writers, upgrades.

The only place with SQL that SQLite alone understands. The database file is never opened by other
means in this process: closing any descriptor of it would drop SQLite's own locks on it.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backends.sql.sqlite_sql import DDL
from registry_api.deadline import patience
from registry_api.errors import (
    Busy,
    CorruptDocument,
    OutcomeUnknown,
    RegistryError,
    SchemaTooNew,
    StoreClosed,
    Unavailable,
)
from registry_api.flock import Flock

__all__ = ["SqliteEngine"]

# The schema version that DDL makes; schema.VERSION, repeated to keep SQLAlchemy unimported.
VERSION = "0001"
_CHECKPOINT_PAGES = 1000


class SqliteEngine:
    """Opens one SQLite file; hands out reading and writing transactions.

    Writers of all processes queue on two locks: who holds the first waits for the second, so that
    the order is kept and nobody starves (worst wait of 8 writers 2.0 s without, 66 ms with).
    Checkpoints run inside that queue too: in SQLite 3.7.0 to 3.51.2 a checkpoint that resets the
    log beside another connection's commit can lose it.
    """

    def __init__(self, path: Path, *, timeout: float, durable: bool, read_only: bool) -> None:
        self.path = path
        self._timeout = timeout
        self._durable = durable
        self._read_only = read_only
        self._pid = os.getpid()
        self._idle: deque[sqlite3.Connection] = deque()
        self._inherited: list[sqlite3.Connection] = []
        self._closed = False
        self._thread = threading.Lock()
        self._queue = Flock(path.with_name(path.name + ".queue"))
        self._turn = Flock(path.with_name(path.name + ".turn"))
        self._commits = 0
        self._prepare()

    # -- connections -------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        mode = "ro" if self._read_only else "rwc"
        uri = f"{self.path.absolute().as_uri()}?mode={mode}"
        try:
            connection = sqlite3.connect(
                uri, uri=True, isolation_level=None, check_same_thread=False, timeout=1.0
            )
            connection.execute("PRAGMA busy_timeout=1000")
            connection.execute(f"PRAGMA synchronous={'FULL' if self._durable else 'NORMAL'}")
            connection.execute("PRAGMA wal_autocheckpoint=0")
            connection.execute("PRAGMA cache_size=-8000")
        except sqlite3.Error as error:
            raise self._translated(error) from error
        return connection

    def _borrow(self) -> sqlite3.Connection:
        if self._closed:
            raise StoreClosed("the store is closed", next_step="Open it again")
        if self._pid != os.getpid():
            # A connection may not cross a fork, nor be closed by the child: set aside for good.
            self._inherited += self._idle
            self._idle = deque()
            self._thread = threading.Lock()
            self._pid = os.getpid()
        try:
            return self._idle.pop()
        except IndexError:
            return self._connect()

    def _give_back(self, connection: sqlite3.Connection) -> None:
        if self._closed:
            connection.close()
        else:
            self._idle.append(connection)

    def close(self) -> None:
        """Close every connection that is not in use; those in use follow."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()
        self._queue.close()
        self._turn.close()

    # -- transactions ------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give a connection whose reads all see one state."""
        connection = self._borrow()
        try:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            connection.close()
            raise self._translated(error) from error
        except BaseException:
            self._give_back(connection)
            raise
        self._give_back(connection)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Give a connection inside a write transaction: committed at the end, or nothing happened.

        Raises Busy when the turn does not come in time, Unavailable when nothing happened, and
        OutcomeUnknown when the commit itself failed half-way.
        """
        connection = self._borrow()
        deadline = time.monotonic() + patience(self._timeout)
        try:
            with self._in_turn(deadline):
                self._begin(connection, deadline)
                try:
                    yield connection
                except BaseException:
                    self._roll_back(connection)
                    raise
                self._commit(connection)
                self._checkpoint(connection)
        except sqlite3.Error as error:
            connection.close()
            raise self._translated(error) from error
        except OutcomeUnknown:
            connection.close()
            raise
        except BaseException:
            self._give_back(connection)
            raise
        self._give_back(connection)

    @contextmanager
    def _in_turn(self, deadline: float) -> Iterator[None]:
        def left() -> float:
            return max(0.0, deadline - time.monotonic())

        if not self._thread.acquire(timeout=left()):
            raise Busy(f"another thread writes to {self.path}", next_step="Try again")
        try:
            with self._queue.exclusive(left()):
                self._turn.acquire(timeout=left())
            try:
                yield
            finally:
                self._turn.release()
        finally:
            self._thread.release()

    def _begin(self, connection: sqlite3.Connection, deadline: float) -> None:
        """Begin at once; a program that writes without our queue is waited for until the deadline.

        IMMEDIATE: a transaction that begins by reading and then writes fails where another wrote
        in between (262,898 "database is locked" in 10 s of 8 writers; none with IMMEDIATE).
        """
        left = max(1, int(1000 * (deadline - time.monotonic())))
        connection.execute(f"PRAGMA busy_timeout={left}")
        connection.execute("BEGIN IMMEDIATE")

    @staticmethod
    def _roll_back(connection: sqlite3.Connection) -> None:
        if connection.in_transaction:
            connection.execute("ROLLBACK")

    def _commit(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if _name(error) in {"SQLITE_BUSY", "SQLITE_FULL"}:
                self._roll_back(connection)
                raise
            raise OutcomeUnknown(
                f"{self.path}: the commit failed half-way ({error})",
                next_step="Commit the same changeset again: a replay is recognised",
            ) from error

    def _checkpoint(self, connection: sqlite3.Connection) -> None:
        self._commits += 1
        if self._commits % 64:
            return
        wal = self.path.with_name(self.path.name + "-wal")
        try:
            if wal.stat().st_size > _CHECKPOINT_PAGES * 4096:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except (OSError, sqlite3.Error):
            # The commit stands; the next one tries again.
            return

    # -- the file ----------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Make an empty database, upgrade an older one, refuse a newer one."""
        try:
            if not self._read_only:
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable(
                f"{self.path} cannot be opened: {error.strerror}", next_step="Check the folder"
            ) from error
        version = self._version()
        if version == VERSION:
            return
        if version is not None and version > VERSION:
            raise SchemaTooNew(
                f"{self.path} is of schema {version}, this version knows {VERSION}",
                next_step="Install the version that wrote it, or a later one",
            )
        if self._read_only:
            raise Unavailable(f"{self.path} holds no registry yet", next_step="Open it for writing")
        with self._in_turn(time.monotonic() + self._timeout):
            if self._version() is None:
                self._create()
            elif self._version() != VERSION:
                self._upgrade()

    def _version(self) -> str | None:
        connection = self._borrow()
        try:
            found = connection.execute(
                "SELECT name FROM sqlite_master WHERE name = 'alembic_version'"
            ).fetchone()
            if found is None:
                return None
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            return None if row is None else str(row[0])
        except sqlite3.Error as error:
            raise self._translated(error) from error
        finally:
            self._give_back(connection)

    def _create(self) -> None:
        """Make the tables from DDL: what all migrations make, without importing Alembic (0.7 s)."""
        connection = self._borrow()
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("BEGIN EXCLUSIVE")
            for statement in DDL:
                connection.execute(statement)
            connection.execute(
                "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
                "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
            )
            connection.execute("INSERT INTO alembic_version VALUES (?)", (VERSION,))
            feed_id = str(uuid.uuid4())
            connection.execute("INSERT INTO meta VALUES ('feed_id', ?)", (feed_id,))
            connection.execute("COMMIT")
            self.path.chmod(0o600)  # by name: opening the file here is not allowed
        except sqlite3.Error as error:
            connection.close()
            raise self._translated(error) from error
        self._give_back(connection)

    def _upgrade(self) -> None:
        from backends.sql.upgrade import upgrade  # noqa: PLC0415  (Alembic costs 0.7 s)

        while self._idle:
            self._idle.pop().close()
        upgrade(f"sqlite:///{self.path}")

    def _translated(self, error: sqlite3.Error) -> RegistryError:
        name = _name(error)
        if name in {"SQLITE_BUSY", "SQLITE_LOCKED"}:
            return Busy(f"{self.path} is locked by another program", next_step="Try again")
        if name in {"SQLITE_NOTADB", "SQLITE_CORRUPT"}:
            return CorruptDocument(
                f"{self.path}: {error}", next_step="Restore it from a backup; it is left as it is"
            )
        if name == "SQLITE_FULL":
            return Unavailable(f"{self.path}: the disk is full", next_step="Free space, try again")
        return Unavailable(f"{self.path}: {error}", next_step="Check the file and its folder")


def _name(error: sqlite3.Error) -> str:
    # Extended codes refine a primary one: SQLITE_BUSY_SNAPSHOT is SQLITE_BUSY.
    name = getattr(error, "sqlite_errorname", "")
    return "_".join(str(name).split("_")[:2])
