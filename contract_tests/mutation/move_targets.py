"""Mutants that fail as the target of a move."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from contract_tests.mutation.base import mutant
from registry_api import (
    Change,
    Commit,
    History,
    Kind,
    Put,
    RecordQuery,
    RegistryStore,
    TaskSnapshot,
    errors,
)
from registry_api.wrappers import StoreWrapper


class _Target(StoreWrapper):
    """A wrapper of a move target; the base class of the mutants of move targets."""

    inner: Any

    def apply(self, change: Change) -> Commit:
        found: Commit = self.inner.apply(change)
        return found

    def apply_all(self, changes: Sequence[Change]) -> None:
        self.inner.apply_all(changes)

    def replace(
        self,
        snapshot: TaskSnapshot,
        histories: Iterable[History],
        *,
        feed: tuple[Change, ...] = (),
    ) -> None:
        self.inner.replace(snapshot, histories, feed=feed)

    def read_stamp(self, name: str) -> str | None:
        found: str | None = self.inner.read_stamp(name)
        return found

    def write_stamp(self, name: str, value: str) -> None:
        self.inner.write_stamp(name, value)


@mutant
class GapHidden(_Target):
    """Reports a change as applied although it does not follow the task's revision."""

    def apply(self, change: Change) -> Commit:
        try:
            return super().apply(change)
        except errors.NotNext:
            return Commit(
                task_id=change.changeset.task_id,
                changeset_id=change.changeset.id,
                lineage=change.lineage,
                revision=change.revision,
                cursor=change.cursor,
            )


@mutant
class HalfApplied(_Target):
    """Applies several changes one by one and keeps those before the one that fails."""

    def apply_all(self, changes: Sequence[Change]) -> None:
        for change in changes:
            self.inner.apply(change)


@mutant
class HistoriesLeftBehind(_Target):
    """Replaces a task without its histories."""

    def replace(
        self,
        snapshot: TaskSnapshot,
        histories: Iterable[History],
        *,
        feed: tuple[Change, ...] = (),
    ) -> None:
        self.inner.replace(snapshot, (), feed=feed)


@mutant
class AppendRefused(_Target):
    """Refuses a change that appends a finding which ``replace`` already brought."""

    def apply(self, change: Change) -> Commit:
        task_id = change.changeset.task_id
        head = self.inner.head(task_id)
        if (head.lineage, head.revision) == (change.lineage, change.revision - 1):
            page = self.inner.list_records(Kind.FINDING, RecordQuery(task_id=task_id))
            for op in change.changeset.ops:
                if isinstance(op, Put) and op.record in page.items:
                    raise errors.RecordExists("it is there", next_step="Give it another id")
        return super().apply(change)


@mutant
class OtherHistoryAccepted(_Target):
    """Applies a change of another history if only its revision is the next one."""

    def apply(self, change: Change) -> Commit:
        try:
            return super().apply(change)
        except errors.NotNext:
            return super().apply(replace(change, chain=""))


@mutant
class ChainLeftBehind(_Target):
    """Replaces a task without its chain."""

    def replace(
        self,
        snapshot: TaskSnapshot,
        histories: Iterable[History],
        *,
        feed: tuple[Change, ...] = (),
    ) -> None:
        self.inner.replace(replace(snapshot, chain=""), histories, feed=feed)


@mutant
class FeedLeftBehind(_Target):
    """Replaces a task with the last line of its feed only, so that older ids are unknown."""

    def replace(
        self,
        snapshot: TaskSnapshot,
        histories: Iterable[History],
        *,
        feed: tuple[Change, ...] = (),
    ) -> None:
        self.inner.replace(snapshot, histories, feed=feed[-1:])


@mutant
class StampsInMemory(_Target):
    """Keeps the stamps of a move in memory only."""

    def __init__(self, inner: RegistryStore) -> None:
        super().__init__(inner)
        self._stamps: dict[str, str] = {}

    def read_stamp(self, name: str) -> str | None:
        return self._stamps.get(name)

    def write_stamp(self, name: str, value: str) -> None:
        self._stamps[name] = value


@mutant
class ApplyInTurnOnly(_Target):
    """Refuses a change that another thread is applying."""

    def __init__(self, inner: RegistryStore) -> None:
        super().__init__(inner)
        self._applied = list[object]()

    def apply(self, change: Change) -> Commit:
        twin = change.changeset.id in self._applied
        self._applied.append(change.changeset.id)
        try:
            time.sleep(0.001)
            if twin:
                raise errors.NotNext("another thread applies it", next_step="Try again")
            return super().apply(change)
        finally:
            self._applied.remove(change.changeset.id)
