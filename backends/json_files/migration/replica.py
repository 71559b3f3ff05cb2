"""The store as a replica of the one that took over; see Replica."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from backends.json_files.journal.feed_counter import FeedNumbers
from backends.json_files.journal.lines import History
from backends.json_files.task.task import Task
from registry_api.records import Change, Commit, TaskSnapshot, commit_of

__all__ = ["JsonReplica"]


class JsonReplica:
    """Applies the changes of another store to its tasks; ``task`` returns one by its id."""

    def __init__(self, task: Callable[[str], Task], numbers: FeedNumbers) -> None:
        self._task = task
        self._numbers = numbers

    def apply(self, change: Change) -> Commit:
        """See Replica.apply."""
        replayed = not self._task(change.changeset.task_id).follows([change])
        if not replayed:
            self.apply_all([change])
        return replace(commit_of(change), replayed=replayed)

    def apply_all(self, changes: Sequence[Change]) -> None:
        """See Replica.apply_all; a refusal comes before anything is written."""
        groups: dict[str, list[Change]] = {}
        for change in changes:
            groups.setdefault(change.changeset.task_id, []).append(change)
        for name, group in groups.items():
            self._task(name).follows(group)
        self._follow(changes)
        for name, group in groups.items():
            self._task(name).apply_all(group)

    def replace(
        self, snapshot: TaskSnapshot, histories: Iterable[History], *, feed: tuple[Change, ...]
    ) -> None:
        """See Replica.replace."""
        self._follow(feed)
        self._task(snapshot.task.task_id).replace_with(snapshot, histories, feed)

    def _follow(self, changes: Sequence[Change]) -> None:
        """Move the feed counter past the numbers of changes, before these are written.

        A process that finishes an interrupted write no longer knows the numbers.
        """
        if changes:
            newest = max((c.cursor for c in changes), key=lambda c: c.number)
            self._numbers.follow(newest.feed_id, newest.number)
