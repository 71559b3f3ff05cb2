"""One part of a compaction: short, and honest about what it did (authoring/retention.py)."""

import time

import pytest

from registry_api.authoring import COMPACTING, compacted
from registry_api.errors import Busy

LINES = [(3, "a"), (5, "b"), (6, "a"), (9, "c")]


def test_each_task_is_dropped_once(monkeypatch):
    """A task with many lines is asked for until there are no more; then the rest follows."""
    asked, more = [], iter([True, True, False, False, False])

    def drop(task_id):
        asked.append(task_id)
        return next(more)

    assert compacted(LINES, drop, rest=12) == 12
    assert asked == ["a", "a", "a", "b", "c"]
    assert compacted([], drop, rest=None) is None


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_it_ends_after_a_moment(monkeypatch, calls):
    """It goes on with the first line that it has not looked at, and always does something."""
    clock, asked = [0.0], []
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def drop(task_id):
        asked.append(task_id)
        clock[0] += 1.01 * COMPACTING / calls
        return False

    assert compacted(LINES, drop, rest=None) == {1: 4, 2: 8, 3: None}[calls]
    assert asked == ["a", "b", "c"][:calls]


def test_a_busy_task_ends_the_part():
    """What was done is told; if nothing was, the caller learns that the store is busy."""

    def drop(task_id):
        if task_id == "b":
            raise Busy("b is busy", next_step="Try again")
        return False

    assert compacted(LINES, drop, rest=None) == 4
    with pytest.raises(Busy):
        compacted(LINES[1:], drop, rest=None)
