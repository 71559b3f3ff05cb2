"""Which tasks are held in memory: the most recently used, up to a number of records."""

from __future__ import annotations

from collections import OrderedDict

from backends.json_files.task.task import Task

__all__ = ["TaskCache"]

_RECORDS = 5_000  # about 2 KB each
_FEW = 256  # tasks held whatever their size: a long journal is not read again for every commit


class TaskCache:
    """An LRU cache that evicts tasks when there are too many records in memory.

    Used under the store's lock.
    """

    def __init__(self) -> None:
        self._weights = OrderedDict[Task, int]()
        self._weight = 0
        self._last: Task | None = None

    def ask_for(self, task: Task) -> None:
        """Note that a task is used; the size of the one used before it is known by now."""
        if task is self._last:
            return
        if self._last is not None:
            self._weigh(self._last)
        self._last = task
        self._weigh(task)
        while self._weight > _RECORDS and len(self._weights) > _FEW:
            oldest, weight = self._weights.popitem(last=False)
            self._weight -= weight
            oldest.evict()

    def _weigh(self, task: Task) -> None:
        weight = task.journal.weight()
        self._weight += weight - self._weights.pop(task, 0)
        self._weights[task] = weight
