"""KeyValueStore, beyond the contract tests: foreign feeds, close, failures."""

from dataclasses import replace
from datetime import UTC, datetime

import orjson
import pytest

from backends.admin.template.registry_backend_example import ExampleEngine
from contract_tests import build
from registry_api import Capability, new_changeset
from registry_api.authoring import KeyValueStore
from registry_api.authoring.key_layout import span_of
from registry_api.errors import NotNext, OutcomeUnknown, RecordExists, StoreClosed, Unavailable
from registry_api.records import Put, next_chain


def opened(engine=None):
    return KeyValueStore(
        engine or ExampleEngine(),
        name="kv",
        capabilities=frozenset({Capability.MOVE_TARGET}),
        now=lambda: datetime.now(UTC),
    )


def test_changes_of_its_own_are_not_overwritten():
    """A store with commits of its own is refused as a target: its feed numbers would be reused."""
    source, target = opened(), opened()
    build.make(source, "t", build.agent("t"))
    build.put(source, build.report("t"), expected=None)
    build.make(target, "own")
    mine = new_changeset("own", [Put(build.report("own"))], expected=None)
    done = target.commit(mine)
    before = target.changes()
    with pytest.raises(NotNext, match="of its own"):
        target.apply(source.changes()[0])
    with pytest.raises(NotNext, match="of its own"):
        target.replace(source.load("t"), (), feed=source.changes())
    assert target.changes() == before
    assert target.head("t").revision == 0
    assert target.commit(mine).cursor == done.cursor


def test_the_chain_that_an_older_program_has_left_behind_does_not_count():
    """The task's line has the fields of version 0.1, so that programs of it can read it; what they
    commit has no chain, and the next commit begins one."""
    store = opened()
    build.make(store, "t", build.agent("t"))
    with store.engine.write() as batch:
        key, value = next(iter(batch.scan(*span_of("task"))))
        line = orjson.loads(value)
        assert "chain" not in line
        batch.put(key, orjson.dumps(line | {"revision": 2}))  # as such a program leaves it
    assert store.head("t").chain == store.load("t").chain == ""
    commit = build.put(store, build.report("t"), expected=None)
    assert commit.chain == store.head("t").chain == next_chain("", 3, store.changes()[-1].digest)


def test_a_mirror_may_follow_another_source():
    """A replica without commits of its own accepts a new source and takes over its feed."""
    first, second, target = opened(), opened(), opened()
    for source, task in ((first, "a"), (second, "b")):
        build.make(source, task, build.agent(task))
        build.put(source, build.report(task), expected=None)
        for change in source.changes():
            target.apply(change)
    assert target.changes() == second.changes()
    assert target.load("a").agents == first.load("a").agents
    build.put(target, build.report("a"), expected=None)
    assert [c.cursor.number for c in target.changes()] == [1, 2, 3]


def test_a_feed_number_is_not_given_to_two_changes():
    source, target = opened(), opened()
    for task in ("a", "b"):
        build.make(source, task)
    first, second = source.changes()
    target.apply(first)
    with pytest.raises(NotNext, match="feed number 1 is taken"):
        target.apply(replace(second, cursor=first.cursor))
    assert target.head("b").revision == 0
    assert target.changes() == (first,)


def test_a_history_that_comes_twice_is_refused():
    """A duplicate entry is refused like an append of a known id; nothing of the task is stored."""
    source, target = opened(), opened()
    build.make(source, "t", build.agent("t"))
    entry = build.report("t")
    with pytest.raises(RecordExists):
        target.replace(source.load("t"), [entry, entry], feed=source.changes())
    assert target.head("t").revision == 0
    assert target.counts().total_tasks == 0


class Failing(ExampleEngine):
    """An engine whose calls fail at the point that ``failing`` names."""

    failing = ""

    def read(self):
        if self.failing == "read":
            raise OSError("no reading")
        return super().read()

    def write(self):
        if self.failing == "begin":
            raise OSError("no writing")
        return AtTheEnd(super().write()) if self.failing == "end" else super().write()


class AtTheEnd:
    """A batch that fails after it was written."""

    def __init__(self, batch):
        self.batch = batch

    def __enter__(self):
        return self.batch.__enter__()

    def __exit__(self, kind, error, trace):
        self.batch.__exit__(kind, error, trace)
        raise OSError("who knows")


def test_failures_are_told_apart():
    """A failure before the end changes nothing; after one at the end, a retry tells the outcome."""
    engine = Failing()
    store = opened(engine)
    build.make(store, "t")
    report = new_changeset("t", [Put(build.report("t"))], expected=None)
    engine.failing = "begin"
    with pytest.raises(Unavailable):
        store.commit(report)
    engine.failing = "end"
    with pytest.raises(OutcomeUnknown):
        store.commit(report)
    engine.failing = "read"
    with pytest.raises(Unavailable):
        store.load("t")
    engine.failing = ""
    assert store.commit(report).replayed
    engine.failing = "read"
    store.close()
    with pytest.raises(StoreClosed):
        store.load("t")
