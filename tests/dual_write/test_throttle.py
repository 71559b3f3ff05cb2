"""backends.dual_write.throttle: writers wait where the copy does not catch up, and only then."""

import pytest

from backends.dual_write.throttle import Throttle
from registry_api import Head


class Clock:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def told():
    return []


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def throttle(told, clock):
    return Throttle(told.append, clock=clock)


def copy(throttle, clock, *, copied, written, seconds=1.0, begin=1000, task="t"):
    """Let so many changes be copied in a second while so many are written."""
    throttle.copied(1, task, Head(lineage="l", revision=1, number=begin))
    clock.now += seconds
    throttle.copied(copied, task, Head(lineage="l", revision=2, number=begin + written))


def test_a_copy_that_is_faster_slows_nobody_down(throttle, clock, told):
    """Twice as fast as the writers is fast enough."""
    copy(throttle, clock, copied=1000, written=500)
    throttle.end()
    assert told == []


def test_a_walk_over_tasks_at_rest_slows_nobody_down(throttle, clock, told):
    """Each has a higher number than the one before, and nobody writes."""
    for n in range(100):
        throttle.copied(1, f"t{n}", Head(lineage="l", revision=1, number=10 * n))
        clock.now += 1
    assert told == []


def test_a_copy_that_is_overtaken_slows_writers_down(throttle, clock, told):
    """More at each judgement, up to a third of a second; less when it has caught up, and not at all
    when it is over.
    """
    for n in range(10):
        copy(throttle, clock, copied=100, written=90, begin=1000 + 90 * n)
    assert told[0] == 0.005
    assert told == sorted(told)
    assert told[-1] == 0.32
    copy(throttle, clock, copied=1000, written=10, begin=1900)
    assert told[-1] == 0.16
    throttle.end()
    assert told.pop() == 0.0
    throttle.slower()
    copy(throttle, clock, copied=1, written=1000, begin=5000)
    assert told[-1] == 0.16


def test_it_is_told_again_before_it_ends_by_itself(throttle, clock, told):
    """Also where nothing is judged for long."""
    throttle.slower()
    for n in range(5):
        clock.now += 1.5
        throttle.copied(1, f"t{n}", Head(lineage="l", revision=1, number=1))
    assert told == [0.005] * 3


def test_within_one_window_nothing_is_judged(throttle, clock, told):
    """A page that took a moment says nothing about how fast anyone is."""
    copy(throttle, clock, copied=1, written=1000, seconds=0.01)
    assert told == []
