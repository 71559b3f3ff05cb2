"""Mutants that change what they store."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from contract_tests.mutation.base import _records, mutant
from registry_api import (
    Changeset,
    Commit,
    Page,
    Refs,
    TaskQuery,
    TaskSnapshot,
    TaskSummary,
)
from registry_api.records import ALL
from registry_api.wrappers import StoreWrapper


@mutant
class CaseFolded(StoreWrapper):
    """Stores agent ids in lower case, as some file systems do with names."""

    def commit(self, changeset: Changeset) -> Commit:
        def folded(record: Any) -> Any:
            name = getattr(record, "agent_id", None)
            return record if name is None else replace(record, agent_id=name.lower())

        return self.inner.commit(_records(changeset, folded))


@mutant
class MillisecondsOnly(StoreWrapper):
    """Truncates times to milliseconds."""

    def commit(self, changeset: Changeset) -> Commit:
        def cut(record: Any) -> Any:
            at = getattr(record, "started_at", None)
            if at is None:
                return record
            return replace(record, started_at=at.replace(microsecond=at.microsecond // 1000 * 1000))

        return self.inner.commit(_records(changeset, cut))


@mutant
class UnknownFieldsDropped(StoreWrapper):
    """Drops unknown fields."""

    def commit(self, changeset: Changeset) -> Commit:
        def known(record: Any) -> Any:
            return replace(record, extra="{}") if getattr(record, "extra", None) else record

        return self.inner.commit(_records(changeset, known))


@mutant
class MixedFields(StoreWrapper):
    """Reads the fields of a record in two separate reads, so that they may be of two revisions."""

    def load(self, task_id: str, *, only: Refs | None = None) -> TaskSnapshot:
        first = self.inner.load(task_id, only=only)
        time.sleep(0.002)
        second = self.inner.load(task_id, only=only)
        types = {a.agent_id: a.type for a in first.agents}
        agents = (replace(a, type=types.get(a.agent_id, a.type)) for a in second.agents)
        return replace(second, agents=tuple(agents))


@mutant
class LongTextCut(StoreWrapper):
    """Truncates a long message."""

    def commit(self, changeset: Changeset) -> Commit:
        def cut(record: Any) -> Any:
            said = getattr(record, "message", None)
            return replace(record, message=said[:20]) if said else record

        return self.inner.commit(_records(changeset, cut))


@mutant
class RecordedStatusLost(StoreWrapper):
    """Returns the derived status of a task as its recorded status."""

    def list_tasks(
        self, query: TaskQuery = ALL, *, after: str | None = None, limit: int = 100
    ) -> Page[TaskSummary]:
        found = self.inner.list_tasks(query, after=after, limit=limit)
        return replace(
            found, items=tuple(replace(t, recorded_status=t.status) for t in found.items)
        )
