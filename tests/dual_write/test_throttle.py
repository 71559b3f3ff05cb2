"""backends.dual_write.throttle: writers wait while the copy does not catch up, and only then."""

import pytest

from backends.dual_write.throttle import Throttle
from registry_api import Head


class Clock:
    """A clock that the test sets."""

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
    """Let this many changes be copied in ``seconds`` while ``written`` changes are written."""
    throttle.copied(1, task, Head(lineage="l", revision=1, number=begin))
    clock.now += seconds
    throttle.copied(copied, task, Head(lineage="l", revision=2, number=begin + written))


def test_a_copy_that_is_faster_slows_nobody_down(throttle, clock, told):
    """A copy that is twice as fast as the writers does not slow them down."""
    copy(throttle, clock, copied=1000, written=500)
    throttle.end()
    assert told == []


def test_a_copy_over_idle_tasks_slows_nobody_down(throttle, clock, told):
    """A copy over idle tasks slows nobody down, although each task has a higher number."""
    for n in range(100):
        throttle.copied(1, f"t{n}", Head(lineage="l", revision=1, number=10 * n))
        clock.now += 1
    assert told == []


def test_a_copy_that_is_overtaken_slows_writers_down(throttle, clock, told):
    """A copy that the writers outrun makes them wait longer at each measurement, up to a third of a
    second, less once it has caught up, and not at all when it has ended."""
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
    """The wait is sent again before it expires, even if nothing is measured for long."""
    throttle.slower()
    for n in range(5):
        clock.now += 1.5
        throttle.copied(1, f"t{n}", Head(lineage="l", revision=1, number=1))
    assert told == [0.005] * 3


def test_within_one_window_nothing_is_judged(throttle, clock, told):
    """A copy within one window is not measured: one short page shows no speed."""
    copy(throttle, clock, copied=1, written=1000, seconds=0.01)
    assert told == []


def test_many_tasks_are_one_measurement(throttle, clock, told):
    """Ten tasks that are copied in turn, each overtaken, lengthen the wait once a window: the next
    decision measures what the last one has changed.
    """
    for n in range(10):
        throttle.copied(1, f"t{n}", Head(lineage="l", revision=1, number=1000))
    clock.now += 1
    for n in range(10):
        throttle.copied(1, f"t{n}", Head(lineage="l", revision=2, number=2000))
        clock.now += 0.01
    assert told == [0.005]


def test_a_wait_that_is_held_is_not_shortened(throttle, clock, told):
    """Just before the gate is held, the wait only gets longer: what is written until then is copied
    while it is held.
    """
    throttle.slower()
    throttle.hold()
    copy(throttle, clock, copied=1000, written=10)
    assert set(told) == {0.005}
    copy(throttle, clock, copied=10, written=1000, begin=2000)
    assert told[-1] == 0.01
    throttle.end()
    assert told[-1] == 0.0
