"""The steps between two phases: work while writers continue, while the gate is held, and after.

The gate is the readers-writer lock that every operation shares and a switch takes exclusively. A
step may be interrupted anywhere. Before the phase record is replaced it is undone (``undo``), after
that it is finished (``finalize`` while the gate is held, then ``clean_up``); both may be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from backends.dual_write.best_effort import answering_target
from backends.dual_write.replicator import Replicator
from backends.dual_write.role_stamps import Roles, roles_in
from backends.dual_write.throttle import Throttle, is_shared
from registry_api.capabilities import ForeignWriters, LateWrite, MigrationSource, provides
from registry_api.errors import CorruptDocument, PreflightFailed, RegistryError, TaskNotFound
from registry_api.migration import MigrationPhase, PhaseRecord, Progress, VerifyReport
from registry_api.records import Head, TaskSnapshot
from registry_api.roles import Role, RoleStamp
from registry_api.store import RegistryStore

__all__ = ["BaseStep", "Step", "StepContext"]


@dataclass(slots=True, kw_only=True)
class StepContext:
    """The stores, settings and notes of a step.

    ``record`` returns the phase record as it is now. ``heads`` returns the source's heads.
    ``keep_logs`` wraps the target so that it writes the logs, even if the settings turn them off:
    after a rollback they are the record of a source that keeps logs. ``logged_writer`` returns
    the writer of record with its logs, if they are kept. Only steps that need the target open it,
    so that a rollback from a broken target works.
    """

    open_source: Callable[[], RegistryStore]
    drop_source: Callable[[], None]
    record: Callable[[], PhaseRecord]
    roles: Roles
    open_replicator: Callable[[], Replicator]
    throttle: Throttle
    keep_logs: Callable[[RegistryStore], RegistryStore]
    logged_writer: Callable[[], RegistryStore]
    heads: Callable[[], dict[str, Head]]
    catch_up: Callable[[list[str], Progress | None], int]
    progress: Progress | None = None
    reason: str | None = None
    archive: str | None = None  # the one that the phase record names
    retire_seconds: float = 0.0
    patience: float = 0.0  # seconds to wait for removed documents
    notes: list[str] = field(default_factory=list)

    @property
    def replicator(self) -> Replicator:
        """Return the replicator from source to target."""
        replicator = self.open_replicator()
        replicator.copied = self.throttle.copied
        return replicator

    @property
    def migration_source(self) -> MigrationSource:
        """Return the source; raise PreflightFailed if it is not a MigrationSource."""
        # Opens the target too: no step that changes the source may begin if the target is lost.
        source = self.replicator.source
        if not provides(source, MigrationSource):
            raise PreflightFailed(
                f"the store {source.info.name!r} cannot be fenced and retired as a source",
                next_step="Stay in phase 2: only a store that implements MigrationSource can",
            )
        return source

    @property
    def foreign(self) -> ForeignWriters | None:
        """Return the source if programs outside the contract edit its files, else None."""
        if (
            self.record().phase >= MigrationPhase.WRITE_CUTOVER
            and not self.record().foreign_writers
        ):
            return None  # known without opening a source that the move has removed
        source = self.source
        return source if provides(source, ForeignWriters) else None

    @property
    def source(self) -> RegistryStore:
        """The source of the move."""
        return self.open_source()

    def fence_stamp(self) -> RoleStamp:
        """Return the stamp of a store that is fenced while the switch is not committed."""
        return self.roles.stamp(self.record(), Role.FENCED)

    def writer_stamp(self) -> RoleStamp:
        """Return the stamp of the writer of record."""
        return self.roles.stamp(self.record(), Role.WRITER)

    def settle_roles(self) -> None:
        """Give both stores the roles that the phase record says; close the old writer first."""
        record = self.record()
        for place, role in roles_in(record).items():
            writer = "" if role is Role.WRITER else record.writer
            # A source that can be written again must not depend on a target that may be lost.
            with self._best_effort() if role is Role.REPLICA else nullcontext():
                store = self._store(place)
                self.roles.refuse_stranger(store, record, place)
                self.roles.give(store, record, role, writer=writer)

    def refuse_taken_target(self) -> None:
        """Raise BackendMismatch if another registry has stamped the target since it was opened.

        Stamps are not written on a condition: of two registries that begin a move to one new target
        at the same moment the later stamp counts, and the earlier registry finds it here.
        """
        self.roles.refuse_stranger(self.replicator.target, self.record(), self.record().target)

    def roles_differ(self) -> bool:
        """Return whether a store's role is not the one that the phase record says."""
        for place, role in roles_in(self.record()).items():
            with self._best_effort() if role is Role.REPLICA else nullcontext():
                if not self.roles.has(self._store(place), role):
                    return True
        return False

    def _store(self, place: str) -> RegistryStore:
        return self.source if place == self.record().source else self.replicator.target

    @staticmethod
    @contextmanager
    def _best_effort() -> Iterator[None]:
        with suppress(RegistryError, OSError), answering_target():
            yield

    def now(self, task_id: str) -> TaskSnapshot | None:
        """Return the task's state in the target, None if it has none."""
        try:
            return self.replicator.target.load(task_id)
        except TaskNotFound:
            return None

    def set_late_writes_aside(self) -> None:
        """Keep late writes to the fenced source in conflicts/, with a note for each."""
        if self.foreign is None:
            return
        found = self.foreign.late_writes(self.now)
        self.notes += [
            f"{_name(s)}: a late write after the cut-over, kept: {s.kept}" for s in found
        ]

    def complete_logs(
        self, open_left: Callable[[], RegistryStore], fenced_at: datetime | None
    ) -> None:
        """Write the log lines of what was committed to the store that was left, until it was
        fenced: other hosts that shared it kept no logs for this workspace.

        Best effort: the store that was left may be down by now. ``reconcile`` writes them too.
        """
        with self._best_effort():
            logged = self.logged_writer()
            if provides(logged, _KeepsLines) and is_shared(open_left()):
                logged.write_missing(fenced_at or datetime.fromisoformat(self.record().at))

    def retire(self, archive: str | None, *, at_once: bool = False) -> None:
        """Remove what was archived; nothing to do if None (a workspace created in phase 4).

        ``at_once``: only move it away; a later call deletes it.
        """
        if archive is None:
            return
        progress = self.progress
        try:
            found = self.migration_source.retire(
                archive,
                wait=self.retire_seconds,
                patience=0.0 if at_once else self.patience,
                now=self.now,
                progress=None if progress is None else lambda n, of: progress("wait", n, of),
            )
        except CorruptDocument as error:
            # The switch is committed: keep the documents rather than block the whole registry.
            again = "to make another archive: registry-backend switch 3, then 4"
            self.notes.append(f"nothing was removed: {error.message}; {again}")
            return
        self.notes += [f"{_name(s)}: a late write after archiving, kept: {s.kept}" for s in found]
        left = self.migration_source.retiring()
        self.drop_source()
        if left:
            self.notes.append(
                f"{left} removed file(s) are pending deletion; `recover` deletes them"
            )


