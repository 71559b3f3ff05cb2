"""What the commands of a move share: the open stores, the gate, the phase record."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import replace

from backends.dual_write.best_effort import answering_target
from backends.dual_write.replicator import Replicator
from backends.dual_write.stamp import stamp_target
from backends.dual_write.steps.base import StepContext
from backends.dual_write.steps.rollback import target_heads
from backends.dual_write.store import DualWriteStore
from backends.dual_write.throttle import SharedPace, Throttle, is_shared
from registry_api.errors import RegistryError
from registry_api.migration import (
    Gate,
    MigrationPhase,
    PhaseFile,
    PhaseRecord,
    Progress,
    SwitchJournal,
    move_id,
)
from registry_api.opening import keep_logs
from registry_api.plugins import OpenContext
from registry_api.store import RegistryStore
from registry_api.workspace import STATE_DIR, make_state_folder

__all__ = ["Session"]


class Session:
    """An open move: the stores, the gate and the files that its commands work on."""

    def __init__(self, context: OpenContext, store: DualWriteStore, control: PhaseFile) -> None:
        self.context = context
        self.folder = context.workspace / STATE_DIR
        self.store = store
        self.control = control
        if not context.read_only:
            make_state_folder(self.folder)
        self.gate = Gate(self.folder, timeout=context.settings.lock_timeout)
        self.journal = SwitchJournal(self.folder)
        self._begun: PhaseRecord | None = None
        self._filling: tuple[str, Replicator] | None = None
        self._slowed: RegistryStore | None = None

    def record(self) -> PhaseRecord:
        """Return the move as it is recorded now; in phase 0, as the next switch begins it."""
        record = self.store.record()
        if record.phase is not MigrationPhase.SOURCE_ONLY:
            return record
        if self._begun is None or self._begun.epoch != record.epoch:
            self._begun = replace(record, move=move_id(self.folder, record))
        return self._begun

    def aim_at(self, target: str | None) -> None:
        """Take another target for the move that begins in phase 0, None: the recorded one; nothing
        is recorded.
        """
        self._begun = None
        if target is None:
            return
        record = replace(self.store.record(), target=target)
        self._begun = replace(record, move=move_id(self.folder, record))

    def replicator(self) -> Replicator:
        """Return the replicator, also in phase 0: a switch to 1 fills the target beforehand."""
        replicator = self.store.replicator()
        if replicator is not None:
            return replicator
        record = self.record()
        if self._filling is None or self._filling[0] != record.move:
            filling = Replicator(self.store.open_source(record), self.store.open_target(record))
            self._filling = record.move, filling
        return self._filling[1]

    def drop_source(self) -> None:
        """Close the source, which was removed; it is opened again when it is needed."""
        self._filling = None
        self.store.drop_source()

    def task_ids(self) -> list[str]:
        """Return the tasks of the writer of record."""
        if self.record().phase >= MigrationPhase.WRITE_CUTOVER:
            return list(target_heads(self.replicator().target))
        return [task_id for task_id, _ in self.store.heads()]

    def catch_up(
        self,
        task_ids: list[str],
        progress: Progress | None,
        *,
        inside: Callable[[], AbstractContextManager[None]] | None = None,
    ) -> int:
        """Let tasks of the target catch up while writers continue; returns how many were behind."""
        return self.replicator().catch_up_in_batches(
            task_ids, what="catch up", progress=progress, inside=inside or self.gate.passing
        )

    def step_context(
        self, progress: Progress | None = None, *, reason: str | None = None, wait: bool = True
    ) -> StepContext:
        """Return what the steps of one command work on."""
        retire_seconds = self.context.settings.retire_seconds
        return StepContext(
            open_source=lambda: self.store.open_source(self.record()),
            drop_source=self.drop_source,
            record=self.record,
            roles=self.store.roles,
            open_replicator=self.replicator,
            throttle=Throttle(self.slow_down),
            keep_logs=self.with_logs,
            logged_writer=self.logged_writer,
            heads=lambda: dict(self.store.heads()),
            catch_up=self.catch_up,
            progress=progress,
            reason=reason,
            archive=self.record().archive,
            retire_seconds=retire_seconds,
            patience=4 * retire_seconds if wait else 0.0,
        )

    def is_shared(self) -> bool:
        """Return whether other hosts may use a store of the move."""
        record = self.record()
        stores = map(self.store.stores.opened, (record.source, record.target))
        return any(store is not None and is_shared(store) for store in stores)

    def slow_down(self, seconds: float) -> None:
        """Make each commit wait ``seconds``, on every host that shares the store in use."""
        self.gate.slow_down(seconds)
        record = self.record()
        store = self._slowed or self.store.stores.get(record.writer, record)
        SharedPace.tell(store, seconds)
        self._slowed = store if seconds else None  # a switch may change the writer meanwhile

    def with_logs(self, target: RegistryStore) -> RegistryStore:
        """Return the target with its logs, even if the settings turn them off."""
        settings, record = self.context.settings, self.record()
        if settings.logs != "off":
            return self.store.logged_target()
        wanted = {"logs": "jsonl", "legacy_tz": record.zone or settings.legacy_tz}
        context = replace(self.context, settings=settings.model_copy(update=wanted))
        return keep_logs(target, context)

    def logged_writer(self) -> RegistryStore:
        """Return the writer of record, with its logs where they are kept."""
        record = self.record()
        return self.store.stores.logged(record.writer, record)

    def stamp(self, record: PhaseRecord) -> None:
        """Write epoch and phase into the target; best effort."""
        with suppress(RegistryError), answering_target():
            stamp_target(self.replicator().target, record)

    def close(self) -> None:
        """Close both stores and the gate; a store that fails or hangs is left."""
        self.store.close()
        self.gate.close()
