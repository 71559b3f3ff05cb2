"""Late writes of legacy programs to the frozen files of a store: find, keep and report them."""

from __future__ import annotations

from contextlib import suppress

from backends.json_files.document.text import content_hash
from backends.json_files.legacy.layout import named_task
from backends.json_files.migration.before_freeze import BeforeFreeze
from backends.json_files.migration.global_list import FrozenList
from backends.json_files.store import JsonFilesStore
from backends.json_files.task.late_writes import Now
from registry_api.capabilities import LateWrite
from registry_api.errors import RegistryError

__all__ = ["LateWritesOfAll"]


class LateWritesOfAll:
    """Finds the late writes to the documents of all tasks and to their list."""

    __slots__ = ("_before", "_list", "_shared", "_store")

    def __init__(
        self, store: JsonFilesStore, before: BeforeFreeze, frozen_list: FrozenList
    ) -> None:
        self._store = store
        self._shared = store.shared
        self._before = before
        self._list = frozen_list

    def keep_new(self, now: Now) -> tuple[LateWrite, ...]:
        """See ForeignWriters.late_writes."""
        out, strangers = [], self._before.read()["strangers"]
        for name in self._shared.layout.tasks():
            with suppress(RegistryError, OSError):
                if self._is_copy(name):
                    continue
                task = self._store.tasks.held(name)
                found = task.late_writes.look(now, stranger=strangers.get(name))
                if found is not None:
                    out.append(found)
        found = self._list.late_write()
        return (*out, *([found] if found else ()))

    def keep(self, path: str, data: bytes, now: Now) -> LateWrite | None:
        """Keep what was written to a file after it was moved away."""
        task_id = path.partition("/")[0]
        if task_id == "registry":
            return self._list.keep(data)
        return self._store.tasks.held(task_id).late_writes.keep(data, now)

    def _is_copy(self, name: str) -> bool:
        """Return whether a folder holds another task's frozen document: it was moved or copied."""
        task = self._store.tasks.held(name)
        task.journal.refresh()
        if not task.journal.is_empty:
            return False
        data = task.frozen_document.text()
        named = None if data is None else named_task(data)
        if named is None or named == name or data is None:
            return False
        original = self._store.tasks.held(named)
        original.journal.refresh()
        return original.journal.hash == content_hash(data)

    def kept(self) -> tuple[str, ...]:
        """See ForeignWriters.kept_late_writes."""
        folder = self._shared.layout.state / "conflicts"
        return tuple(str(p) for p in sorted(folder.glob("*straggler-*.report")))

    def differences(self) -> tuple[str, ...]:
        """See ForeignWriters.frozen_differences."""
        return tuple(
            f"{self._shared.layout.document(task.task_id)}: {what}"
            for task in self._store.tasks.all()
            if (what := task.frozen_document.difference()) is not None
        )
