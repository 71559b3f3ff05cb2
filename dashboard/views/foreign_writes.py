"""Which of the newest changes came from programs that write the registry's files by themselves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from registry_api import RegistryStore
from registry_api.client import end_of_feed
from registry_api.errors import CursorExpired, RegistryError
from registry_api.records import Change, FeedCursor, History, Put
from registry_api.workspace import at_most

__all__ = ["ForeignWrites", "foreign_writes"]

_RECENT = timedelta(hours=1)
_LOOKED_AT = 500  # changes
_READING = 0.1  # seconds to wait for locks
_ACTOR = "foreign"  # of a commit that absorbs what another program wrote


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignWrites:
    """How many of the newest ``of`` changes came from others, and the last one: task and time."""

    number: int
    of: int
    task_id: str
    at: datetime | None

    @property
    def is_recent(self) -> bool:
        """Whether the last one is less than an hour old."""
        return self.at is not None and datetime.now(UTC) - self.at < _RECENT


def foreign_writes(store: RegistryStore) -> ForeignWrites | None:
    """Look at the newest 500 changes of the feed; None if it cannot be read now."""
    try:
        with at_most(_READING):  # or the page would wait for a switch of another program
            return _newest(store)
    except RegistryError:
        return None


def _newest(store: RegistryStore) -> ForeignWrites:
    end = end_of_feed(store)
    changes: tuple[Change, ...] = ()
    if end is not None:
        first = FeedCursor(feed_id=end.feed_id, number=max(0, end.number - _LOOKED_AT))
        try:
            changes = store.changes(first, limit=_LOOKED_AT)
        except CursorExpired:  # only newer ones are kept
            changes = store.changes(None, limit=_LOOKED_AT)
    others = [c for c in changes if c.changeset.actor == _ACTOR and _was_new(c)]
    last = others[-1].changeset if others else None
    return ForeignWrites(
        number=len(others),
        of=len(changes),
        task_id=last.task_id if last else "",
        at=last.at if last else None,
    )


def _was_new(change: Change) -> bool:
    """Whether the other program wrote it just before, as far as the change can tell.

    The first change of a task is its adoption, and then its old log lines are taken in.
    """
    records = [op.record for op in change.changeset.ops if isinstance(op, Put)]
    times = [r.timestamp for r in records if isinstance(r, History)]
    if times and len(times) == len(records):
        return change.changeset.at - max(times) < _RECENT
    return change.revision > 1
