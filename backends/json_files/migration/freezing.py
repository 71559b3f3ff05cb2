"""Freeze the documents of all tasks while a switch holds the gate, and thaw them."""

from __future__ import annotations

import os
from collections.abc import Mapping

from backends.json_files.document.mode import set_writable
from backends.json_files.journal.intent import pending_numbers
from backends.json_files.legacy.layout import frozen_without_record
from backends.json_files.migration.before_freeze import GLOBAL, USUAL_MODE, BeforeFreeze, Record
from backends.json_files.migration.global_list import FrozenList
from backends.json_files.store import JsonFilesStore
from backends.json_files.task.workspace_state import as_recorded
from registry_api.errors import Busy, RegistryError, TaskNotFound
from registry_api.records import Head

__all__ = ["Freezing"]


class Freezing:
    """Freezes and thaws the files of a store."""

    __slots__ = ("_before", "_list", "_shared", "_store")

    def __init__(
        self, store: JsonFilesStore, before: BeforeFreeze, frozen_list: FrozenList
    ) -> None:
        self._store = store
        self._shared = store.shared
        self._before = before
        self._list = frozen_list

    def moved(self, seen: Mapping[str, Head]) -> dict[str, Head]:
        """See MigrationSource.moved."""
        self.settle()
        with as_recorded():
            heads = {name: self._store.tasks.held(name).head_in_gate() for name in self._present()}
        return _differing(heads, seen)

    def settle(self) -> None:
        """See ForeignWriters.settle."""
        failed: RegistryError | None = None
        for name in pending_numbers(self._shared.folder("intents")):
            try:
                self._store.tasks.held(name).current()
            except TaskNotFound:  # an interrupted creation was taken back
                continue
            except Busy as error:  # may succeed next time, unlike the other errors
                failed = error
            except RegistryError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def prepare(self) -> None:
        """See ForeignWriters.prepare_fence."""
        record: Record = {"modes": {}, "strangers": {}}
        for task in self._store.tasks.all():
            document, _ = task.frozen_document, task.freezer  # made before the gate is held
            mode = document.mode()
            if mode is not None and mode != USUAL_MODE:
                record["modes"][task.task_id] = mode
            stranger = document.stranger()
            if stranger is not None:
                record["strangers"][task.task_id] = stranger
            document.keep_template()
            document.remove_empty_intent()
        mode = self._list.mode()
        if mode is not None:
            record["modes"][GLOBAL] = mode
        self._before.write(record)

    def freeze(self, seen: Mapping[str, Head]) -> dict[str, Head]:
        """See MigrationSource.fence."""
        self.settle()
        self._shared.freezing.add(self._shared.epoch())
        heads = {name: self._store.tasks.held(name).freezer.freeze() for name in self._present()}
        self._list.freeze()
        return _differing(heads, seen)

    def _present(self) -> list[str]:
        """Return the tasks that have a document; names not seen before are checked first."""
        new, held = set[str](), self._store.tasks.held_names()
        with os.scandir(self._shared.layout.workspace) as entries:
            names = [e.name for e in entries if e.name[0] != "." and not e.is_symlink()]
        if any(name not in held for name in names):
            new = set(self._shared.layout.tasks()) - held
        return sorted({n for n in names if n in held} | new)

    def sweep(self) -> dict[str, Head]:
        """See ForeignWriters.sweep."""
        heads = {name: self._store.tasks.held(name).freezer.sweep() for name in self._present()}
        return {name: head for name, head in heads.items() if head is not None}

    def keep_frozen(self) -> None:
        """See ForeignWriters.keep_fenced."""
        for name in self._present():
            set_writable(self._shared.layout.document(name), writable=False)

    def frozen_documents(self) -> int:
        """See ForeignWriters.frozen_documents."""
        if not self._before.path.exists():
            return frozen_without_record(self._shared.layout)
        modes = self._before.read()["modes"]
        found = (
            (name, self._store.tasks.held(name).frozen_document.mode())
            for name in self._shared.layout.tasks()
        )
        return sum(
            mode is not None and not mode & 0o200 and bool(modes.get(name, USUAL_MODE) & 0o200)
            for name, mode in found
        )

    def thaw(self) -> None:
        """See MigrationSource.unfence."""
        modes = self._before.read()["modes"]
        for name in self._present():
            mode = modes.get(name, USUAL_MODE)
            set_writable(self._shared.layout.document(name), writable=True, mode=mode)
        self._list.thaw()
        self._shared.freezing.clear()
        self._store.list_is_outdated()  # its content is from before the cut-over


def _differing(heads: Mapping[str, Head], seen: Mapping[str, Head]) -> dict[str, Head]:
    """Return the heads that differ from those seen, but for tasks that cannot be read."""
    return {
        name: head
        for name, head in heads.items()
        if head is not (known := seen.get(name)) and head != known and head.revision
    }
