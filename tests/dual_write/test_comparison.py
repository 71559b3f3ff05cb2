"""A task that keeps changing is compared while the gate is held."""

from contextlib import closing

import pytest

from backends.dual_write.comparison import compare_tail, verify_tasks
from backends.dual_write.replicator import Replicator
from contract_tests import build
from registry_api import Head, MoveTarget, StoreWrapper, find_capability, load_settings, open_store


class Restless(StoreWrapper):
    """A store whose task changes before and after each load; its target catches up at once."""

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


def test_what_another_process_brings_further_is_left(stores, monkeypatch):
    """A task whose target is ahead of what was read of the source is not replaced: another process
    has brought both further in between."""
    source, target = stores
    replicator = Replicator(source, find_capability(target, MoveTarget))
    replicator.catch_up("t")
    before = source.head("t")
    build.put(source, build.finding("t"), expected=None)
    replicator.catch_up("t")
    heads = iter([before])  # as it was read before another process went on
    monkeypatch.setattr(
        type(source), "head", lambda self, task_id: next(heads, None) or self.inner.head(task_id)
    )
    monkeypatch.setattr(replicator, "replace", lambda _: pytest.fail("it was replaced"))
    assert not replicator.catch_up("t")


def test_a_task_that_keeps_changing_is_named(stores):
    """A task that keeps changing is reported as in flight: neither equal nor different."""
    source, target = stores
    restless = Restless(source)
    restless.target = target
    report = verify_tasks(Replicator(restless, target), ["t"])
    assert (report.in_flight, report.mismatches) == (("t",), ())
    assert verify_tasks(Replicator(source, target), ["t"]).in_flight == ()


def test_without_a_position_the_whole_feed_is_compared(stores):
    """Without an earlier position compare_tail compares the whole feed, not only later changes."""
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
    """A store to which another writer commits between the reads of the feed and of each history."""

    def list_records(self, kind, query, *, after=None, limit=100):
        build.put(self.inner, build.report("t", message="late"), build.finding("t"), expected=None)
        return super().list_records(kind, query, after=after, limit=limit)


@pytest.mark.parametrize("name", ["memory", "sqlite"])
def test_a_task_replaced_while_writers_continue_can_catch_up(stores, tmp_path, name):
    """A replaced task leaves out changes committed while its histories are read, and the next
    catch-up brings them."""
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


def test_a_target_that_is_ahead_is_not_replaced(stores):
    """A target that is ahead because a writer replicated a commit between two reads is neither
    caught up nor replaced."""
    source, target = stores
    replicator = Replicator(source, target)
    replicator.catch_up("t")
    seen = source.head("t")
    build.put(source, build.finding("t"), expected=None)
    replicator.catch_up("t")
    target.replace = None  # it would be a TypeError
    assert not replicator.catch_up("t", upto=seen)
    assert target.head("t") == source.head("t")
