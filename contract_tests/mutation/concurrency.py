"""Mutants that lose updates, tear reads or acknowledge too soon."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from contract_tests.mutation.base import _again, mutant
from registry_api import (
    Changeset,
    Commit,
    FeedCursor,
    Refs,
    RegistryStore,
    TaskSnapshot,
    errors,
)
from registry_api.wrappers import StoreWrapper


@mutant
class LostUpdate(StoreWrapper):
    """Checks the expected revision before the write, not together with it, so that another write in
    between is overwritten.
    """

    def commit(self, changeset: Changeset) -> Commit:
        head = self.inner.head(changeset.task_id)
        if changeset.expected is None or head.revision != changeset.expected:
            return self.inner.commit(changeset)
        while True:
            time.sleep(0.002)
            head = self.inner.head(changeset.task_id)
            try:
                return self.inner.commit(replace(changeset, expected=head.revision))
            except errors.Conflict:
                continue


@mutant
class NoCompare(StoreWrapper):
    """Accepts every write, whatever revision it expects."""

    def commit(self, changeset: Changeset) -> Commit:
        try:
            return self.inner.commit(changeset)
        except errors.Conflict as conflict:
            return self.inner.commit(replace(changeset, expected=conflict.actual))


@mutant
class OneByOne(StoreWrapper):
    """Applies the ops of a changeset in separate commits, so that readers see a part of it."""

    def commit(self, changeset: Changeset) -> Commit:
        if changeset.expected in {None, 0} or len(changeset.ops) < 2:
            return self.inner.commit(changeset)
        for op in changeset.ops[:-1]:
            done = self.inner.commit(_again(changeset, ops=[op]))
            changeset = replace(changeset, expected=done.revision)
            time.sleep(0.002)
        return self.inner.commit(replace(changeset, ops=changeset.ops[-1:]))


@mutant
class TornRead(StoreWrapper):
    """Assembles a snapshot from two separate reads."""

    def load(self, task_id: str, *, only: Refs | None = None) -> TaskSnapshot:
        first = self.inner.load(task_id, only=only)
        time.sleep(0.002)
        second = self.inner.load(task_id, only=only)
        return replace(second, agents=(*first.agents[:1], *second.agents[1:]))


@mutant
class StaleCache(StoreWrapper):
    """Caches a task and reads it again only after its own write."""

    def __init__(self, inner: RegistryStore) -> None:
        super().__init__(inner)
        self._held: dict[str, TaskSnapshot] = {}

    def load(self, task_id: str, *, only: Refs | None = None) -> TaskSnapshot:
        if only is not None:
            return self.inner.load(task_id, only=only)
        if task_id not in self._held:
            self._held[task_id] = self.inner.load(task_id)
        return self._held[task_id]

    def commit(self, changeset: Changeset) -> Commit:
        self._held.pop(changeset.task_id, None)
        return self.inner.commit(changeset)


@mutant
class AcknowledgedTooSoon(StoreWrapper):
    """Acknowledges a report shortly before it is written."""

    def commit(self, changeset: Changeset) -> Commit:
        head = self.inner.head(changeset.task_id)
        if changeset.expected is not None or not head.revision:
            return self.inner.commit(changeset)
        threading.Timer(0.05, self._later, [changeset]).start()
        last = self.inner.changes(task_id=changeset.task_id, limit=1)[0]
        cursor = replace(last.cursor, number=head.number + 1)
        return Commit(
            task_id=changeset.task_id,
            changeset_id=changeset.id,
            lineage=head.lineage,
            revision=head.revision + 1,
            cursor=cursor,
            replayed=False,
        )

    def _later(self, changeset: Changeset) -> None:
        self.inner.commit(changeset)


@mutant
class WrittenLater(StoreWrapper):
    """Acknowledges a report and writes it only at the next call."""

    def __init__(self, inner: RegistryStore) -> None:
        super().__init__(inner)
        self._held: Changeset | None = None
        self._turn = threading.RLock()

    def around(self, op: str, call: Callable[[], Any]) -> Any:
        with self._turn:
            self._write()
            return call()

    def _write(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            self.inner.commit(held)

    def commit(self, changeset: Changeset) -> Commit:
        with self._turn:
            self._write()
            head = self.inner.head(changeset.task_id)
            if changeset.expected is not None or not head.revision or len(changeset.ops) > 1:
                return self.inner.commit(changeset)
            if changeset.created() is None or head.number != head.revision:
                return self.inner.commit(changeset)
            feed = self.inner.changes(task_id=changeset.task_id, limit=1)[0].cursor.feed_id
            self._held = changeset
            return Commit(
                task_id=changeset.task_id,
                changeset_id=changeset.id,
                lineage=head.lineage,
                revision=head.revision + 1,
                cursor=FeedCursor(feed_id=feed, number=head.number + 1),
            )

    def close(self) -> None:
        with self._turn:
            self._write()
        super().close()
