"""The store as the source of a move: documents are frozen, archived, removed and brought back.

A document's frozen text is the one whose hash its journal holds; it is recorded nowhere else. The
read-only mode is only a hint to legacy programs: what they write anyway is found and kept in
``.registry/conflicts``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime

from backends.json_files.journal.lines import History
from backends.json_files.legacy_report import LegacyReport
from backends.json_files.migration.before_freeze import BeforeFreeze
from backends.json_files.migration.freezing import Freezing
from backends.json_files.migration.global_list import FrozenList
from backends.json_files.migration.late_writes import LateWritesOfAll
from backends.json_files.migration.replica import JsonReplica
from backends.json_files.migration.retirement import Counted, Retirement
from backends.json_files.store import JsonFilesStore
from backends.json_files.task.late_writes import Now
from backends.json_files.task.workspace_state import as_recorded
from registry_api.capabilities import LateWrite
from registry_api.records import Change, Commit, Head, TaskSnapshot
from registry_api.roles import RoleStamp
from registry_api.workspace import open_elsewhere
from registry_api.wrappers import StoreWrapper

__all__ = ["JsonMigrationSource"]


class JsonMigrationSource(StoreWrapper):
    """A JsonFilesStore with the methods of MigrationSource, ForeignWriters and Legacy."""

    def __init__(self, store: JsonFilesStore) -> None:
        super().__init__(store)
        before = BeforeFreeze(store.shared)
        frozen_list = FrozenList(store.shared, before)
        self._store = store
        self._replica = JsonReplica(store.tasks.task, store.shared.numbers)
        self._freezing = Freezing(store, before, frozen_list)
        self._late_writes = LateWritesOfAll(store, before, frozen_list)
        self._legacy = LegacyReport(store.shared)
        self._retirement = Retirement(store, before, frozen_list, self._late_writes)

    # -- as a replica ------------------------------------------------------------------------

    def apply(self, change: Change) -> Commit:
        """See Replica.apply."""
        return self._replica.apply(change)

    def apply_all(self, changes: Sequence[Change]) -> None:
        """See Replica.apply_all; a refusal comes before anything is written."""
        self._replica.apply_all(changes)

    def replace(
        self,
        snapshot: TaskSnapshot,
        histories: Iterable[History],
        *,
        feed: tuple[Change, ...] = (),
    ) -> None:
        """See Replica.replace."""
        self._replica.replace(snapshot, histories, feed=feed)

    # -- while it is the writer of record ------------------------------------------------------

    def absorb(self) -> tuple[tuple[str, Head], ...]:
        """See ForeignWriters.absorb."""
        return self._store.absorb()

    def as_recorded(self) -> AbstractContextManager[None]:
        """See ForeignWriters.as_recorded."""
        return as_recorded()

    def restore(self, *, dry_run: bool = False) -> int:
        """See ForeignWriters.restore."""
        return self._store.restore(dry_run=dry_run)

    def project(self) -> None:
        """See ForeignWriters.project."""
        self._store.project()

    def moved(self, seen: Mapping[str, Head]) -> dict[str, Head]:
        """See MigrationSource.moved."""
        return self._freezing.moved(seen)

    def settle(self) -> None:
        """See ForeignWriters.settle."""
        self._freezing.settle()

    # -- freezing ----------------------------------------------------------------------------

    def prepare_fence(self) -> None:
        """See ForeignWriters.prepare_fence."""
        self._freezing.prepare()

    def fence(self, stamp: RoleStamp, seen: Mapping[str, Head]) -> dict[str, Head]:
        """See MigrationSource.fence: the phase record holds the role, the documents are frozen."""
        return self._freezing.freeze(seen)

    def sweep(self) -> dict[str, Head]:
        """See ForeignWriters.sweep."""
        return self._freezing.sweep()

    def keep_fenced(self) -> None:
        """See ForeignWriters.keep_fenced."""
        self._freezing.keep_frozen()

    def frozen_documents(self) -> int:
        """See ForeignWriters.frozen_documents."""
        return self._freezing.frozen_documents()

    def unfence(self, stamp: RoleStamp) -> None:
        """See MigrationSource.unfence."""
        self._freezing.thaw()

    # -- late writes -------------------------------------------------------------------------

    def late_writes(self, now: Now) -> tuple[LateWrite, ...]:
        """See ForeignWriters.late_writes."""
        return self._late_writes.keep_new(now)

    def kept_late_writes(self) -> tuple[str, ...]:
        """See ForeignWriters.kept_late_writes."""
        return self._late_writes.kept()

    def frozen_differences(self) -> tuple[str, ...]:
        """See ForeignWriters.frozen_differences."""
        return self._late_writes.differences()

    def holders(self) -> tuple[str, ...]:
        """See ForeignWriters.holders."""
        layout = self._store.shared.layout
        paths = [layout.document(n) for n in layout.tasks()]
        paths.append(layout.global_file)
        return tuple(f"{who}: {path}" for who, path in open_elsewhere(paths))

    # -- removal -----------------------------------------------------------------------------

    def archive(self, *, progress: Counted | None = None) -> str:
        """See MigrationSource.archive."""
        return self._retirement.archive(progress=progress)

    def check_archive(self, archive: str) -> None:
        """See MigrationSource.check_archive."""
        self._retirement.check_archive(archive)

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
        return self._retirement.retire(
            archive, wait=wait, patience=patience, now=now, progress=progress
        )

    def retiring(self) -> int:
        """See MigrationSource.retiring."""
        return self._retirement.retiring()

    def reinstate(self, archive: str | None) -> None:
        """See MigrationSource.reinstate."""
        self._retirement.reinstate(archive)

    # -- the legacy system -------------------------------------------------------------------

    def stored_counts(self) -> dict[str, int]:
        """See Legacy.stored_counts."""
        self._store.restore_list()
        return self._legacy.stored_counts()

    def problems(self) -> tuple[str, ...]:
        """See Legacy.problems."""
        return self._legacy.problems()

    def merged(self) -> str | None:
        """See Legacy.merged."""
        return self._legacy.merged()

    def unreadable(self) -> dict[str, str]:
        """See Legacy.unreadable."""
        return self._legacy.unreadable()

    def legacy_state(self) -> datetime | None:
        """See Legacy.legacy_state."""
        return self._legacy.legacy_state()

    def legacy_state_summary(self) -> str | None:
        """See Legacy.legacy_state_summary."""
        return self._legacy.legacy_state_summary()
