"""The tasks of a workspace: found by their files, and held in memory up to a number of records."""

from __future__ import annotations

import os
from collections.abc import Iterator, KeysView

from backends.json_files.task.task import Task
from backends.json_files.task.task_cache import TaskCache
from backends.json_files.task.workspace_state import Shared
from registry_api.errors import Busy, CorruptDocument, StoreClosed, TaskNotFound, Unavailable
from registry_api.records import is_id
from registry_api.workspace import ForkSafeLock

__all__ = ["Tasks"]


class Tasks:
    """Finds tasks and keeps them; thread-safe."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._state = shared.layout.state
        self._held: dict[str, Task] = {}
        self._cache = TaskCache()
        self._lock = ForkSafeLock()
        self.is_closed = False

    def task(self, task_id: str) -> Task:
        """Return a task, there or not; raises TaskNotFound if it cannot be one, StoreClosed."""
        self.check_open()
        if not is_id(task_id):
            raise TaskNotFound(
                f"{task_id!r} is not a task id", next_step="list_tasks shows the ids"
            )
        with self._lock:
            task = self._held.get(task_id)
            if task is None:
                task = self._held[task_id] = Task(self._shared, task_id)
            self._cache.ask_for(task)
            return task

    def existing(self, task_id: str) -> Task:
        """Return a task that has any file; raises TaskNotFound for others, creating no files."""
        if self.is_closed or not is_id(task_id):
            return self.task(task_id)
        if self.is_link(task_id):
            raise TaskNotFound(
                f"the folder of task {task_id} is a link, not followed", next_step="Move it away"
            )
        if (
            task_id in self._held
            or self._shared.layout.document(task_id).exists()
            or (self._state / "json" / f"{task_id}.journal").exists()
            or (self._state / "intents" / task_id).exists()
        ):
            return self.task(task_id)
        raise TaskNotFound(f"there is no task {task_id}", next_step="list_tasks shows the ids")

    def is_link(self, task_id: str) -> bool:
        """Return whether the folder of a task is a symbolic link."""
        folder = f"{self._shared.layout.workspace}/{task_id}"
        return os.path.islink(folder)  # noqa: PTH114  (hot path)

    def held(self, task_id: str) -> Task:
        """As ``task``, but a task that is evicted stays so: mostly its document is checked."""
        return self._held.get(task_id) or self.task(task_id)

    def if_held(self, task_id: str) -> Task | None:
        """Return a task that this process has seen, None if it has not or is closed."""
        return None if self.is_closed else self._held.get(task_id)

    def held_names(self) -> KeysView[str]:
        """Return the ids of the tasks that this process has seen."""
        return self._held.keys()

    def all(self) -> Iterator[Task]:
        """Yield every task that has, or had, a document; nothing is read."""
        for name in self._names():
            yield self.held(name)

    def readable(self) -> Iterator[Task]:
        """Yield every readable task, settled; ``problems`` reports the others."""
        self.check_open()
        for name in self._names():
            task = self.task(name)
            try:
                task.current()
            except Busy:
                raise
            except (TaskNotFound, CorruptDocument, Unavailable):
                # The document cannot be read now; what was committed before is in the journal.
                task.journal.refresh()
                if task.journal.is_empty:
                    continue
            yield task

    def _names(self) -> list[str]:
        names = set(self._shared.layout.tasks())
        names |= {p.name.removesuffix(".journal") for p in (self._state / "json").glob("*.journal")}
        return sorted(names)

    def check_open(self) -> None:
        """Raise StoreClosed after ``close``."""
        if self.is_closed:
            raise StoreClosed("the store is closed", next_step="Open it again")

    def close(self) -> None:
        """Close the descriptors of all tasks."""
        self.is_closed = True
        for task in self._held.values():
            task.close()
