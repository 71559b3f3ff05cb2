"""Bring the target to the source's revision, task by task: by replay, or else as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from registry_api.changeset import Change, FeedCursor, Put
from registry_api.errors import CursorExpired, NotNext, TaskNotFound
from registry_api.models import KINDS, Finding, Kind, ProgressEntry, record_key
from registry_api.query import RecordQuery
from registry_api.silence import all_records
from registry_api.snapshot import Head
from registry_api.store import MoveTarget, RegistryStore

__all__ = ["Mirror"]

_PAGE = 500  # changes a transaction: others write to the target between two of them


class Mirror:
    """Knows a source and a target; the target's own (lineage, revision) is the mark.

    A change is applied only onto the revision just before it: a delta over a gap would hide the gap
    for ever. Otherwise the gap is healed by replaying the source's feed with its ids, revisions,
    times and numbers.
    """

    def __init__(self, source: RegistryStore, target: RegistryStore) -> None:
        self.source = source
        self.target = target
        self._into = cast(MoveTarget, target)

    def apply(self, change: Change) -> None:
        """Mirror one change that the source has just committed, healing what lies before it."""
        try:
            self._into.apply(change)
        except NotNext:
            self.heal(change.changeset.task_id)

    def heal(self, task_id: str) -> bool:
        """Bring one task to where the source stands; returns whether anything was to do."""
        source = self.source.head(task_id)
        mark = self.target.head(task_id)
        if (mark.lineage, mark.revision) == (source.lineage, source.revision):
            return False
        if source.revision == 0:
            return False
        if mark.revision == 0 or (
            mark.lineage == source.lineage and mark.revision <= source.revision
        ):
            try:
                self._replay(task_id, mark, upto=source.revision)
            except (CursorExpired, NotNext):
                pass
            else:
                return True
        self._replace(task_id)
        return True

    def _replay(self, task_id: str, mark: Head, *, upto: int) -> None:
        """Apply what follows the mark, as far as the source stood when we looked.

        No further: beside a writer that never rests there would always be more.
        """
        first = self.source.changes(task_id=task_id, limit=1)
        if not first:
            raise NotNext("the source has no feed of the task")
        feed_id = first[0].cursor.feed_id
        cursor = FeedCursor(feed_id=feed_id, number=mark.number) if mark.revision else None
        revision = mark.revision
        while revision < upto:
            page = self.source.changes(cursor, task_id=task_id, limit=_PAGE)
            if not page:
                return
            self._into.apply_all(page)
            cursor, revision = page[-1].cursor, page[-1].revision

    def _replace(self, task_id: str) -> None:
        """Set the whole task: for a feed that no longer reaches back to the mark."""
        snapshot = self.source.load(task_id)
        feed = tuple(self._feed(task_id))
        tail = tuple(c for c in feed if c.revision <= snapshot.revision)
        # What came while we read is in the histories already, but is not part of this revision.
        later = {
            (KINDS[type(op.record)], record_key(op.record))
            for change in feed
            if change.revision > snapshot.revision
            for op in change.changeset.ops
            if isinstance(op, Put)
        }
        self._into.replace(snapshot, self._histories(task_id, later), feed=tail)

    def _feed(self, task_id: str) -> Iterator[Change]:
        cursor = None
        while page := self.source.changes(cursor, task_id=task_id, limit=_PAGE):
            yield from page
            cursor = page[-1].cursor

    def _histories(
        self, task_id: str, later: set[tuple[Kind, str]]
    ) -> Iterator[ProgressEntry | Finding]:
        for kind in (Kind.PROGRESS, Kind.FINDING):
            for record in all_records(self.source, kind, RecordQuery(task_id=task_id)):
                if (kind, record_key(record)) not in later:
                    yield cast(ProgressEntry | Finding, record)

    def lagging(self, task_ids: list[str]) -> list[str]:
        """Return the tasks whose target is not where the source stands."""
        out = []
        for task_id in task_ids:
            try:
                source, mark = self.source.head(task_id), self.target.head(task_id)
            except TaskNotFound:
                continue
            if (source.lineage, source.revision) != (mark.lineage, mark.revision):
                out.append(task_id)
        return out
