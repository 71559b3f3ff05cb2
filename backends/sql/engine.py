"""What differs between databases: connections, transactions, schema, and how one is retired."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from backends.sql.write_transaction import Feed

__all__ = ["Engine", "Retirement"]


class Engine(Protocol):
    """The connections and transactions of one database."""

    location: str  # without credentials
    schema: str  # the version of the tables

    # Whether statements are sent without waiting for their answers. Then an answer that is not read
    # at once must be read later from the result, of which each statement has its own.
    pipelined: bool

    # Whether ``report`` does anything.
    reports: bool

    def bind(self, connection: Any, statements: Mapping[str, str]) -> Callable[..., Any]:
        """Return a function that runs a named statement with its parameters."""

    def reading(self, *, once: bool = False) -> AbstractContextManager[Any]:
        """Give a connection whose reads all see one state; ``once``: for a single statement."""

    def writing(
        self, *task_ids: str, alone: bool = False, slow: bool = False
    ) -> AbstractContextManager[Any]:
        """Give a connection in a write transaction that is committed at the end.

        No other transaction changes ``task_ids`` meanwhile; ``alone``: none changes anything.
        ``slow``: another store is read between its statements.
        """

    def report(self, task_id: str, values: Mapping[str, Any]) -> Sequence[Any] | None:
        """Commit a changeset with one report in one statement, where the database can.

        Returns its lineage, revision and feed number, and the feed's id. None: nothing was done,
        and it is committed as any other changeset.
        """

    def write_something(self, execute: Callable[..., Any]) -> None:
        """Let the transaction wait for the disk when it is committed, also if it writes nothing."""

    def next_number(self, execute: Callable[..., Any], feed: Feed) -> int | None:
        """Return the next number of the feed, None if the feed line gets it when it is added."""

    def open_writers(self) -> frozenset[str]:
        """Return what identifies each open transaction that may have taken a number of the feed."""

    def counter_of(self, task_id: str) -> str:
        """Return the suffix of the counters that a task's commits change; empty: all share one."""

    def close(self) -> None:
        """Close every connection."""


class Retirement(Protocol):
    """How a database is archived, removed and taken back; see MigrationSource."""

    def archive(self, *, progress: Callable[[int, int], None] | None = None) -> str:
        """Return the name of a verified copy and its SHA-256."""

    def check(self, archive: str) -> object:
        """Raise CorruptDocument unless the archive is as it was written."""

    def retire(
        self,
        archive: str,
        *,
        wait: float,
        patience: float,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Remove the database; close the store."""

    def retiring(self) -> int:
        """Return how many removed databases are pending deletion."""

    def reinstate(self, archive: str | None) -> None:
        """Create the database if it is missing; fill an empty one from an archive."""
