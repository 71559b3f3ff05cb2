"""Filter, order and page records in Python, for stores whose engine cannot."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from operator import itemgetter
from typing import TypeVar

from registry_api.records.codec import stamp
from registry_api.records.models import Kind, Record, record_key
from registry_api.records.query import (
    FILTERS,
    MOMENT,
    SORT,
    TEXT,
    Page,
    PageKey,
    RecordQuery,
    TaskQuery,
    check_limit,
    check_query,
    check_tasks,
    make_cursor,
    read_cursor,
)
from registry_api.records.snapshot import TaskSummary
from registry_api.records.status import ACTIVE_AGENT

__all__ = ["page_key", "select_records", "select_tasks"]

T = TypeVar("T")


def select_tasks(
    tasks: Iterable[TaskSummary], query: TaskQuery, *, after: str | None, limit: int
) -> Page[TaskSummary]:
    """Return one page of the tasks that match."""
    query = check_tasks(query)
    return _page(
        (t for t in tasks if _task_fits(t, query)),
        lambda t: (stamp(t.created_at), t.task_id, ""),
        kind=Kind.TASK,
        after=after,
        limit=limit,
        newest_first=query.newest_first,
    )


def select_records(
    kind: Kind, records: Iterable[Record], query: RecordQuery, *, after: str | None, limit: int
) -> Page[Record]:
    """Return one page of the records of one kind that match."""
    query = check_query(kind, query)
    return _page(
        _fitting(kind, records, query),
        lambda r: page_key(kind, r),
        kind=kind,
        after=after,
        limit=limit,
        newest_first=query.newest_first,
    )


def page_key(kind: Kind, record: Record) -> PageKey:
    """Return the sort key of a record within its kind."""
    sort = getattr(record, SORT[kind])
    if kind is Kind.PHASE:
        return sort, record.task_id, ""
    if kind is Kind.AGENT:
        return sort, record.task_id, ""
    return stamp(sort), record.task_id, record_key(record)


def _page(
    items: Iterable[T],
    key: Callable[[T], PageKey],
    *,
    kind: Kind,
    after: str | None,
    limit: int,
    newest_first: bool,
) -> Page[T]:
    check_limit(limit)
    start = read_cursor(after, kind)
    keyed = ((key(item), item) for item in items)
    if start is not None:
        keyed = ((k, i) for k, i in keyed if (k < start if newest_first else k > start))
    pick = heapq.nlargest if newest_first else heapq.nsmallest
    # One more than asked for tells whether there is a next page.
    found = pick(limit + 1, keyed, key=itemgetter(0))
    page = found[:limit]
    more = make_cursor(page[-1][0]) if len(found) > limit else None
    return Page(items=tuple(item for _, item in page), next=more)


def _task_fits(task: TaskSummary, query: TaskQuery) -> bool:
    return (
        (query.status is None or task.status is query.status)
        and (query.since is None or task.created_at >= query.since)
        and (query.until is None or task.created_at < query.until)
        and (query.text is None or query.text in task.description or query.text in task.task_id)
    )


def _fitting(kind: Kind, records: Iterable[Record], query: RecordQuery) -> Iterator[Record]:
    filters = {"task_id": "task_id", **FILTERS[kind]}
    asked = [(n, f, v) for n, f in filters.items() if (v := getattr(query, n)) is not None]
    for record in records:
        for name, field, wanted in asked:
            value = getattr(record, field)
            if (value in ACTIVE_AGENT) != wanted if name == "active" else value != wanted:
                break
        else:
            if _came_since(kind, record, query.since) and _says(kind, record, query.text):
                yield record


def _came_since(kind: Kind, record: Record, since: datetime | None) -> bool:
    moment = since and getattr(record, MOMENT[kind])
    return since is None or (moment is not None and moment >= since)


def _says(kind: Kind, record: Record, text: str | None) -> bool:
    return text is None or any(text in getattr(record, field) for field in TEXT[kind])
