"""backends.dual_write.throttle: writers wait where the copy does not catch up, and only then."""

import pytest

from backends.dual_write.throttle import Throttle


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


def copy(throttle, clock, *, copied, written, seconds=1.0, begin=1000):
    """Let so many changes be copied in a second while so many are written."""
    throttle.copied(1, begin)
    clock.now += seconds
    throttle.copied(copied, begin + written)


def test_a_copy_that_is_faster_slows_nobody_down(throttle, clock, told):
    """Twice as fast as the writers is fast enough."""
    copy(throttle, clock, copied=1000, written=500)
    throttle.end()
    assert told == []


def test_a_copy_that_is_overtaken_slows_writers_down(throttle, clock, told):
    """More at each judgement, up to a third of a second, and not at all when it is over."""
    for n in range(10):
        copy(throttle, clock, copied=100, written=90, begin=1000 + 90 * n)
    assert told[0] == 0.005
    assert told == sorted(told)
    assert told[-1] == 0.32
    throttle.end()
    assert told.pop() == 0.0
    throttle.slower()
    copy(throttle, clock, copied=1, written=1000)
    assert told[-1] == 0.32


def test_within_one_window_nothing_is_judged(throttle, clock, told):
    """A page that took a moment says nothing about how fast anyone is."""
    copy(throttle, clock, copied=1, written=1000, seconds=0.01)
    assert told == []
