"""What differs between databases: connections, transactions, schema, and how one is retired."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

__all__ = ["Engine", "Retirement"]


class Engine(Protocol):
    """The connections and transactions of one database."""

    path: Path

    def reading(self) -> AbstractContextManager[Any]:
        """Give a connection whose reads all see one state."""

    def writing(self) -> AbstractContextManager[Any]:
        """Give a connection in a write transaction that is committed at the end."""

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
