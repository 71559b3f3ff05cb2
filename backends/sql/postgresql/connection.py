"""A connection to PostgreSQL whose every wait is bounded, also for a server that hangs."""

from __future__ import annotations

import json
import os
import re
from typing import Any, TypeVar

import psycopg
from psycopg import generators
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.types.numeric import Int8Dumper

from registry_api.errors import NotSupported, SettingsError
from registry_api.workspace.store_location import public

__all__ = ["Connection", "connect", "connection_parameters"]

T = TypeVar("T")

_OLDEST = 140000  # server versions as PostgreSQL numbers them
_GRACE = 5.0  # seconds after the server's own time limit until a connection is given up
_STATEMENT = 30_000  # ms a statement may take
_IDLE = 30_000  # ms between two statements of a transaction: a client that sleeps holds locks

# What the URL leaves open. A lost network is noticed by tcp_user_timeout, a lost primary is left
# for the host of the URL that takes writes.
_DEFAULTS = {
    "application_name": "registry-backend",
    "connect_timeout": "5",
    "tcp_user_timeout": "15000",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
}

# The server gives up a lost network after the same time, if nobody has set another one there. Its
# own default is two hours: the transaction of a host that is gone would hold its locks until then.
# Its limit for idle transactions does not count while a pipeline waits for its next statement.
_OF_SERVER = {
    "tcp_user_timeout": "tcp_user_timeout",
    "tcp_keepalives_idle": "keepalives_idle",
    "tcp_keepalives_interval": "keepalives_interval",
    "tcp_keepalives_count": "keepalives_count",
}

# One round trip: time limits that neither the URL nor the role sets, and what the engine must know.
_PREPARE = """
SELECT (max(setting) FILTER (WHERE name = 'statement_timeout'))::bigint,
  current_setting('server_encoding'),
  count(set_config(name, %(network)s::json->>name, false)) FILTER (
    WHERE name <> 'statement_timeout' AND source = 'default'),
  CASE WHEN current_setting('statement_timeout') = '0'
    THEN set_config('statement_timeout', %(statement)s, false) END,
  CASE WHEN current_setting('idle_in_transaction_session_timeout') = '0'
    THEN set_config('idle_in_transaction_session_timeout', %(idle)s, false) END,
  CASE WHEN NOT %(durable)s THEN set_config('synchronous_commit', 'off', false)
    WHEN current_setting('synchronous_commit') = 'off'
    THEN set_config('synchronous_commit', 'on', false) END,
  set_config('default_transaction_isolation', 'read committed', false),
  set_config('client_min_messages', 'warning', false)
FROM pg_settings
WHERE name = 'statement_timeout' OR %(network)s::json->>name <> ''
"""


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that gives up a server that does not answer, and that knows its process.

    ``patience``: seconds that a statement may take, None for no bound. ``warnings``: those that the
    server has sent since the list was last cleared.
    """

    patience: float | None = None
    pid = 0
    idle_since = 0.0  # monotonic seconds
    warnings: list[str]
    _lock_timeout = -1  # ms, as it was last set; -1: not known
    _limit: float | None = None  # of this use of the connection

    def answer_within(self, seconds: float | None) -> None:
        """Let each statement until the next call take at most so long, None: ``patience``."""
        self._limit = seconds

    def answer_at_most(self, seconds: float | None) -> None:
        """Let each statement until the next call take at most so long, and no longer than usual."""
        usual = self.patience
        self._limit = min(seconds, usual) if seconds is not None and usual is not None else seconds

    def keep_warning(self, notice: psycopg.errors.Diagnostic) -> None:
        """Add a warning of the server to ``warnings``, whatever language it is in."""
        if notice.severity_nonlocalized == "WARNING":
            self.warnings.append(notice.message_primary or "")

    def wait_for_locks(self, seconds: float) -> None:
        """Let each wait for a lock take at most so long, from the next statement on."""
        timeout = max(1, int(1000 * seconds))
        if timeout != self._lock_timeout:
            self.execute(f"SET lock_timeout = {timeout}".encode(), prepare=False)
            self._lock_timeout = timeout

    def forget_lock_timeout(self) -> None:
        """Set it again before the next transaction."""
        self._lock_timeout = -1

    def await_answers(self) -> None:
        """Wait for the answers to all statements that were sent in a pipeline."""
        if self._pipeline is not None:
            # `sync` writes what is left once, and then only reads: it would wait for the answer to
            # a statement of which the socket took only a part.
            with self.lock:
                self.wait(generators.send(self.pgconn))
            self._pipeline.sync()

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """See psycopg: wait for an answer. A connection that waited in vain is closed."""
        try:
            bound = self.patience if self._limit is None else self._limit
            return super().wait(gen, interval, bound if timeout is None else timeout)
        except psycopg.OperationalError:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.pgconn.finish()
            raise


def connection_parameters(url: str, *, read_only: bool) -> dict[str, Any]:
    """Return libpq's parameters of a URL, with our defaults; raises SettingsError."""
    # Only up to the parameters: an unknown one may hold a secret. A password that is not encoded
    # would be read as a host, and shown.
    shown = public(url).partition("?")[0]
    if any(set(secret) & set("@/?#") for secret in _raw_passwords(url)):
        raise SettingsError(
            f"{shown}: the password has characters that a URL gives a meaning to",
            next_step="Write @ as %40, / as %2F, ? as %3F and # as %23, or use ?passfile=",
        )
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        raise SettingsError(
            f"{shown} is not a URL of PostgreSQL: {str(error).strip()}",
            next_step="e.g. postgresql://user@host:5432/database?passfile=/path/of/mode-0600",
        ) from None
    several = {} if read_only else {"target_session_attrs": "read-write"}
    return {**_DEFAULTS, **several, **given, "client_encoding": "UTF8"}


