"""Semantics 3: a changeset is applied once, however often it is sent."""

from __future__ import annotations

import threading
import time
import uuid
from dataclasses import replace
from functools import partial

import pytest

from contract_tests import build
from contract_tests.faults.lossy_store import LostAnswers
from contract_tests.harness import Harness
from contract_tests.test_race import at_once, bump
from registry_api import Capability, Kind, Put, commit_with_retry, errors, new_changeset, transact


def test_the_same_changeset_again_is_a_replay(harness: Harness) -> None:
    """Semantics 3: the second answer equals the first one, marked as replayed; the store is
    unchanged.
    """
    store = harness.open()
    first = build.creating("t", build.agent("t"))
    report = new_changeset("t", [Put(build.report("t", progress=7))], expected=None)
    commits = [store.commit(c) for c in (first, report)]
    build.put(store, build.agent("t", "later"), expected=2)
    before = store.load("t"), store.changes(), store.counts()
    for changeset, commit in zip((first, report), commits, strict=True):
        assert store.commit(changeset) == replace(commit, replayed=True)
    assert (store.load("t"), store.changes(), store.counts()) == before


@pytest.mark.needs(Capability.PERSISTENT)
def test_replays_are_known_to_the_next_process(harness: Harness) -> None:
    """Semantics 3: a committed changeset is recognised after the store was closed and reopened."""
    store = harness.open()
    changeset = build.creating("t")
    commit = store.commit(changeset)
    store.close()
    assert harness.open().commit(changeset) == replace(commit, replayed=True)


def test_a_lost_answer_is_asked_for_again(harness: Harness) -> None:
    """Semantics 3: if a request or its answer is lost, the caller sends the same changeset until it
    gets an answer, and it is applied once.
    """
    store = harness.open()
    build.make(store, "t", build.agent("t"))
    lossy_store = LostAnswers(store)
    for n in range(2, 8):
        changeset = new_changeset("t", [Put(build.report("t", progress=n))], expected=None)
        commit = commit_with_retry(lossy_store, changeset, deadline=time.monotonic() + 30)
        assert (commit.revision, commit.changeset_id) == (n, changeset.id)
        assert store.load("t").agents[0].progress == n
    assert [c.revision for c in store.changes(task_id="t")] == list(range(1, 8))


def test_nothing_is_counted_twice_when_answers_are_lost(harness: Harness) -> None:
    """Semantics 3 and 5: threads that increment a counter over a connection that loses answers
    count every step once.
    """
    store = harness.open()
    build.make(store, "t", build.agent("t"))
    failures = list[BaseException]()

    def work() -> None:
        lossy_store = LostAnswers(store)
        try:
            for _ in range(8):
                transact(lossy_store, "t", bump, attempts=1000)
        except BaseException as error:  # noqa: BLE001  (whatever it raises is reported)
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    snapshot = store.load("t")
    assert (snapshot.agents[0].progress, snapshot.revision) == (24, 25)


def test_one_of_several_threads_applies_a_changeset(harness: Harness) -> None:
    """Semantics 3: threads that send the same changeset at the same time all get the same commit;
    one of them applies it, the others replay it.
    """
    store = harness.open()
    build.make(store, "t", build.agent("t"))
    for n in range(2, 12):
        changeset = new_changeset("t", [Put(build.report("t", progress=n))], expected=None)
        commits = at_once(partial(store.commit, changeset))
        assert sorted(c.replayed for c in commits) == [False, True, True, True]
        assert {(c.revision, c.cursor) for c in commits} == {(n, commits[0].cursor)}
    assert [c.revision for c in store.changes(task_id="t")] == list(range(1, 12))
    assert len(store.list_records(Kind.PROGRESS).items) == 10


def test_an_id_is_known_as_long_as_its_line(harness: Harness) -> None:
    """Semantics 3: an id is a replay after more than a thousand later commits too, since the feed
    still has its line.
    """
    store = harness.open()
    first = store.commit(build.creating("t", build.agent("t")))
    changeset = new_changeset("t", [Put(build.report("t"))], expected=None)
    second = store.commit(changeset)
    for _ in range(1010):
        build.put(store, build.report("t"), expected=None)
    assert (first.revision, second.revision, store.head("t").revision) == (1, 2, 1012)
    assert store.commit(changeset) == replace(second, replayed=True)
    assert store.head("t").revision == 1012


def test_other_content_under_a_known_id_is_refused(harness: Harness) -> None:
    """Semantics 3: the same id with other ops, time or actor raises IdempotencyMismatch."""
    store = harness.open()
    build.make(store, "t")
    changeset = new_changeset("t", [Put(build.report("t"))], expected=None)
    store.commit(changeset)
    for other in (
        replace(changeset, ops=(Put(build.report("t")),)),
        replace(changeset, actor="somebody else"),
        replace(changeset, at=build.later(5)),
    ):
        with pytest.raises(errors.IdempotencyMismatch):
            store.commit(other)
    assert store.head("t").revision == 2


def test_a_refused_changeset_may_be_sent_again(harness: Harness) -> None:
    """Semantics 2 and 3: a refused changeset leaves no trace of its id and is applied later, when
    its expected revision is reached.
    """
    store = harness.open()
    build.make(store, "t")
    early = new_changeset("t", [Put(build.agent("t"))], expected=2)
    with pytest.raises(errors.Conflict):
        store.commit(early)
    build.put(store, build.report("t"), expected=None)
    assert store.commit(early).revision == 3


def test_ids_that_cannot_be_are_refused(harness: Harness) -> None:
    """Semantics 3: an id is a UUIDv7 whose time is not in the future; any other id could not be
    distinguished from a forgotten one.
    """
    store = harness.open()
    build.make(store, "t")
    good = new_changeset("t", [Put(build.report("t"))], expected=None)
    odd = [uuid.uuid4(), uuid.UUID(int=2**128 - 1), uuid.UUID(int=8 << 76 | 2 << 62)]
    odd.append(uuid.UUID("ffffffff-ffff-7fff-bfff-ffffffffffff"))
    odd.append(build.aged("t", good.ops, -2).id)
    for changeset_id in odd:
        with pytest.raises(errors.InvalidChangeset):
            store.commit(replace(good, id=changeset_id))
    assert store.head("t").revision == 1


def test_forgotten_ids_are_refused_not_applied_again(harness: Harness) -> None:
    """Semantics 3: once the feed has trimmed the line of a changeset, sending it again raises
    ChangesetExpired.
    """
    store = harness.open()
    store.commit(build.aged("t", build.creating("t").ops, 41, expected=0))
    old = [build.aged("t", [Put(build.report("t"))], 40 - n / 10) for n in range(3)]
    for changeset in old:
        store.commit(changeset)
    for _ in range(2):
        build.put(store, build.report("t"), expected=None)
    with pytest.raises(errors.ChangesetExpired):
        store.commit(old[0])
    with pytest.raises(errors.ChangesetExpired):
        store.commit(build.aged("t", [Put(build.report("t"))], 50))
    young = build.aged("t", [Put(build.report("t"))], 1)
    assert store.commit(young).revision == 7
