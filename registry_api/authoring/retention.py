"""How long a feed line, and with it the memory of its changeset id, is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from registry_api.errors import Busy, ChangesetExpired, CursorExpired, InvalidChangeset
from registry_api.records.changeset import Change, Changeset

__all__ = [
    "COMPACTING",
    "KEEP",
    "KEEP_CHANGES",
    "TRIM_BATCH",
    "check_fresh",
    "compacted",
    "cursor_expired",
    "forgotten_by",
]

KEEP = timedelta(days=30)

KEEP_CHANGES = 100_000  # a task

_AHEAD = 24 * 3600  # seconds; how far a caller's clock may be ahead

COMPACTING = 0.05  # seconds of one part of a compaction: callers may hold the gate meanwhile

TRIM_BATCH = 16  # lines a writer trims at most, so that no commit pays for a backlog


def check_fresh(changeset: Changeset, expired_before: datetime | None, *, now: datetime) -> None:
    """Raise ChangesetExpired if an unknown id may have been applied and trimmed since.

    Raises InvalidChangeset for an id from the future: once trimmed, it would make every id up to
    its time look expired.

    ``expired_before`` is the latest time inside the ids of the task's trimmed lines: an unknown id
    that is no younger may be one of them. Ids without a time (UUIDv8) are a store's own and derived
    from content; callers never retry them.
    """
    ahead = changeset.id.int >> 80 > (now.timestamp() + _AHEAD) * 1000  # without making a datetime
    if ahead and changeset.created() is not None:
        raise InvalidChangeset(
            f"changeset {changeset.id} was made at {changeset.created()}, in the future",
            next_step="Correct the clock of the machine that made it",
        )
    if expired_before is None:
        return
    created = changeset.created()
    if created is not None and created <= expired_before:
        raise ChangesetExpired(
            f"changeset {changeset.id} is older than the ids task {changeset.task_id} remembers",
            next_step="Load the task; if the change is not there, make a new changeset",
        )


def forgotten_by(
    feed: tuple[Change, ...], *, last_number: int, updated_at: datetime
) -> tuple[int, datetime | None]:
    """Return (floor, expired_before) of a task that was replaced, with this tail of its feed.

    The feed before the tail is not known: a cursor below the floor is expired, as is an id no
    younger than the tail's first. A feed from revision 1 on is complete and has no floor: the
    registry's feed begins above the highest floor of all tasks.
    """
    if not feed:
        return last_number, updated_at
    first = feed[0]
    if first.revision == 1:
        return 0, None
    return first.cursor.number - 1, first.changeset.created() or first.changeset.at


def compacted(
    expired: Sequence[tuple[int, str]],
    drop: Callable[[str], bool],
    *,
    rest: int | None,
) -> int | None:
    """Drop expired lines of a feed for ``COMPACTING`` seconds; return the number to go on after.

    ``expired`` are the numbers and tasks of lines, in order. ``drop`` drops some lines of a task
    in one transaction and returns whether there may be more. ``rest`` is returned at the end of
    ``expired``. A task that is busy ends the part, unless nothing was done yet: raises Busy.
    """
    end, done, dropped = time.monotonic() + COMPACTING, set[str](), False
    for number, task_id in expired:
        while task_id not in done:
            if time.monotonic() >= end:
                return number - 1
            try:
                more = drop(task_id)
            except Busy:
                if not dropped:
                    raise
                return number - 1
            dropped = True
            if not more:
                done.add(task_id)
    return rest


def cursor_expired(what: str) -> CursorExpired:
    """Return the error for a feed cursor after which changes were trimmed."""
    return CursorExpired(
        f"the feed no longer holds what follows the cursor ({what})",
        next_step="Load the tasks again and follow from a new cursor",
    )
