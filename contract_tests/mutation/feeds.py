"""Mutants whose feed has gaps, a wrong order or wrong cursors."""

from __future__ import annotations

from dataclasses import replace

from contract_tests.mutation.base import _again, mutant
from registry_api import (
    Change,
    Changeset,
    Commit,
    FeedCursor,
    Head,
    Put,
    errors,
)
from registry_api.capabilities import Compacted
from registry_api.client import compactable
from registry_api.records import Finding, next_chain
from registry_api.wrappers import StoreWrapper


@mutant
class FeedGap(StoreWrapper):
    """Omits changesets without an expected revision (appends) from the feed."""

    def changes(
        self, after: FeedCursor | None = None, *, task_id: str | None = None, limit: int = 100
    ) -> tuple[Change, ...]:
        found = self.inner.changes(after, task_id=task_id, limit=limit)
        return tuple(c for c in found if c.changeset.expected is not None) or found[:1]


@mutant
class FeedOutOfOrder(StoreWrapper):
    """Returns the changes of a feed page newest first."""

    def changes(
        self, after: FeedCursor | None = None, *, task_id: str | None = None, limit: int = 100
    ) -> tuple[Change, ...]:
        return self.inner.changes(after, task_id=task_id, limit=limit)[::-1]


@mutant
class CursorSkip(StoreWrapper):
    """Skips the first change after a cursor."""

    def changes(
        self, after: FeedCursor | None = None, *, task_id: str | None = None, limit: int = 100
    ) -> tuple[Change, ...]:
        if after is not None:
            after = replace(after, number=after.number + 1)
        return self.inner.changes(after, task_id=task_id, limit=limit)


@mutant
class LinkOfTheNewestOnly(StoreWrapper):
    """Makes each link of the chain from its own changeset alone."""

    def head(self, task_id: str) -> Head:
        head = self.inner.head(task_id)
        newest = self.inner.changes(task_id=task_id, limit=1000)[-1:]
        links = [next_chain("", head.revision, change.digest) for change in newest]
        return replace(head, chain="".join(links))


@mutant
class CursorOfAnyFeed(StoreWrapper):
    """Answers the cursor of another feed, or an expired one, with an empty page."""

    def changes(
        self, after: FeedCursor | None = None, *, task_id: str | None = None, limit: int = 100
    ) -> tuple[Change, ...]:
        try:
            return self.inner.changes(after, task_id=task_id, limit=limit)
        except errors.CursorExpired:
            return ()


@mutant
class FindingsNotInFeed(StoreWrapper):
    """Omits findings from the changesets in the feed."""

    def changes(
        self, after: FeedCursor | None = None, *, task_id: str | None = None, limit: int = 100
    ) -> tuple[Change, ...]:
        def without(changeset: Changeset) -> Changeset:
            ops = tuple(
                op
                for op in changeset.ops
                if not (isinstance(op, Put) and isinstance(op.record, Finding))
            )
            return replace(changeset, ops=ops or changeset.ops)

        found = self.inner.changes(after, task_id=task_id, limit=limit)
        return tuple(replace(c, changeset=without(c.changeset)) for c in found)


@mutant
class RefusalInFeed(StoreWrapper):
    """Records a refused changeset as a revision of the task."""

    def commit(self, changeset: Changeset) -> Commit:
        try:
            return self.inner.commit(changeset)
        except errors.Conflict as conflict:
            if conflict.actual:
                task = Put(self.inner.load(changeset.task_id).task)
                self.inner.commit(_again(changeset, ops=[task], expected=conflict.actual))
            raise


@mutant
class HeadOfTheWholeFeed(StoreWrapper):
    """Gives as a head's number that of the newest line of all tasks."""

    def head(self, task_id: str) -> Head:
        found = self.inner.head(task_id)
        newest = self.inner.changes(limit=1000)
        return replace(found, number=newest[-1].cursor.number) if newest else found


@mutant
class CompactsNothing(StoreWrapper):
    """Counts the expired lines of the feed, and keeps them."""

    def compact(self, after: int = 0, *, dry_run: bool = False) -> Compacted:
        """See Compactable.compact."""
        return compactable(self.inner).compact(after, dry_run=True)
