"""Read the feed without skipping a transaction that commits late.

Where several transactions write at the same time, the number of one that is still open may be lower
than that of a committed one: a gap that will be filled. A reader that went past it would never see
that change. So a page ends before a gap, until every transaction that was open when the gap was
seen has ended; what is missing then was rolled back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["FeedPage", "read_settled"]

_FIRST, _LONGEST = 0.002, 0.05  # seconds between two looks


class FeedPage(NamedTuple):
    """Rows of the feed after the number ``start``; the first column is the number."""

    feed_id: str
    start: int
    rows: list[Any]


def read_settled(
    read: Callable[[], FeedPage],
    open_writers: Callable[[], frozenset[str]],
    *,
    deadline: float,
    final: tuple[str, int],
) -> tuple[FeedPage, tuple[str, int]]:
    """Read a page; wait until ``deadline`` (monotonic) for transactions that may fill a gap in it.

    The page ends before a gap that may still be filled. ``open_writers`` returns what identifies
    the transactions that may hold a number; a transaction belongs to them before it takes one.

    ``final``: the feed, and up to which number its gaps stay gaps. Returns also what is known of
    that now.
    """
    page = read()
    number = final[1] if final[0] == page.feed_id else 0
    if not _gap_after(page, number):
        return page, (page.feed_id, number)
    known, pause = page.rows[-1][0], _FIRST
    waiting = open_writers()
    while waiting and time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST)
        waiting &= open_writers()
    again = read()
    if again.feed_id != page.feed_id:  # a move has replaced the feed
        number = 0
    elif not waiting:
        number = max(number, known)
    end = _gap_after(again, number)
    if end:
        again = again._replace(rows=again.rows[: end - 1])
    return again, (again.feed_id, number)


def _gap_after(page: FeedPage, number: int) -> int:
    """Return the place, counted from 1, of the first row behind a gap above ``number``; 0: none."""
    expected = page.start + 1
    for place, row in enumerate(page.rows, 1):
        if row[0] != expected and row[0] > number:
            return place
        expected = row[0] + 1
    return 0
