"""A store that wraps another: every call goes through one method that subclasses override."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from registry_api.records.changeset import Change, Changeset, Commit, FeedCursor
from registry_api.records.models import Kind, Record
from registry_api.records.query import ALL, ALL_RECORDS, Page, RecordQuery, Refs, TaskQuery
from registry_api.records.snapshot import Head, RegistryCounts, TaskSnapshot, TaskSummary
from registry_api.store import RegistryStore, StoreInfo

__all__ = ["StoreWrapper"]

T = TypeVar("T")

P = TypeVar("P")


class StoreWrapper:
    """A wrapper that passes every call to ``inner`` through ``around``; keeps the contract."""

    def __init__(self, inner: RegistryStore) -> None:
        self.inner = inner

    def around(self, op: str, call: Callable[[], T]) -> T:
        """Run one call; ``op`` is the method's name."""
        return call()

    @property
    def info(self) -> StoreInfo:
        """The wrapped store's description of itself."""
        return self.inner.info

    def load(self, task_id: str, *, only: Refs | None = None) -> TaskSnapshot:
        """See RegistryStore.load."""
        return self.around("load", lambda: self.inner.load(task_id, only=only))

    def head(self, task_id: str) -> Head:
        """See RegistryStore.head."""
        return self.around("head", lambda: self.inner.head(task_id))

    def commit(self, changeset: Changeset) -> Commit:
        """See RegistryStore.commit."""
        return self.around("commit", lambda: self.inner.commit(changeset))

    def list_tasks(
        self, query: TaskQuery = ALL, *, after: str | None = None, limit: int = 100
    ) -> Page[TaskSummary]:
        """See RegistryStore.list_tasks."""
        return self.around(
            "list_tasks", lambda: self.inner.list_tasks(query, after=after, limit=limit)
        )

    def list_records(
        self,
        kind: Kind,
        query: RecordQuery = ALL_RECORDS,
        *,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[Record]:
        """See RegistryStore.list_records."""
        return self.around(
            "list_records",
            lambda: self.inner.list_records(kind, query, after=after, limit=limit),
        )

    def counts(self) -> RegistryCounts:
        """See RegistryStore.counts."""
        return self.around("counts", self.inner.counts)

    def changes(
        self, after: FeedCursor | None = None, *, task_id: str | None = None, limit: int = 100
    ) -> tuple[Change, ...]:
        """See RegistryStore.changes."""
        return self.around(
            "changes", lambda: self.inner.changes(after, task_id=task_id, limit=limit)
        )

    def close(self) -> None:
        """Close the wrapped store."""
        self.inner.close()
