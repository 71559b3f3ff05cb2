"""How long a feed line, and with it the memory of its changeset id, is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from registry_api.capabilities import Compacted
from registry_api.errors import Busy, ChangesetExpired, CursorExpired, InvalidChangeset
from registry_api.records.changeset import Change, Changeset

__all__ = [
    "COMPACTING",
    "COMPACT_BATCH",
    "COMPACT_LINES",
    "KEEP",
    "KEEP_CHANGES",
    "TRIM_BATCH",
    "FeedLine",
    "check_fresh",
    "compact_part",
    "cursor_expired",
    "forgotten_by",
]

KEEP = timedelta(days=30)

KEEP_CHANGES = 100_000  # a task

_AHEAD = 24 * 3600  # seconds; how far a caller's clock may be ahead

COMPACTING = 0.05  # seconds of one part of a compaction: callers may hold the gate meanwhile

COMPACT_LINES = 1000  # lines of the feed that one part looks at

COMPACT_BATCH = 200  # lines dropped in one transaction: other writers wait for it

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


class FeedLine(NamedTuple):
    """A line of the feed: ``kept_from`` is the time from which it is kept, ``is_newest`` whether it
    is its task's newest one.
    """

    number: int
    task_id: str
    kept_from: datetime
    is_newest: bool


def compact_part(
    lines: Sequence[FeedLine],
    drop: Callable[[str], int],
    *,
    oldest: datetime,
    newest: int,
    dry_run: bool,
) -> Compacted:
    """Do one part of a compaction, as Compactable.compact does; for its authors.

    ``lines`` are the next ``COMPACT_LINES`` of the feed, or all that are left; those kept from
    before ``oldest`` have expired. ``drop`` drops up to ``COMPACT_BATCH`` expired lines of a task
    in one transaction and returns how many. ``newest`` is the feed's last number.
    """
    old, expired, young = 0, list[tuple[int, str]](), set[str]()
    for line in lines:
        if line.kept_from >= oldest:
            young.add(line.task_id)  # what comes after it is not dropped before it
            continue
        old += 1
        if not line.is_newest and line.task_id not in young:
            expired.append((line.number, line.task_id))
    # Lines are nearly in the order of their ids' times: after a part without an old one a rare late
    # one may come, which waits for a later run.
    rest = lines[-1].number if old and len(lines) >= COMPACT_LINES else None
    if dry_run:
        return Compacted(lines=len(expired), after=rest, newest=newest)
    dropped, after = _dropped(expired, drop, rest)
    return Compacted(lines=dropped, after=after, newest=newest)


def _dropped(
    expired: Sequence[tuple[int, str]], drop: Callable[[str], int], rest: int | None
) -> tuple[int, int | None]:
    """Drop lines for ``COMPACTING`` seconds; return how many, and the number to go on after.

    A task that is busy ends the part, unless nothing was done yet: raises Busy.
    """
    end = time.monotonic() + COMPACTING
    lines, began, done = 0, False, set[str]()
    for number, task_id in expired:
        while task_id not in done:
            if time.monotonic() >= end:
                return lines, number - 1
            try:
                some = drop(task_id)
            except Busy:
                if not began:
                    raise
                return lines, number - 1
            lines, began = lines + some, True
            if some < COMPACT_BATCH:
                done.add(task_id)
    return lines, rest


def cursor_expired(what: str) -> CursorExpired:
    """Return the error for a feed cursor after which changes were trimmed."""
    return CursorExpired(
        f"the feed no longer holds what follows the cursor ({what})",
        next_step="Load the tasks again and follow from a new cursor",
    )
