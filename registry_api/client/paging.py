"""Iterate over all tasks or records of a store, page by page."""

from __future__ import annotations

from collections.abc import Iterator

from registry_api.records.models import Kind, Record
from registry_api.records.query import MAX_LIMIT, Page, RecordQuery, TaskQuery
from registry_api.records.snapshot import TaskSummary
from registry_api.store import RegistryStore

__all__ = ["all_records", "all_tasks"]


def all_tasks(store: RegistryStore, query: TaskQuery) -> Iterator[TaskSummary]:
    """Iterate over every task that matches, page by page."""
    page: Page[TaskSummary] = store.list_tasks(query, limit=MAX_LIMIT)
    yield from page.items
    while page.next is not None:
        page = store.list_tasks(query, after=page.next, limit=MAX_LIMIT)
        yield from page.items


def all_records(store: RegistryStore, kind: Kind, query: RecordQuery) -> Iterator[Record]:
    """Iterate over every record that matches, with at most a page in memory."""
    page: Page[Record] = store.list_records(kind, query, limit=MAX_LIMIT)
    yield from page.items
    while page.next is not None:
        page = store.list_records(kind, query, after=page.next, limit=MAX_LIMIT)
        yield from page.items
