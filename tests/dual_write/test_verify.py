"""backends.dual_write.verify: what cannot be compared is said, and compared behind the gate."""

from contextlib import closing

import pytest

from backends.dual_write.mirror import Mirror
from backends.dual_write.verify import compare_tail, verify_tasks
from contract_tests import build
from registry_api import Head, StoreWrapper, load_settings, open_store


class Restless(StoreWrapper):
    """Moves on just before each load."""

    def load(self, task_id, *, only=None):
        build.put(self.inner, build.finding(task_id), expected=None)
        return super().load(task_id, only=only)


@pytest.fixture
def stores(tmp_path):
    settings = load_settings(tmp_path, env={}, backend="memory")
    with closing(open_store(settings)) as source, closing(open_store(settings)) as target:
        build.make(source, "t", build.agent("t"), build.report("t"))
        yield source, target


def test_a_task_that_never_stands_still_is_named(stores):
    """It is in flight: neither equal nor different."""
    source, target = stores
    report = verify_tasks(Mirror(Restless(source), target), ["t"])
    assert (report.in_flight, report.mismatches) == (("t",), ())
    assert verify_tasks(Mirror(source, target), ["t"]).in_flight == ()


def test_behind_the_gate_it_is_compared_from_its_beginning(stores):
    """Without an earlier mark the whole feed counts, not only what came since."""
    source, target = stores
    mirror = Mirror(source, target)
    build.put(source, build.finding("t"), expected=None)
    mirror.heal("t")
    assert compare_tail(mirror, "t", Head()) == (source.head("t"), [])
    lost = target._tasks["t"].feed.pop(0)
    assert compare_tail(mirror, "t", source.head("t")) == (source.head("t"), [])
    _, differences = compare_tail(mirror, "t", Head())
    assert [m.pointer for m in differences] == [f"/feed/{lost.revision}"]
