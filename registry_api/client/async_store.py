"""The contract for asynchronous callers: the same calls, each on a worker thread."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from registry_api.client.subscriptions import end_of_feed
from registry_api.client.transactions import Decide, transact
from registry_api.errors import StoreClosed
from registry_api.records.changeset import Change, Changeset, Commit, FeedCursor
from registry_api.records.models import Kind, Record
from registry_api.records.query import ALL, ALL_RECORDS, Page, RecordQuery, Refs, TaskQuery
from registry_api.records.snapshot import Head, RegistryCounts, TaskSnapshot, TaskSummary
from registry_api.store import RegistryStore, StoreInfo

__all__ = ["AsyncStore"]

T = TypeVar("T")


class AsyncStore:
    """A RegistryStore with awaitable methods; at most ``workers`` calls run at once, others queue.

    A started call is never abandoned: cancelling the task first waits for the store's answer, so
    that the outcome of a cancelled commit is known and no lock stays held without an owner.
    """

    def __init__(self, store: RegistryStore, *, workers: int = 8) -> None:
        self._store = store
        self._closed = False
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="registry-store")

    @property
    def info(self) -> StoreInfo:
        """Name, contract version, capabilities and limits of the store."""
        return self._store.info

    async def _call(self, call: Callable[[], T]) -> T:
        if self._closed:
            raise StoreClosed("the store is closed", next_step="Open it again")
        import asyncio  # noqa: PLC0415  (10 ms or more of each command's start)

        # The context is copied, so that a bound on waiting (at_most) holds on the worker too.
        run = contextvars.copy_context().run
        future = asyncio.get_running_loop().run_in_executor(self._pool, run, call)
        cancelled: asyncio.CancelledError | None = None
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            future.exception()  # retrieved, else asyncio reports that it never was
            raise cancelled
        return future.result()

    async def end_of_feed(self) -> FeedCursor | None:
        """See registry_api.client.end_of_feed."""
        return await self._call(lambda: end_of_feed(self._store))

    async def load(self, task_id: str, *, only: Refs | None = None) -> TaskSnapshot:
        """See RegistryStore.load."""
        return await self._call(lambda: self._store.load(task_id, only=only))

    async def head(self, task_id: str) -> Head:
        """See RegistryStore.head."""
        return await self._call(lambda: self._store.head(task_id))

    async def commit(self, changeset: Changeset) -> Commit:
        """See RegistryStore.commit."""
        return await self._call(lambda: self._store.commit(changeset))

    async def transact(
        self, task_id: str, decide: Decide, *, actor: str = "unknown"
    ) -> Commit | None:
        """See transact; the whole transaction is one call on one worker thread."""
        return await self._call(lambda: transact(self._store, task_id, decide, actor=actor))

    async def list_tasks(
        self, query: TaskQuery = ALL, *, after: str | None = None, limit: int = 100
    ) -> Page[TaskSummary]:
        """See RegistryStore.list_tasks."""
        return await self._call(lambda: self._store.list_tasks(query, after=after, limit=limit))

    async def list_records(
        self,
        kind: Kind,
        query: RecordQuery = ALL_RECORDS,
        *,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[Record]:
        """See RegistryStore.list_records."""
        return await self._call(
            lambda: self._store.list_records(kind, query, after=after, limit=limit)
        )

    async def counts(self) -> RegistryCounts:
        """See RegistryStore.counts."""
        return await self._call(self._store.counts)

    async def changes(
        self, after: FeedCursor | None = None, *, task_id: str | None = None, limit: int = 100
    ) -> tuple[Change, ...]:
        """See RegistryStore.changes."""
        return await self._call(lambda: self._store.changes(after, task_id=task_id, limit=limit))

    async def close(self) -> None:
        """Close the store and end the worker threads."""
        if not self._closed:
            await self._call(self._store.close)
            self._closed = True
            self._pool.shutdown(wait=False)