class _KeepsLines(Protocol):
    def write_missing(self, before: datetime) -> int:
        """Write the lines of records that are older than ``before``; return how many."""


def _name(late_write: LateWrite) -> str:
    return f"task {late_write.task_id}" if late_write.task_id else "the list of tasks"


class Step(Protocol):
    """One step between adjacent phases."""

    verified: VerifyReport | None
    is_marked: bool  # it changes files or roles while the gate is held: recovered first

    def prepare(self) -> int:
        """Do the long part while writers continue; returns how many tasks were copied."""

    def final_sync(self) -> int:
        """Work while the gate is held, before the commit; raises Busy if it should be retried."""

    def undo(self) -> None:
        """Undo what the step did before the record was replaced."""

    def finalize(self) -> None:
        """Work while the gate is held, after the record was replaced."""

    def clean_up(self, record: PhaseRecord) -> None:
        """Work after the commit, while writers continue."""

    def changed(self, record: PhaseRecord) -> PhaseRecord:
        """Return the new record with this step's results added."""


@dataclass(slots=True)
class BaseStep:
    """A step that does nothing: the base class of the others."""

    context: StepContext
    verified: VerifyReport | None = None
    is_marked: bool = False

    def prepare(self) -> int:
        """See Step.prepare."""
        return 0

    def final_sync(self) -> int:
        """See Step.final_sync."""
        return 0

    def undo(self) -> None:
        """See Step.undo."""

    def finalize(self) -> None:
        """See Step.finalize."""

    def clean_up(self, record: PhaseRecord) -> None:
        """See Step.clean_up."""

    def changed(self, record: PhaseRecord) -> PhaseRecord:
        """See Step.changed."""
        return record
