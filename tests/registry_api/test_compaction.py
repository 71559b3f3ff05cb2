"""One part of a compaction: short, and honest about what it did (authoring/retention.py)."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from registry_api.authoring import COMPACT_BATCH, COMPACTING, FeedLine, compact_part
from registry_api.errors import Busy

OLDEST = datetime(2026, 1, 5, tzinfo=UTC)
OLD, YOUNG = OLDEST - timedelta(days=1), OLDEST
TASKS = [(3, "a"), (5, "b"), (6, "a"), (9, "c")]
LINES = [FeedLine(number, task_id, OLD, is_newest=False) for number, task_id in TASKS]


def part(lines, drop, *, dry_run=False):
    return compact_part(lines, drop, oldest=OLDEST, newest=20, dry_run=dry_run)


def test_each_task_is_dropped_once():
    """A task with many lines is asked for until there are no more; every line is counted."""
    asked, some = [], iter([COMPACT_BATCH, COMPACT_BATCH, 7, 1, 0])

    def drop(task_id):
        asked.append(task_id)
        return next(some)

    found = part(LINES, drop)
    assert (found.lines, found.after, found.newest) == (2 * COMPACT_BATCH + 8, None, 20)
    assert asked == ["a", "a", "a", "b", "c"]
    assert part([], drop).after is None


def test_what_is_not_dropped():
    """Not a task's newest line, not a young one, and nothing after a young one of its task."""
    lines = [
        FeedLine(1, "a", OLD, is_newest=True),
        FeedLine(2, "b", YOUNG, is_newest=False),
        FeedLine(3, "b", OLD, is_newest=False),
    ]
    assert part(lines, pytest.fail).lines == 0
    assert part(lines, pytest.fail, dry_run=True).lines == 0
    assert part(LINES, pytest.fail, dry_run=True).lines == len(LINES)


def test_it_goes_on_while_parts_hold_old_lines():
    """After a whole part with an old line there may be others; after one without there are none."""
    old = [FeedLine(n, "a", OLD, is_newest=False) for n in range(1, 1001)]
    assert part(old, lambda _: 0).after == 1000
    assert part(old[:-1], lambda _: 0).after is None
    young = [line._replace(kept_from=YOUNG) for line in old]
    assert part(young, pytest.fail).after is None


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_it_ends_after_a_moment(monkeypatch, calls):
    """It goes on with the first line that it has not looked at, and always does something."""
    clock, asked = [0.0], []
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def drop(task_id):
        asked.append(task_id)
        clock[0] += 1.01 * COMPACTING / calls
        return 1

    found = part(LINES, drop)
    assert found.after == {1: 4, 2: 8, 3: None}[calls]
    assert found.lines == calls
    assert asked == ["a", "b", "c"][:calls]


def test_a_busy_task_ends_the_part():
    """What was done is told; if nothing was, the caller learns that the store is busy."""

    def drop(task_id):
        if task_id == "b":
            raise Busy("b is busy", next_step="Try again")
        return 2

    found = part(LINES, drop)
    assert (found.lines, found.after) == (2, 4)
    with pytest.raises(Busy):
        part(LINES[1:], drop)