def _raw_passwords(url: str) -> list[str]:
    """Return the password of a URL as it is written there: up to the last @."""
    found = re.match(r"[^:/?#]+://[^:@/?#]*:(.*)@", url)
    return [found[1]] if found else []


def connect(parameters: dict[str, Any], *, durable: bool, within: float | None) -> Connection:
    """Open a connection and set its time limits; raises psycopg.Error and NotSupported.

    ``within``: seconds for all of it, None for the time limits of libpq and of the server.
    """
    if within is not None:
        hosts = str(parameters.get("host", "")).count(",") + 1
        # libpq counts for each host, and takes no less than 2; 0 is no bound.
        usual = float(parameters.get("connect_timeout") or 0) or within
        parameters = {**parameters, "connect_timeout": max(2, int(min(usual, within / hosts)))}
    connection = Connection.connect(**parameters, autocommit=True)
    try:
        connection.pid = os.getpid()
        connection.prepare_threshold = 0
        connection.warnings = []
        connection.add_notice_handler(connection.keep_warning)
        connection.patience = within or _STATEMENT / 1000 + _GRACE
        # One type for all integers: else each width would be a statement of its own to the server.
        connection.adapters.register_dumper(int, Int8Dumper)
        values = {
            "statement": str(_STATEMENT),
            "idle": str(_IDLE),
            "durable": durable,
            "network": json.dumps(_network(parameters)),
        }
        row = connection.execute(_PREPARE, values).fetchone()
        assert row is not None
        limit, encoding = int(row[0]), row[1]
        connection.patience = (limit or _STATEMENT) / 1000 + _GRACE
        _check_server(connection, encoding)
    except BaseException:
        connection.close()
        raise
    return connection


def _network(parameters: dict[str, Any]) -> dict[str, str]:
    """Return what the server shall use, by its names: libpq takes negative numbers for 0."""
    off = str(parameters.get("keepalives", "1")).strip() == "0"
    names = {"tcp_user_timeout"} if off else _OF_SERVER
    values = {name: str(parameters[_OF_SERVER[name]]).strip() for name in names}
    return {name: value for name, value in values.items() if value.isascii() and value.isdigit()}


def _check_server(connection: Connection, encoding: str) -> None:
    version = connection.info.server_version
    if version < _OLDEST:
        raise NotSupported(
            f"PostgreSQL {version // 10000} is too old: this store needs {_OLDEST // 10000} or "
            "later",
            next_step="Upgrade the server, or name another one",
        )
    if encoding != "UTF8":
        raise NotSupported(
            f"the database has the encoding {encoding}, this store needs UTF8",
            next_step="CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0, and name that one",
        )
