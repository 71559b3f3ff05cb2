"""Mutants that apply a changeset twice, or do not know it again."""

from __future__ import annotations

import time

from contract_tests.mutation.base import _again, mutant
from registry_api import (
    Changeset,
    Commit,
    History,
    Put,
    RegistryStore,
    errors,
)
from registry_api.wrappers import StoreWrapper


@mutant
class ReplayApplied(StoreWrapper):
    """Applies a changeset again when it is sent a second time."""

    def commit(self, changeset: Changeset) -> Commit:
        done = self.inner.commit(changeset)
        if not done.replayed:
            return done
        head = self.inner.head(changeset.task_id)
        ops = [
            op
            for op in changeset.ops
            if not isinstance(op, Put) or not isinstance(op.record, History)
        ]
        if not ops:
            return done
        return self.inner.commit(_again(changeset, ops=ops, expected=head.revision))


@mutant
class ReplayRefused(StoreWrapper):
    """Answers a retry of an applied changeset with a Conflict."""

    def commit(self, changeset: Changeset) -> Commit:
        done = self.inner.commit(changeset)
        if done.replayed:
            raise errors.Conflict(changeset.task_id, expected=0, actual=done.revision)
        return done


@mutant
class ReplayForgotten(StoreWrapper):
    """Recognises only the changesets that the same store object committed."""

    def __init__(self, inner: RegistryStore) -> None:
        super().__init__(inner)
        self._mine = set[object]()

    def commit(self, changeset: Changeset) -> Commit:
        done = self.inner.commit(changeset)
        if done.replayed and changeset.id not in self._mine:
            raise errors.Conflict(changeset.task_id, expected=0, actual=done.revision)
        self._mine.add(changeset.id)
        return done


@mutant
class AnyContent(StoreWrapper):
    """Applies other content that is sent under a known changeset id."""

    def commit(self, changeset: Changeset) -> Commit:
        try:
            return self.inner.commit(changeset)
        except errors.IdempotencyMismatch:
            head = self.inner.head(changeset.task_id)
            return self.inner.commit(_again(changeset, expected=head.revision))


@mutant
class ReplayLookedUpFirst(StoreWrapper):
    """Looks a changeset id up before the write, not together with it: the same changeset, sent by
    two threads at once, is applied by both.
    """

    def __init__(self, inner: RegistryStore) -> None:
        super().__init__(inner)
        self._sent = list[object]()

    def commit(self, changeset: Changeset) -> Commit:
        twin = changeset.id in self._sent
        self._sent.append(changeset.id)
        try:
            time.sleep(0.001)
            return self.inner.commit(_again(changeset) if twin else changeset)
        finally:
            self._sent.remove(changeset.id)


@mutant
class ShortMemory(StoreWrapper):
    """Knows only the ids of a task's last thousand changesets."""

    def commit(self, changeset: Changeset) -> Commit:
        done = self.inner.commit(changeset)
        newest = self.inner.head(changeset.task_id).revision
        if done.replayed and done.revision < newest - 1000:
            raise errors.ChangesetExpired("it is too old", next_step="Look whether it is there")
        return done
