"""Which of the newest changes came from programs that write the registry's files by themselves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from registry_api import RegistryStore
from registry_api.client import end_of_feed
from registry_api.errors import CursorExpired
from registry_api.records import FeedCursor

__all__ = ["ForeignWrites", "foreign_writes"]

_LOOKED_AT = 500  # changes
_ACTOR = "foreign"  # of a commit that absorbs what another program wrote


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignWrites:
    """How many of the newest ``of`` changes came from others, and the last one: task and time."""

    number: int
    of: int
    task_id: str
    at: datetime | None


def foreign_writes(store: RegistryStore) -> ForeignWrites:
    """Look at the newest 500 changes of the feed."""
    end = end_of_feed(store)
    if end is None:
        return ForeignWrites(number=0, of=0, task_id="", at=None)
    first = FeedCursor(feed_id=end.feed_id, number=max(0, end.number - _LOOKED_AT))
    try:
        changes = store.changes(first, limit=_LOOKED_AT)
    except CursorExpired:  # older ones are gone
        changes = ()
    # The first change of a task is its adoption, whenever its document was written.
    others = [c for c in changes if c.changeset.actor == _ACTOR and c.revision > 1]
    last = others[-1].changeset if others else None
    return ForeignWrites(
        number=len(others),
        of=len(changes),
        task_id=last.task_id if last else "",
        at=last.at if last else None,
    )
