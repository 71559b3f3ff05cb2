"""Capability MOVE_TARGET: a store that can replicate another one, revision by revision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from contract_tests import build
from contract_tests.harness import Harness
from contract_tests.test_counts import assert_true
from contract_tests.test_race import at_once
from registry_api import (
    AgentStatus,
    Capability,
    Delete,
    Kind,
    MoveTarget,
    Op,
    PhaseStatus,
    Put,
    RecordQuery,
    RegistryStore,
    all_records,
    errors,
    find_capability,
    new_changeset,
)
from registry_api.records import HISTORIES

pytestmark = pytest.mark.needs(Capability.MOVE_TARGET)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[RegistryStore]:
    """A reference store with a history of one task."""
    with Harness("memory", tmp_path / "source") as harness:
        store = harness.open()
        build.make(store, "t", build.phase("t"), build.agent("t"), build.agent("t", "b"))
        build.put(store, build.report("t", progress=9, message="x"), expected=None)
        build.put(store, build.finding("t"), build.report("t", foreign=True), expected=None)
        build.put(store, build.phase("t", status=PhaseStatus.ACTIVE), expected=3)
        ops: list[Op] = [
            Delete(Kind.AGENT, "b"),
            Put(build.agent("t", status=AgentStatus.COMPLETED)),
        ]
        store.commit(new_changeset("t", ops, expected=4))
        yield store


def into(store: RegistryStore) -> MoveTarget:
    """Return the store, or the one inside its wrappers, as the target of a move."""
    target = find_capability(store, MoveTarget)
    assert target is not None
    return target


def assert_equal(source: RegistryStore, target: RegistryStore) -> None:
    """Assert that both stores hold the same, lineage and feed numbers included."""
    assert target.load("t") == source.load("t")
    for kind in HISTORIES:
        found = [list(all_records(s, kind, RecordQuery())) for s in (source, target)]
        assert found[0] == found[1]
    assert target.counts() == source.counts()
    assert target.list_tasks() == source.list_tasks()
    assert target.changes(task_id="t") == source.changes(task_id="t")
    assert_true(target)


def test_a_replayed_feed_gives_the_same_store(harness: Harness, source: RegistryStore) -> None:
    """`apply` keeps the id, digest, lineage, revision, time and feed number of a change."""
    target = harness.open()
    for change in source.changes():
        commit = into(target).apply(change)
        assert (commit.revision, commit.lineage) == (change.revision, change.lineage)
        assert commit.cursor == change.cursor
        again = into(target).apply(change)
        assert again == replace(commit, replayed=True)
    assert_equal(source, target)


def test_one_of_several_threads_applies_a_change(harness: Harness, source: RegistryStore) -> None:
    """Threads that apply the same change at the same time, as processes of a move do, all get its
    commit; it is applied once.
    """
    target = harness.open()
    for change in source.changes():
        commits = at_once(partial(into(target).apply, change))
        assert sorted(c.replayed for c in commits) == [False, True, True, True]
        assert {(c.revision, c.cursor) for c in commits} == {(change.revision, change.cursor)}
    assert_equal(source, target)


def test_several_changes_are_applied_at_once_or_not_at_all(
    harness: Harness, source: RegistryStore
) -> None:
    """`apply_all` is one transaction: if a change is missing in between, none is applied."""
    store = harness.open()
    target, feed = into(store), source.changes()
    with pytest.raises(errors.NotNext):
        target.apply_all((*feed[:2], *feed[3:]))
    assert store.head("t").revision == 0
    target.apply_all(feed[:3])
    target.apply_all(feed[1:])
    assert_equal(source, store)


def test_the_changes_of_several_tasks_are_applied_at_once_or_not_at_all(
    harness: Harness, source: RegistryStore
) -> None:
    """`apply_all` is one transaction for several tasks: a gap in one task's changes applies none of
    any task.
    """
    build.make(source, "u", build.agent("u"))
    build.put(source, build.report("u"), expected=None)
    build.put(source, build.finding("t"), expected=None)
    store, feed = harness.open(), source.changes()
    of_u = [c for c in feed if c.changeset.task_id == "u"]
    with pytest.raises(errors.NotNext):
        into(store).apply_all([c for c in feed if c is not of_u[0]])
    assert store.counts().total_tasks == 0
    into(store).apply_all(feed)
    into(store).apply_all(feed)
    assert store.load("u") == source.load("u")
    assert_equal(source, store)


def test_a_gap_is_never_hidden(harness: Harness, source: RegistryStore) -> None:
    """A change, also an append, is applied only onto the revision just before it, in the same
    lineage.
    """
    store = harness.open()
    target = into(store)
    feed = source.changes()
    for change in feed[1:]:
        with pytest.raises(errors.NotNext):
            target.apply(change)
    assert store.head("t").revision == 0
    target.apply(feed[0])
    for change in (*feed[2:], replace(feed[1], lineage="another")):
        with pytest.raises(errors.NotNext):
            target.apply(change)
    assert store.head("t").revision == 1


def test_a_whole_task_is_replaced(harness: Harness, source: RegistryStore) -> None:
    """`replace` sets a whole task, knows the ids in its feed, and never sets an older revision."""
    store = harness.open()
    target = into(store)
    target.apply(source.changes()[0])
    histories = [
        r for kind in HISTORIES for r in all_records(source, kind, RecordQuery(task_id="t"))
    ]
    feed = source.changes(task_id="t")
    target.replace(source.load("t"), histories, feed=feed)  # type: ignore[arg-type]
    assert_equal(source, store)
    older = replace(source.load("t"), revision=2, agents=())
    target.replace(older, [], feed=feed[:2])
    assert_equal(source, store)
    assert store.commit(feed[2].changeset).replayed
    build.put(source, build.agent("t", "new"), expected=5)
    target.apply(source.changes(task_id="t")[-1])
    assert_equal(source, store)


def test_a_replaced_task_of_another_lineage_gives_way(
    harness: Harness, source: RegistryStore
) -> None:
    """`replace` overwrites a task of another lineage, whatever its revision, and keeps nothing of
    it.
    """
    store = harness.open()
    build.make(store, "t", build.agent("t", "stale"), build.report("t"), build.finding("t"))
    for n in range(9):
        build.put(store, build.agent("t", f"stale{n}"), expected=n + 1)
    into(store).replace(source.load("t"), [], feed=())
    assert store.load("t") == source.load("t")
    assert store.list_records(Kind.PROGRESS).items == ()
    assert_true(store)


def test_a_replaced_task_says_what_its_feed_lacks(harness: Harness, source: RegistryStore) -> None:
    """If `replace` brings only the tail of a feed, a cursor before it is expired, and older ids are
    refused.
    """
    store = harness.open()
    target = into(store)
    feed = source.changes()
    target.apply(feed[0])
    target.replace(source.load("t"), [], feed=feed[-1:])
    with pytest.raises(errors.CursorExpired):
        store.changes(feed[0].cursor)
    assert store.changes(feed[-2].cursor) == feed[-1:]
    with pytest.raises(errors.ChangesetExpired):
        store.commit(feed[2].changeset)


def test_a_task_replaced_with_its_whole_feed_hides_nothing(
    harness: Harness, source: RegistryStore
) -> None:
    """If `replace` brings a task's feed from revision 1 on, nothing is forgotten: the registry's
    feed still begins with the other tasks' first lines, and old cursors stay valid.
    """
    build.make(source, "u", build.agent("u"))
    build.make(source, "v")
    store, feed = harness.open(), source.changes()
    of_u = tuple(c for c in feed if c.changeset.task_id == "u")
    into(store).apply_all([c for c in feed if c not in of_u])
    into(store).replace(source.load("u"), [], feed=of_u)
    assert store.changes() == feed
    assert store.changes(feed[0].cursor) == feed[1:]


def test_an_append_that_came_with_the_whole_task_is_no_error(
    harness: Harness, source: RegistryStore
) -> None:
    """A change may append a record that `replace` has already streamed: the record is stored once.
    Another record under the same id is refused, and nothing of that change is applied.
    """
    snapshot, before = source.load("t"), source.changes(task_id="t")
    finding, report = build.finding("t"), build.report("t", progress=77)
    build.put(source, finding, report, expected=None)
    histories = [
        r for kind in HISTORIES for r in all_records(source, kind, RecordQuery(task_id="t"))
    ]
    store = harness.open()
    into(store).replace(snapshot, histories, feed=before)  # type: ignore[arg-type]
    change = source.changes(task_id="t")[-1]
    other = replace(finding, message="another")
    forged = new_changeset("t", [Put(build.agent("t", "x")), Put(other)], expected=None)
    with pytest.raises(errors.RecordExists):
        into(store).apply(replace(change, changeset=forged, digest="0", chain=""))
    assert store.load("t") == snapshot
    into(store).apply(change)
    assert_equal(source, store)


def test_numbers_are_never_given_out_twice(harness: Harness, source: RegistryStore) -> None:
    """After `replace` has dropped the newest lines, the next commit still gets a higher feed
    number.
    """
    store = harness.open()
    for change in source.changes():
        into(store).apply(change)
    last = source.changes()[-1].cursor.number
    newer = replace(source.load("t"), revision=9)
    into(store).replace(newer, [], feed=())
    assert build.make(store, "t2").cursor.number > last


def test_own_commits_continue_the_feed(harness: Harness, source: RegistryStore) -> None:
    """When the target becomes the writer of record, its feed numbers continue after the replicated
    ones.
    """
    store = harness.open()
    feed = source.changes()
    for change in feed:
        into(store).apply(change)
    commit = build.put(store, build.report("t"), expected=None)
    assert commit.cursor.feed_id == feed[-1].cursor.feed_id
    assert commit.cursor.number > feed[-1].cursor.number
    assert [c.revision for c in store.changes(feed[-1].cursor)] == [6]
    build.make(store, "t2")
    assert len(store.changes(feed[-1].cursor)) == 2


def test_stamps_are_kept(harness: Harness) -> None:
    """A stamp is a named text that another store on the same registry can read."""
    store = harness.open()
    assert into(store).read_stamp("note") is None
    into(store).write_stamp("note", "7")
    into(store).write_stamp("note", "8 é")
    assert into(harness.open()).read_stamp("note") == "8 é"
