"""Bring the target up to the source's revision, per task: by replaying changes or as a whole."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import cast

from registry_api.capabilities import MoveTarget
from registry_api.errors import CursorExpired, NotNext, TaskNotFound
from registry_api.migration import Progress
from registry_api.records import (
    HISTORIES,
    KINDS,
    MAX_LIMIT,
    Change,
    FeedCursor,
    Head,
    History,
    Kind,
    Put,
    RecordQuery,
    may_be_same,
    record_key,
)
from registry_api.store import RegistryStore

__all__ = ["Replicator"]

_BATCH = 20  # tasks between two progress reports
_PAGE = 500  # changes in one transaction: between two of them other writers use the target


class Replicator:
    """A source and its target, whose (lineage, revision) of a task is the replication position.

    A change is applied only onto the revision just before it: a delta applied over a gap would hide
    the gap permanently. If changes are missing, the target catches up: the source's feed is
    replayed with its ids, revisions, times and numbers.
    """

    def __init__(
        self,
        source: RegistryStore,
        target: RegistryStore,
        *,
        copied: Callable[[int, str, Head], None] | None = None,
    ) -> None:
        """Keep ``copied``: called per page with the number of changes, task id and source head."""
        self.source = source
        self.target = target
        self._into = cast(MoveTarget, target)
        self._feed_id: str | None = None
        self.copied = copied
        self._proved = set[str]()  # tasks whose position is known to be in the source's history

    def reversed(self) -> Replicator:
        """Return the replicator from the target to the source, as a rollback needs it."""
        return Replicator(self.target, self.source, copied=self.copied)

    def apply(self, change: Change) -> None:
        """Replicate one change that the source just committed; catch up first if there is a gap."""
        try:
            self._into.apply(change)
        except NotNext:
            self._proved.discard(change.changeset.task_id)
            self.catch_up(change.changeset.task_id)

    def catch_up_all(self, task_ids: Iterable[str]) -> int:
        """Bring several tasks up to date, many in one transaction; returns how many were behind."""
        caught_up, batch = 0, list[Change]()
        for task_id in task_ids:
            changes = self._missing(task_id)
            if changes is None:
                caught_up += self.catch_up(task_id)
                continue
            caught_up += bool(changes)
            batch += changes
            if len(batch) >= _PAGE:
                self._apply(batch)
                batch = []
        self._apply(batch)
        return caught_up

    def catch_up_in_batches(
        self,
        task_ids: list[str],
        *,
        what: str,
        progress: Progress | None,
        inside: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> int:
        """Bring tasks up to date, a few at a time within ``inside``; returns how many were behind.

        ``progress`` is told of ``what`` after each batch.
        """
        caught_up = 0
        for start in range(0, len(task_ids), _BATCH):
            with inside():
                caught_up += self.catch_up_all(task_ids[start : start + _BATCH])
            if progress is not None:
                progress(what, min(start + _BATCH, len(task_ids)), len(task_ids))
        return caught_up

    def _missing(self, task_id: str) -> tuple[Change, ...] | None:
        """Return the changes the target lacks; None unless they are a short tail of the feed."""
        if self.prove(task_id):
            return None
        source, position = self.source.head(task_id), self.target.head(task_id)
        if position.is_level(source):
            return ()
        lag = source.revision - position.revision
        if position.lineage not in {"", source.lineage} or not 0 < lag <= _PAGE:
            return None
        try:
            found = self.source.changes(
                self.cursor(task_id, position.number), task_id=task_id, limit=lag
            )
        except (CursorExpired, NotNext):
            return None
        return found if found and found[0].revision == position.revision + 1 else None

    def _apply(self, changes: list[Change]) -> None:
        try:
            if changes:
                self._into.apply_all(changes)
                self._tell(changes)
        except NotNext:  # another writer replicated one of them first
            for task_id in dict.fromkeys(c.changeset.task_id for c in changes):
                self.catch_up(task_id)

    def _tell(self, changes: Sequence[Change]) -> None:
        if self.copied is not None:
            task_id = changes[-1].changeset.task_id
            self.copied(len(changes), task_id, self.source.head(task_id))

    def cursor(self, task_id: str, number: int) -> FeedCursor | None:
        """Return the cursor just after a number in the source's feed, None for the feed's start."""
        if not number:
            return None
        if self._feed_id is None:
            first = self.source.changes(task_id=task_id, limit=1)
            if not first:
                raise NotNext("the source has no feed of the task")
            self._feed_id = first[0].cursor.feed_id
        return FeedCursor(feed_id=self._feed_id, number=number)

    def catch_up(self, task_id: str, *, upto: Head | None = None) -> bool:
        """Bring one task up to the source's revision or ``upto``; returns whether it was behind."""
        forked = self.prove(task_id)
        source = upto or self.source.head(task_id)
        position = self.target.head(task_id)
        if forked or self._is_other_history(task_id, source, position):
            self._refill(task_id)
            return True
        if position.is_level(source):
            return False
        if source.revision == 0:
            return False
        if position.lineage == source.lineage and position.revision > source.revision:
            return False  # another process has brought both further since they were read
        if position.revision == 0 or (
            position.lineage == source.lineage and position.revision <= source.revision
        ):
            try:
                self._replay(task_id, position, upto=source.revision)
            except (CursorExpired, NotNext):
                self._feed_id = None  # the source may have started another feed
            else:
                return True
        self.replace(task_id)
        return True

    # -- forked histories ----------------------------------------------------------------------

    def _is_other_history(self, task_id: str, source: Head, position: Head) -> bool:
        """Return whether the target shows a fork by its position alone: at the source's revision
        with another chain, or ahead of the source, which a replica never is.
        """
        if not position.revision or position.lineage != source.lineage:
            return False
        if position.revision > source.revision:  # or the source was written to since it was read
            return position.revision > self.source.head(task_id).revision
        return position.revision == source.revision and not position.is_level(source)

    def prove(self, task_id: str) -> bool:
        """Return whether the target's history of a task differs from the source's (a fork).

        That happens when one of the two was restored from a backup and written to again. Checked
        once per process and task, because both may have the same revision and a store of contract
        1.0 has no chain; later forks show by their chain, or as a gap.
        """
        if task_id in self._proved:
            return False
        position = self.target.head(task_id)
        if self._is_fork(task_id, position):
            return True
        self._proved.add(task_id)
        return False

    def _is_fork(self, task_id: str, position: Head) -> bool:
        """Compare the change at the replication position in both stores: its chain, or where one
        has none its id and digest.
        """
        source = self.source.head(task_id)  # read after the position: never behind it
        if not position.revision or source.lineage != position.lineage:
            return False
        if source.revision < position.revision:
            return True
        try:
            before = self.cursor(task_id, position.number - 1)
            mine = self.source.changes(before, task_id=task_id, limit=1)
            theirs = self.target.changes(before, task_id=task_id, limit=1)
        except (CursorExpired, NotNext):
            return False  # no longer in the feed: cannot be checked
        if not mine or not theirs or theirs[0].cursor.number != position.number:
            return False
        if mine[0].cursor.number != position.number:
            return mine[0].revision <= position.revision
        if not may_be_same(mine[0].chain, position.chain):
            return True
        return _identity(mine[0]) != _identity(theirs[0])

    def _refill(self, task_id: str) -> None:
        """Replace a forked task in the target, also by an earlier revision.

        A store refuses an earlier revision of the same lineage, so the task first gets another
        lineage. A process that dies in between leaves a task of an unknown lineage, which the next
        catch-up replaces.
        """
        snapshot = self.source.load(task_id)
        self._into.replace(replace(snapshot, lineage=str(uuid.uuid4())), ())
        self.replace(task_id)
        self._proved.add(task_id)

    def _replay(self, task_id: str, position: Head, *, upto: int) -> None:
        """Apply the changes after the replication position, up to and including ``upto``.

        Not further: with a writer that never pauses it would not end.
        """
        cursor = self.cursor(task_id, position.number)
        revision = position.revision
        while revision < upto:
            limit = min(_PAGE, upto - revision)
            page = self.source.changes(cursor, task_id=task_id, limit=limit)
            if not page:
                return
            self._into.apply_all(page)
            self._tell(page)
            cursor, revision = page[-1].cursor, page[-1].revision

    def replace(self, task_id: str) -> None:
        """Replace the whole task in the target.

        For a feed that no longer reaches back to the replication position, or a target that lost
        data.
        """
        snapshot = self.source.load(task_id)
        newer, tail = _Newer(self.source, task_id, snapshot.revision), list[Change]()
        for change in newer.read():
            if change.revision <= snapshot.revision:
                tail.append(change)
        self._into.replace(snapshot, self._histories(task_id, newer), feed=tuple(tail))

    def _histories(self, task_id: str, newer: _Newer) -> Iterator[History]:
        """Yield the history records of a revision, without those committed after it."""
        query = RecordQuery(task_id=task_id)
        for kind in HISTORIES:
            after: str | None = None
            while True:
                page = self.source.list_records(kind, query, after=after, limit=MAX_LIMIT)
                for _ in newer.read():  # all records of this page are in the feed by now
                    pass
                for record in page.items:
                    if (kind, record_key(record)) not in newer.keys:
                        yield cast(History, record)
                after = page.next
                if after is None:
                    break

    def lagging(self, task_ids: list[str]) -> list[str]:
        """Return the tasks that are not at the source's revision in the target, or are forked."""
        out = []
        for task_id in task_ids:
            try:
                source, position = self.source.head(task_id), self.target.head(task_id)
            except TaskNotFound:
                continue
            level = source.is_level(position)
            if not level or self.prove(task_id):
                out.append(task_id)
        return out


def _identity(change: Change) -> tuple[object, ...]:
    return change.changeset.id, change.digest, change.revision


class _Newer:
    """The records committed after a revision of a task, as far as its feed was read."""

    def __init__(self, store: RegistryStore, task_id: str, revision: int) -> None:
        self.keys = set[tuple[Kind, str]]()
        self._store, self._task_id, self._revision = store, task_id, revision
        self._cursor: FeedCursor | None = None

    def read(self) -> Iterator[Change]:
        """Read the rest of the feed and yield its changes."""
        while page := self._store.changes(self._cursor, task_id=self._task_id, limit=_PAGE):
            for change in page:
                if change.revision > self._revision:
                    self.keys |= {
                        (KINDS[type(op.record)], record_key(op.record))
                        for op in change.changeset.ops
                        if isinstance(op, Put)
                    }
                yield change
            self._cursor = page[-1].cursor
