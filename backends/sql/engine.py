"""What differs between databases: connections, transactions, schema, and how one is retired."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

__all__ = ["Engine", "Retirement"]


class Engine(Protocol):
    """The connections and transactions of one database."""

    location: str  # without credentials

    def reading(self) -> AbstractContextManager[Any]:
        """Give a connection whose reads all see one state."""

    def writing(self, *task_ids: str, alone: bool = False) -> AbstractContextManager[Any]:
        """Give a connection in a write transaction that is committed at the end.

        No other transaction changes ``task_ids`` meanwhile; ``alone``: none changes anything.
        """

    def next_number(self, execute: Callable[..., Any], last: int) -> int:
        """Return the next number of the feed; ``last`` is the highest one in use."""

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
