"""The connections of one store: lent to one thread at a time, replaced when they are lost."""

from __future__ import annotations

import os
import select
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg
from psycopg.pq import TransactionStatus

from backends.sql.postgresql.connection import Connection, connect, connection_parameters
from backends.sql.postgresql.failures import failed
from registry_api.errors import Busy, StoreClosed
from registry_api.workspace.lock_timeout import answer_within, patience

__all__ = ["ConnectionPool"]

_CONNECTIONS = 20  # of one store at the same time
_IDLE = 30.0  # seconds after which a connection that nobody needed is closed


class ConnectionPool:
    """Connections to one database; usable in a fork child, too."""

    def __init__(
        self, url: str, location: str, *, timeout: float, durable: bool, read_only: bool
    ) -> None:
        self._location = location
        self._parameters = connection_parameters(url, read_only=read_only)
        self._timeout, self._durable = timeout, durable
        self._idle: deque[Connection] = deque()
        weakref.finalize(self, _close_all, self._idle)
        self._free = threading.BoundedSemaphore(_CONNECTIONS)
        self._closed = False
        _pools.add(self)

    @contextmanager
    def lent(self) -> Iterator[Connection]:
        """Lend a connection; close it if the block fails in the database, and translate errors.

        Raises StoreClosed, Busy if all connections are in use, and what ``failed`` returns.
        """
        if self._closed:
            raise StoreClosed("the store is closed", next_step="Open it again")
        free = self._free
        if not free.acquire(timeout=patience(self._timeout)):
            raise Busy(
                f"{self._location}: all {_CONNECTIONS} connections of this store are in use",
                next_step="Try again, or use fewer threads",
            )
        try:
            connection = self._pop() or self._connect()
            connection.answer_at_most(answer_within())
            try:
                yield connection
            except psycopg.Error as error:
                connection.close()
                raise failed(error, self._location) from error
            finally:
                self._give_back(connection)
        finally:
            free.release()

    def _pop(self) -> Connection | None:
        """Return an idle connection that still works, as far as this side can see."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if connection.pid == os.getpid() and not _is_lost(connection):
                return connection
            connection.close()

    def _connect(self) -> Connection:
        try:
            return connect(self._parameters, durable=self._durable, within=answer_within())
        except psycopg.Error as error:
            raise failed(error, self._location) from error

    def _give_back(self, connection: Connection) -> None:
        idle = connection.info.transaction_status == TransactionStatus.IDLE
        if self._closed or not idle:
            connection.close()
            return
        connection.idle_since = time.monotonic()
        self._idle.append(connection)
        # The newest is lent first, so those that a burst has left grow old on the other side.
        with suppress(IndexError):
            while connection.idle_since - self._idle[0].idle_since > _IDLE:
                self._idle.popleft().close()

    def close(self) -> None:
        """Close every connection that is not lent; the others are closed after their use."""
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


def _is_lost(connection: Connection) -> bool:
    """Return whether the server has closed an idle connection: it sends nothing else then."""
    if connection.closed:
        return True
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _close_all(connections: deque[Connection]) -> None:
    while connections:
        connections.pop().close()


_of_parents: list[Connection] = []  # kept in a fork child: psycopg warns of those it collects
_pools: weakref.WeakSet[ConnectionPool] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for pool in list(_pools):
        pool.after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
