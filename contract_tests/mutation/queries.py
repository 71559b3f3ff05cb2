"""Mutants that answer queries wrongly."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta

from contract_tests.mutation.base import mutant
from registry_api import (
    Kind,
    Page,
    Record,
    RecordQuery,
    Refs,
    TaskQuery,
    TaskSnapshot,
    TaskSummary,
    errors,
)
from registry_api.records import ALL, ALL_RECORDS
from registry_api.wrappers import StoreWrapper


@mutant
class PagesOverlap(StoreWrapper):
    """Repeats an item on every page after the first."""

    def list_records(
        self,
        kind: Kind,
        query: RecordQuery = ALL_RECORDS,
        *,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[Record]:
        found = self.inner.list_records(kind, query, after=after, limit=limit)
        if after is None or not found.items:
            return found
        return replace(found, items=(found.items[0], *found.items))


@mutant
class PagesByOffset(StoreWrapper):
    """Pages tasks by offset, so that an insert shifts all that follow."""

    def list_tasks(
        self, query: TaskQuery = ALL, *, after: str | None = None, limit: int = 100
    ) -> Page[TaskSummary]:
        start = int(after or 0) if (after or "0").isdigit() else 0
        items = self.inner.list_tasks(query, limit=1000).items[start : start + limit]
        more = str(start + limit) if len(items) == limit else None
        return Page(items=items, next=more)


@mutant
class TextAsPattern(StoreWrapper):
    """Treats % and _ in a text search as wildcards."""

    def list_tasks(
        self, query: TaskQuery = ALL, *, after: str | None = None, limit: int = 100
    ) -> Page[TaskSummary]:
        if query.text and set(query.text) & set("%_"):
            query = replace(query, text=query.text.strip("%_") or None)
        return self.inner.list_tasks(query, after=after, limit=limit)


@mutant
class FilterIgnored(StoreWrapper):
    """Ignores the severity when it lists findings."""

    def list_records(
        self,
        kind: Kind,
        query: RecordQuery = ALL_RECORDS,
        *,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[Record]:
        query = replace(query, severity=None)
        return self.inner.list_records(kind, query, after=after, limit=limit)


@mutant
class BadQueryAnswered(StoreWrapper):
    """Answers an invalid query with an empty page."""

    def list_records(
        self,
        kind: Kind,
        query: RecordQuery = ALL_RECORDS,
        *,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[Record]:
        try:
            return self.inner.list_records(kind, query, after=after, limit=limit)
        except errors.InvalidQuery:
            return Page(items=())


@mutant
class SinceTooLate(StoreWrapper):
    """Leaves out tasks that were created exactly at the requested time."""

    def list_tasks(
        self, query: TaskQuery = ALL, *, after: str | None = None, limit: int = 100
    ) -> Page[TaskSummary]:
        if query.since is not None:
            query = replace(query, since=query.since + timedelta(microseconds=1))
        return self.inner.list_tasks(query, after=after, limit=limit)


@mutant
class PartIsWhole(StoreWrapper):
    """Loads the whole task although only a part was requested."""

    def load(self, task_id: str, *, only: Refs | None = None) -> TaskSnapshot:
        return replace(self.inner.load(task_id), partial=only is not None)


@mutant
class ListOfTwoReads(StoreWrapper):
    """Assembles a list over all tasks from two separate reads."""

    def list_records(
        self,
        kind: Kind,
        query: RecordQuery = ALL_RECORDS,
        *,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[Record]:
        first = self.inner.list_records(kind, query, after=after, limit=limit)
        if query.task_id is not None or len(first.items) < 2:
            return first
        time.sleep(0.002)
        second = self.inner.list_records(kind, query, after=after, limit=limit)
        return replace(second, items=(*first.items[:1], *second.items[1:]))


@mutant
class ListCutOff(StoreWrapper):
    """Ends a list after a page of the largest size."""

    def list_records(
        self,
        kind: Kind,
        query: RecordQuery = ALL_RECORDS,
        *,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[Record]:
        found = self.inner.list_records(kind, query, after=after, limit=limit)
        return replace(found, next=None) if len(found.items) >= 1000 else found
