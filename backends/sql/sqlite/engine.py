"""The SQLite engine: connections, transactions, durability, upgrades.

All SQL that only SQLite understands is here. This process opens the database file in no other way:
closing any descriptor of it would drop SQLite's own locks on it.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from backends.sql.sqlite.write_ahead_log import has_frames
from backends.sql.sqlite.writer_queue import WriterQueue
from backends.sql.sqlite_sql import DDL
from backends.sql.write_transaction import Feed
from registry_api.errors import (
    Busy,
    CorruptDocument,
    InvalidInput,
    OutcomeUnknown,
    RegistryError,
    SchemaTooNew,
    SchemaTooOld,
    StoreClosed,
    Unavailable,
)
from registry_api.workspace import make_folder, open_owned, patience

__all__ = ["SqliteEngine"]

# The schema version that DDL creates: schema.VERSION, without importing SQLAlchemy.
VERSION = "0002"
_CHECKPOINT_FRAMES = 4000  # 16 MB; a commit writes some 13
_LOOK_EVERY = 64  # commits of an engine between two looks at the log's length
_datasync = getattr(os, "fdatasync", os.fsync)


class Connection(sqlite3.Connection):
    """A connection that knows its busy_timeout and has a descriptor of the write-ahead log.

    ``patience``: the seconds that busy_timeout was last set to; ``log``: the descriptor, -1 until
    it is needed.
    """

    patience = 1.0
    log = -1

    def close(self) -> None:
        """Close the connection and the log."""
        super().close()
        log, self.log = self.log, -1
        if log >= 0:
            os.close(log)


class SqliteEngine:
    """One SQLite file, with reading and writing transactions.

    Writers of all processes wait in the writer queue, checkpoints too: in SQLite 3.7.0 to 3.51.2 a
    checkpoint that resets the log during another connection's commit can lose that commit.
    """

    pipelined = False
    reports = False  # without a network, several statements cost little more than one
    schema = VERSION

    def __init__(
        self, path: Path, *, timeout: float, durable: bool, read_only: bool, create: bool = True
    ) -> None:
        """``create=False``: the file is neither opened nor created before ``prepare`` is called."""
        self._idle: deque[Connection] = deque()
        # The files of a store that was never closed must not stay open until the process ends. Not
        # by __del__: in a reference cycle the collector may finalize the connections first.
        weakref.finalize(self, _close_all, self._idle)
        self.path, self.location = path, str(path)
        self._timeout = timeout
        self._wal = path.with_name(path.name + "-wal")
        self._durable = durable
        self._read_only = read_only
        self._busy = set[int]()
        self._torn: bool = any(e._torn for e in _engines if e.path == path)  # noqa: SLF001  (another engine of this class)
        self._closed = False
        self._writer_queue = WriterQueue(path)
        self._commits = 0
        self._unsynced = False
        _engines.add(self)
        try:
            if create:
                self.prepare()
        except BaseException:
            self.close()
            raise

    # -- connections -------------------------------------------------------------------------

    def _connect(self) -> Connection:
        mode = "ro" if self._read_only else "rwc"
        uri = f"{self.path.absolute().as_uri()}?mode={mode}"
        if self._is_frozen():
            uri += "&immutable=1"
        try:
            connection = sqlite3.connect(
                uri,
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                timeout=Connection.patience,
                factory=Connection,
            )
            try:
                # ``_sync`` makes a commit durable, after the next writer may write.
                connection.execute("PRAGMA synchronous=NORMAL")
                connection.execute("PRAGMA wal_autocheckpoint=0")
                connection.execute("PRAGMA cache_size=-8000")
            except BaseException:
                connection.close()
                raise
        except sqlite3.Error as error:
            raise self._translated(error) from error
        return connection

    def _is_frozen(self) -> bool:
        """Return whether the file must be opened as immutable.

        That is so on a read-only disk, where the index of its log cannot be created. Checked for
        each transaction, because the file may be replaced.
        """
        if not self._read_only or self._wal.exists():
            return False
        try:
            return bool(os.statvfs(self.path).f_flag & os.ST_RDONLY)
        except OSError:
            return False

    def _borrow(self) -> Connection:
        if self._closed:
            raise StoreClosed("the store is closed", next_step="Open it again")
        if self._torn:
            raise Unavailable(
                f"this process was forked while {self.path} was in use",
                next_step="Start a new process without fork (multiprocessing: spawn or forkserver)",
            )
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connect()
        self._busy.add(id(connection))
        return connection

    def _give_back(self, connection: Connection) -> None:
        self._busy.discard(id(connection))
        if self._closed or self._is_frozen():
            connection.close()
        else:
            self._idle.append(connection)

    def _discard(self, connection: Connection) -> None:
        self._busy.discard(id(connection))
        connection.close()

    def close(self) -> None:
        """Close every connection that is not in use; the others are closed after their use."""
        self._closed = True
        self._close_idle()
        self._writer_queue.close()

    def _close_idle(self) -> None:
        _close_all(self._idle)

    def before_fork(self) -> None:
        """Close idle connections.

        SQLite keeps the locks of a file per process: a child with an inherited connection would
        believe that it holds locks that it does not hold, and lose commits.
        """
        self._close_idle()

    def after_fork_in_child(self) -> None:
        """Start from scratch; refuse every use if a connection was in use at the fork."""
        self._torn = self._torn or bool(self._busy)
        self._writer_queue.after_fork_in_child()

    # -- transactions ------------------------------------------------------------------------

    @staticmethod
    def bind(connection: Connection, statements: Mapping[str, str]) -> Callable[..., Any]:
        """Return a function that runs a named statement.

        It has one cursor: each result is read before the next statement.
        """
        run = connection.cursor().execute

        def execute(name: str, /, **parameters: Any) -> Any:
            return run(statements[name], parameters)

        return execute

    @contextmanager
    def reading(self, *, once: bool = False) -> Iterator[Connection]:
        """Give a connection whose reads all see one state."""
        connection = self._borrow()
        try:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            self._discard(connection)
            raise self._translated(error) from error
        except BaseException:
            self._give_back(connection)
            raise
        self._give_back(connection)

    @contextmanager
    def writing(
        self, *task_ids: str, alone: bool = False, slow: bool = False
    ) -> Iterator[Connection]:
        """Give a connection in a write transaction that is committed at the end or has no effect.

        Only one is open at a time, whatever it changes.
        Raises Busy if the wait in the writer queue is too long, Unavailable if nothing happened,
        and OutcomeUnknown if the commit itself failed half-way.
        """
        connection = self._borrow()
        deadline = time.monotonic() + patience(self._timeout)
        try:
            self._writer_queue.take(deadline)
            try:
                self._begin(connection, deadline)
                try:
                    yield connection
                except BaseException:
                    self._roll_back(connection)
                    raise
                self._commit(connection)
                self._checkpoint(connection)
            finally:
                self._writer_queue.end()
            self._sync(connection)
        except sqlite3.Error as error:
            # On a full disk no new connection could be opened, not even for reading.
            if _name(error) == "SQLITE_FULL" and not connection.in_transaction:
                self._give_back(connection)
            else:
                self._discard(connection)
            raise self._translated(error) from error
        except OutcomeUnknown:
            self._discard(connection)
            raise
        except BaseException:
            self._give_back(connection)
            raise
        self._give_back(connection)

    @contextmanager
    def alone(self) -> Iterator[Connection]:
        """Give a connection without a transaction while no other process of ours writes."""
        connection = self._borrow()
        try:
            with self._writer_queue.taken(patience(self._timeout)):
                yield connection
        except sqlite3.Error as error:
            raise self._translated(error) from error
        finally:
            self._discard(connection)

    def write_something(self, execute: object) -> None:
        """Do nothing: every transaction is synced."""

    def report(self, task_id: str, values: Mapping[str, Any]) -> None:
        """Do nothing."""

    def next_number(self, execute: object, feed: Feed) -> int | None:
        """Return the next number of the feed: nobody else writes."""
        return feed.last + 1

    def open_writers(self) -> frozenset[str]:
        """Return nothing: numbers are committed in their order."""
        return frozenset()

    def counter_of(self, task_id: str) -> str:
        """Return no suffix: nobody waits for a counter."""
        return ""

    def _begin(self, connection: Connection, deadline: float) -> None:
        """Begin a write transaction; wait until the deadline for a program that does not queue.

        IMMEDIATE: a transaction that starts by reading and then writes fails if another one wrote
        in between (262,898 "database is locked" in 10 s of 8 writers; none with IMMEDIATE).
        """
        left = deadline - time.monotonic()
        if left > self._timeout * 0.9:
            left = self._timeout  # the usual case: nothing to set
        if connection.patience != left:
            connection.execute(f"PRAGMA busy_timeout={max(1, int(1000 * left))}")
            connection.patience = left
        connection.execute("BEGIN IMMEDIATE")

    @staticmethod
    def _roll_back(connection: Connection) -> None:
        if connection.in_transaction:
            connection.execute("ROLLBACK")

    def _commit(self, connection: Connection) -> None:
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

    def _sync(self, connection: Connection) -> None:
        """Make the commit durable, if the store is durable; others commit meanwhile.

        Syncing the log also syncs every earlier commit, so that an acknowledged commit never
        depends on a lost one. The log is opened separately from SQLite, which holds no locks on it,
        and stays the same file as long as the connection is open.
        """
        if not self._durable:
            return
        try:
            if self._unsynced:
                raise OSError(errno.EIO, "an earlier sync failed")
            _datasync(self._log_of(connection))
        except OSError as error:
            self._unsynced = True
            raise OutcomeUnknown(
                f"{self._wal} cannot be synced: {error.strerror}; the commit may not be durable",
                next_step="Commit the same changeset again when the disk works again",
            ) from error

    def _log_of(self, connection: Connection) -> int:
        if connection.log < 0:
            connection.log = os.open(self._wal, os.O_RDWR | os.O_CLOEXEC)
        return connection.log

    def _checkpoint(self, connection: Connection) -> None:
        """Copy the log into the database if it is long, before the next writer may write.

        Its length is looked at after an engine's first commit, so that short-lived processes do
        their share, and then every ``_LOOK_EVERY`` commits: while somebody reads, a log that was
        copied cannot begin again, and would be copied after each commit. After a failed sync all of
        it is copied: syncing the log again would prove nothing, because its pages may count as
        written.
        """
        self._commits += 1
        try:
            if self._unsynced:
                busy, log, done = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                self._unsynced = bool(busy) or log != done
            if self._commits % _LOOK_EVERY != 1:
                return
            if has_frames(self._log_of(connection), _CHECKPOINT_FRAMES):
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except (OSError, sqlite3.Error):
            # The commit is done; the next one tries the checkpoint again.
            return

    # -- the file ----------------------------------------------------------------------------

    def prepare(self) -> None:
        """Create an empty database, upgrade an older one, refuse a newer one."""
        if self.path.exists() and not self.path.is_file():  # e.g. a device, whose mode we would set
            raise Unavailable(
                f"{self.path} is not a file", next_step="Name a file, or a path without one"
            )
        try:
            if not self._read_only:
                make_folder(self.path.parent, mode=0o700, parents=True)
                if os.geteuid() == 0 and not self.path.exists():
                    with suppress(FileExistsError):  # SQLite gives its other files this owner
                        os.close(open_owned(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL))
        except OSError as error:
            raise Unavailable(
                f"{self.path} cannot be opened: {error.strerror}", next_step="Check the folder"
            ) from error
        if self._read_only and not self.path.exists():
            raise Unavailable(
                f"there is no registry in {self.path} yet",
                next_step="Name another workspace, or create one: a program's open_store() does",
            )
        version = self._version()
        if version == VERSION:
            if not self._read_only:
                self._use_wal()
            return
        if version is not None and version > VERSION:
            raise SchemaTooNew(
                f"{self.path} has schema {version}, this version knows {VERSION}",
                next_step="Install the version that wrote it, or a later one",
            )
        if self._read_only and version is not None:
            raise SchemaTooOld(
                f"{self.path} has schema {version}, this version needs {VERSION}",
                next_step="registry-backend schema upgrade",
            )
        if self._read_only:
            raise Unavailable(f"{self.path} holds no registry yet", next_step="Open it for writing")
        with self._writer_queue.taken(self._timeout):
            if self._version() is None:
                self._create()
            elif self._version() != VERSION:
                self._upgrade()
        self._use_wal()

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
        """Create the tables from DDL: as all migrations do, without importing Alembic (0.7 s)."""
        connection = self._borrow()
        try:
            connection.execute("BEGIN EXCLUSIVE")
            for statement in DDL:
                connection.execute(statement)
            connection.execute(
                "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
                "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
            )
            # By path: the file must not be opened here. Done now: the log gets its mode from it.
            self.path.chmod(0o600)
            connection.execute("INSERT INTO alembic_version VALUES (?)", (VERSION,))
            feed_id = str(uuid.uuid4())
            connection.execute("INSERT INTO meta VALUES ('feed_id', ?)", (feed_id,))
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._discard(connection)
            raise self._translated(error) from error
        self._give_back(connection)

    def _use_wal(self) -> None:
        """Switch the file to a write-ahead log, also after a creation that was killed before."""
        connection = self._borrow()
        try:
            if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                with self._writer_queue.taken(self._timeout):
                    connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.Error as error:
            self._discard(connection)
            raise self._translated(error) from error
        self._give_back(connection)

    def _upgrade(self) -> None:
        from backends.sql.upgrade import upgrade  # noqa: PLC0415  (Alembic costs 0.7 s)

        self._close_idle()
        upgrade(self.path)

    def _translated(self, error: sqlite3.Error) -> RegistryError:
        name = _name(error)
        if name in {"SQLITE_BUSY", "SQLITE_LOCKED"}:
            return Busy(f"{self.path} is locked by another program", next_step="Try again")
        if name in {"SQLITE_NOTADB", "SQLITE_CORRUPT"}:
            return CorruptDocument(
                f"{self.path}: {error}",
                next_step="Restore it from a backup; the file was not changed",
            )
        if name == "SQLITE_CONSTRAINT":
            return InvalidInput(f"{self.path}: {error}", next_step="Use each id only once")
        if name == "SQLITE_FULL":
            return Unavailable(
                f"{self.path}: the disk is full", next_step="Free disk space, then try again"
            )
        if name in {"SQLITE_READONLY", "SQLITE_CANTOPEN"}:
            return Unavailable(
                f"{self.path}: {error}",
                next_step="Let this user write to the file and its folder: reading needs that too",
            )
        return Unavailable(f"{self.path}: {error}", next_step="Check the file and its folder")


def _close_all(connections: deque[Connection]) -> None:
    while connections:
        connections.pop().close()


def _name(error: sqlite3.Error) -> str:
    # Extended codes refine a primary one: SQLITE_BUSY_SNAPSHOT is SQLITE_BUSY.
    name = getattr(error, "sqlite_errorname", "")
    return "_".join(str(name).split("_")[:2])


_engines: weakref.WeakSet[SqliteEngine] = weakref.WeakSet()


def _before_fork() -> None:
    for engine in list(_engines):
        engine.before_fork()


def _after_fork_in_child() -> None:
    for engine in list(_engines):
        engine.after_fork_in_child()


os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
