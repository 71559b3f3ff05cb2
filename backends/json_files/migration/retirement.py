"""Archive the frozen files of a store, remove them, and put them back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from backends.json_files.document.archive import Archive, Member
from backends.json_files.document.text import content_hash
from backends.json_files.legacy.layout import DOCUMENT
from backends.json_files.migration.before_freeze import USUAL_MODE, BeforeFreeze
from backends.json_files.migration.global_list import FrozenList, read_file
from backends.json_files.migration.late_writes import LateWritesOfAll
from backends.json_files.store import JsonFilesStore
from backends.json_files.task.late_writes import Now
from registry_api.capabilities import LateWrite
from registry_api.errors import CorruptDocument
from registry_api.workspace import wait_until_released

__all__ = ["Counted", "Retirement"]

Counted = Callable[[int, int], None]


class Retirement:
    """Retires the files of a store, and reinstates them."""

    __slots__ = ("_before", "_late_writes", "_list", "_shared", "_store")

    def __init__(
        self,
        store: JsonFilesStore,
        before: BeforeFreeze,
        frozen_list: FrozenList,
        late_writes: LateWritesOfAll,
    ) -> None:
        self._store = store
        self._shared = store.shared
        self._before = before
        self._list = frozen_list
        self._late_writes = late_writes

    # -- archive -----------------------------------------------------------------------------

    def archive(self, *, progress: Counted | None = None) -> str:
        """See MigrationSource.archive."""
        layout = self._shared.layout
        documents = [
            Member(f"{task.task_id}/{DOCUMENT}", task.frozen_document.text)
            for task in self._store.tasks.all()
            if task.frozen_document.is_archived()
        ]
        if layout.global_file.exists():
            documents.append(
                Member("registry/GLOBAL_REGISTRY.json", lambda: read_file(layout.global_file))
            )
        name = f"json-{self._shared.now():%Y%m%dT%H%M%S%f}.tar"
        archive = Archive(self._archives() / name, sync=self._shared.sync)
        digest = archive.write(documents, progress=progress)
        self._shared.sync_folder(self._archives())
        archive.check(digest)
        return f"{name} {digest}"

    def check_archive(self, archive: str) -> dict[str, str]:
        """See MigrationSource.check_archive; returns the hash of each file in it."""
        name, _, digest = archive.partition(" ")
        return Archive(self._archives() / name, sync=self._shared.sync).check(digest)

    def _archives(self) -> Path:
        return self._shared.folder("archive")

    # -- removal -----------------------------------------------------------------------------

    def retire(
        self,
        archive: str,
        *,
        wait: float,
        patience: float,
        now: Now,
        progress: Counted | None = None,
    ) -> tuple[LateWrite, ...]:
        """See MigrationSource.retire."""
        manifest = self.check_archive(archive)
        retired = self._shared.folder("retired")
        late_writes = list(self._late_writes.keep_new(now))
        for path in manifest:
            self._set_aside(path, retired)
        aside = {path: retired / path.replace("/", "!") for path in manifest}
        held = wait_until_released(aside.values(), wait=wait, patience=patience, progress=progress)
        for path, place in aside.items():
            data = None if place in held else read_file(place)
            if data is None:
                continue
            if content_hash(data) != manifest[path]:
                late_write = self._late_writes.keep(path, data, now)
                late_writes += [late_write] if late_write else []
            place.unlink()
        self._shared.sync_folder(retired)
        return tuple(late_writes)

    def _set_aside(self, path: str, retired: Path) -> None:
        """Move a document where legacy programs do not find it, under its lock; its inode stays."""
        there = self._shared.layout.workspace / path
        place = retired / path.replace("/", "!")
        if place.exists() or not there.exists():
            return
        task_id = path.partition("/")[0]
        if task_id == "registry":
            there.rename(place)
        else:
            self._store.tasks.held(task_id).frozen_document.move_to(place)

    def retiring(self) -> int:
        """See MigrationSource.retiring."""
        folder = self._shared.layout.state / "retired"
        return sum(1 for _ in folder.iterdir()) if folder.exists() else 0

    # -- rollback ----------------------------------------------------------------------------

    def reinstate(self, archive: str | None) -> None:
        """See MigrationSource.reinstate."""
        retired = self._shared.layout.state / "retired"
        aside = {p.name.partition("!")[0]: p for p in retired.glob(f"*!{DOCUMENT}")}
        for name, path in aside.items():
            self._store.tasks.held(name).frozen_document.reinstate(path)
        if archive is not None:
            with suppress(CorruptDocument):  # then the templates or the records are used
                self._take_back(archive)
        for task in self._store.tasks.all():
            task.frozen_document.reinstate(None)
        self._list.reinstate()
        (retired / "registry!GLOBAL_REGISTRY.json").unlink(missing_ok=True)

    def _take_back(self, archive: str) -> None:
        """Restore the archive's documents; those that no task was read from are kept only there."""
        name, _, digest = archive.partition(" ")
        modes = self._before.read()["modes"]
        for path, data in Archive(self._archives() / name, sync=self._shared.sync).read(digest):
            task_id, _, file = path.partition("/")
            if file == DOCUMENT:
                document = self._store.tasks.held(task_id).frozen_document
                document.take_back(data, mode=modes.get(task_id, USUAL_MODE))
