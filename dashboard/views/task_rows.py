"""The rows of a list of tasks: what a summary does not hold, read once for each revision."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from dashboard.last_record import last_record
from registry_api import (
    Finding,
    Kind,
    PhaseStatus,
    RecordQuery,
    RegistryStore,
    TaskSummary,
)
from registry_api.errors import TaskNotFound

__all__ = ["TaskRow", "TaskRows"]

_KEPT = 1000  # rows


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """A task of a list: its summary, its phases in order, and the time of its newest record."""

    task: TaskSummary
    phases: tuple[tuple[str, PhaseStatus], ...]
    changed: datetime


class TaskRows:
    """Makes rows; a task that did not change is not read again. Thread-safe."""

    def __init__(self, store: RegistryStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known = OrderedDict[str, TaskRow]()

    def rows(self, tasks: Iterable[TaskSummary]) -> list[TaskRow]:
        """Return the rows of tasks; one that is gone meanwhile is left out."""
        found = (self._row(task) for task in tasks)
        return [row for row in found if row is not None]

    def of(self, task_ids: Iterable[str]) -> list[TaskRow]:
        """Return the rows of tasks that are known by their ids."""
        return [row for name in task_ids if (row := self._read(name)) is not None]

    def _row(self, task: TaskSummary) -> TaskRow | None:
        with self._lock:
            known = self._known.get(task.task_id)
            if known is not None:
                self._known.move_to_end(task.task_id)
        # The whole summary: a task that was created again may have the same revision.
        return known if known and known.task == task else self._read(task.task_id)

    def _read(self, task_id: str) -> TaskRow | None:
        try:
            snapshot = self._store.load(task_id)
        except TaskNotFound:
            return None
        row = TaskRow(
            task=snapshot.summary(),
            phases=tuple((phase.name, phase.status) for phase in snapshot.phases),
            changed=last_record(snapshot, _newest_finding(self._store, task_id)),
        )
        with self._lock:
            self._known[task_id] = row
            self._known.move_to_end(task_id)
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return row


def _newest_finding(store: RegistryStore, task_id: str) -> datetime | None:
    """Return the time of a task's newest finding: a snapshot holds none."""
    query = RecordQuery(task_id=task_id, newest_first=True)
    found = store.list_records(Kind.FINDING, query, limit=1).items
    return found[0].timestamp if found and isinstance(found[0], Finding) else None
