"""Semantics 4: counts are functions of the records."""

from __future__ import annotations

from collections import Counter

from contract_tests import build
from contract_tests.harness import Harness
from registry_api import (
    AgentStatus,
    Delete,
    Kind,
    PhaseStatus,
    RecordQuery,
    RegistryStore,
    TaskQuery,
    TaskStatus,
    all_records,
    all_tasks,
    new_changeset,
)


def assert_true(store: RegistryStore) -> None:
    """Assert that the counts equal a recount of all records."""
    counts = store.counts()
    tasks = list(all_tasks(store, TaskQuery()))
    assert counts.tasks == Counter(t.status for t in tasks)
    records = Counter({Kind.TASK: len(tasks)})
    for kind in set(Kind) - {Kind.TASK}:
        found = list(all_records(store, kind, RecordQuery()))
        records[kind] = len(found)
        if kind is Kind.AGENT:
            assert counts.agents == Counter(a.status for a in found)  # type: ignore[union-attr]
    assert counts.records == {k: n for k, n in records.items() if n}


def test_counts_of_nothing(harness: Harness) -> None:
    """Semantics 4: an empty registry counts zero of everything."""
    counts = harness.open().counts()
    assert (counts.total_tasks, counts.active_tasks, counts.total_agents) == (0, 0, 0)
    assert counts.records == {}


def test_counts_follow_every_change(harness: Harness) -> None:
    """Semantics 4: after each step, up or down, the counts equal a recount of the records."""
    store = harness.open()
    build.make(store, "t1", build.phase("t1", status=PhaseStatus.ACTIVE))
    assert_true(store)
    assert store.counts().tasks == {TaskStatus.INITIALIZED: 1}
    build.put(store, build.agent("t1", "a"), build.agent("t1", "b"), expected=1)
    assert_true(store)
    assert (store.counts().active_tasks, store.counts().active_agents) == (1, 2)
    build.put(store, build.report("t1", "a", status="blocked"), build.finding("t1"), expected=None)
    assert_true(store)
    build.put(store, build.agent("t1", "a", status=AgentStatus.COMPLETED), expected=3)
    assert_true(store)
    assert store.counts().active_agents == 1
    store.commit(new_changeset("t1", [Delete(Kind.AGENT, "b")], expected=4))
    assert_true(store)
    build.put(store, build.phase("t1", status=PhaseStatus.APPROVED), expected=5)
    assert_true(store)
    assert store.counts().tasks == {TaskStatus.COMPLETED: 1}
    assert store.counts().active_tasks == store.counts().active_agents == 0


def test_counts_hold_after_reopening(harness: Harness) -> None:
    """Semantics 4 and 9: another store on the same registry returns the same counts."""
    store = harness.open()
    build.make(store, "t", build.agent("t"), build.report("t"))
    other = harness.open()
    assert other.counts() == store.counts()
    assert_true(other)
