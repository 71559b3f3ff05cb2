"""Mutants that apply only a part of a changeset, or in another order."""

from __future__ import annotations

from dataclasses import replace

from contract_tests.mutation.base import _again, mutant
from registry_api import (
    Changeset,
    Commit,
    Delete,
    Put,
    Task,
    errors,
)
from registry_api.wrappers import StoreWrapper


@mutant
class DeletesDropped(StoreWrapper):
    """Ignores deletes."""

    def commit(self, changeset: Changeset) -> Commit:
        ops = tuple(op for op in changeset.ops if not isinstance(op, Delete))
        if not ops:
            ops = (Put(self.inner.load(changeset.task_id).task),)
        return self.inner.commit(replace(changeset, ops=ops))


@mutant
class AppendCreates(StoreWrapper):
    """Creates the task when something is appended to a task that does not exist."""

    def commit(self, changeset: Changeset) -> Commit:
        try:
            return self.inner.commit(changeset)
        except errors.TaskNotFound:
            task = Task(task_id=changeset.task_id, created_at=changeset.at)
            self.inner.commit(_again(changeset, ops=[Put(task)], expected=0))
            return self.inner.commit(changeset)


@mutant
class PartialRollback(StoreWrapper):
    """Applies the first op of a refused changeset."""

    def commit(self, changeset: Changeset) -> Commit:
        try:
            return self.inner.commit(changeset)
        except errors.RecordExists:
            self.inner.commit(_again(changeset, ops=changeset.ops[:1]))
            raise


@mutant
class OpsReordered(StoreWrapper):
    """Applies all deletes before all puts, whatever the order of the ops."""

    def commit(self, changeset: Changeset) -> Commit:
        ops = sorted(changeset.ops, key=lambda op: isinstance(op, Put))
        return self.inner.commit(replace(changeset, ops=tuple(ops)))
