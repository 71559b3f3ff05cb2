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

_EVERY = 0.002  # seconds between two looks


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
) -> FeedPage:
    """Read a page; wait until ``deadline`` (monotonic) for transactions that may fill a gap in it.

    The page ends before a gap that may still be filled. ``open_writers`` returns what identifies
    the transactions that may hold a number; a transaction belongs to them before it takes one.
    """
    page = read()
    if not _gap_after(page, page.start):
        return page
    known = page.rows[-1][0]
    waiting = open_writers()
    while waiting and time.monotonic() < deadline:
        time.sleep(_EVERY)
        waiting &= open_writers()
    again = read()
    # The gaps up to ``known`` are final, unless the wait was given up; later ones are new.
    end = _gap_after(again, page.start if waiting else known)
    return again._replace(rows=again.rows[: end - 1]) if end else again


def _gap_after(page: FeedPage, number: int) -> int:
    """Return the place, counted from 1, of the first row behind a gap above ``number``; 0: none."""
    expected = page.start + 1
    for place, row in enumerate(page.rows, 1):
        if row[0] != expected and row[0] > number:
            return place
        expected = row[0] + 1
    return 0
