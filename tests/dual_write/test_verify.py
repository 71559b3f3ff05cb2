"""backends.dual_write.verify: what cannot be compared is said, and compared behind the gate."""

from contextlib import closing

import pytest

from backends.dual_write.replicator import Replicator
from backends.dual_write.verify import compare_tail, verify_tasks
from contract_tests import build
from registry_api import (
    Head,
    MoveTarget,
    StoreWrapper,
    find_capability,
    load_settings,
    open_store,
)


class Restless(StoreWrapper):
    """Moves on before and after each load, and its target follows at once."""

    target = None

    def load(self, task_id, *, only=None):
        self._move(task_id)
        found = super().load(task_id, only=only)
        self._move(task_id)
        Replicator(self.inner, self.target).catch_up(task_id)
        return found

    def _move(self, task_id):
        build.put(self.inner, build.finding(task_id), expected=None)


@pytest.fixture
def stores(tmp_path):
    settings = load_settings(tmp_path, env={}, backend="memory")
    with closing(open_store(settings)) as source, closing(open_store(settings)) as target:
        build.make(source, "t", build.agent("t"), build.report("t"))
        yield source, target


def test_a_task_that_never_stands_still_is_named(stores):
    """It is in flight: neither equal nor different."""
    source, target = stores
    restless = Restless(source)
    restless.target = target
    report = verify_tasks(Replicator(restless, target), ["t"])
    assert (report.in_flight, report.mismatches) == (("t",), ())
    assert verify_tasks(Replicator(source, target), ["t"]).in_flight == ()


def test_behind_the_gate_it_is_compared_from_its_beginning(stores):
    """Without an earlier mark the whole feed counts, not only what came since."""
    source, target = stores
    replicator = Replicator(source, target)
    build.put(source, build.finding("t"), expected=None)
    replicator.catch_up("t")
    assert compare_tail(replicator, "t", Head()) == (source.head("t"), [])
    lost = target.inner._tasks["t"].feed.pop(0)
    assert compare_tail(replicator, "t", source.head("t")) == (source.head("t"), [])
    _, differences = compare_tail(replicator, "t", Head())
    assert [m.pointer for m in differences] == [f"/feed/{lost.revision}"]


class Interrupted(StoreWrapper):
    """Somebody commits a record between the reading of the feed and of the histories, each time."""

    def list_records(self, kind, query, *, after=None, limit=100):
        build.put(self.inner, build.report("t", message="late"), build.finding("t"), expected=None)
        return super().list_records(kind, query, after=after, limit=limit)


@pytest.mark.parametrize("name", ["memory", "sqlite"])
def test_a_task_set_whole_beside_writers_can_be_caught_up(stores, tmp_path, name):
    """What is committed while histories are read is left out, and comes with the next catch-up."""
    source, _ = stores
    settings = load_settings(tmp_path, env={}, backend=name)
    with closing(open_store(settings)) as store:
        target = find_capability(store, MoveTarget)
        Replicator(Interrupted(source), target).replace("t")
        assert target.head("t").revision < source.head("t").revision
        replicator = Replicator(source, target)
        assert replicator.catch_up("t")
        assert verify_tasks(replicator, ["t"]).mismatches == ()
        assert target.head("t") == source.head("t")


def test_a_target_that_is_ahead_is_not_set_whole(stores):
    """A writer mirrored a commit between two looks: nothing is to do, least of all everything."""
    source, target = stores
    replicator = Replicator(source, target)
    replicator.catch_up("t")
    seen = source.head("t")
    build.put(source, build.finding("t"), expected=None)
    replicator.catch_up("t")
    target.replace = None  # it would be a TypeError
    assert not replicator.catch_up("t", upto=seen)
    assert target.head("t") == source.head("t")
