"""Semantics 7 and the queries: filters, order, keyset pages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from contract_tests import build
from contract_tests.harness import Harness
from registry_api import (
    AgentStatus,
    Handover,
    Kind,
    PhaseStatus,
    RecordQuery,
    RegistryStore,
    Review,
    ReviewStatus,
    TaskQuery,
    TaskStatus,
    Verdict,
    all_records,
    all_tasks,
    errors,
    record_key,
    silent,
)
from registry_api.records import make_cursor


def _tasks(store: RegistryStore, count: int) -> list[str]:
    """Create tasks, three per creation time; return their ids in page order."""
    keys = []
    for n in range(count):
        task = f"t{n:03}" if n % 2 else f"T{n:03}"
        moment = build.later(n // 3)
        build.make(store, task, created_at=moment, description=f"number {n} 100%_done")
        keys.append((moment, task))
    return [task for _, task in sorted(keys)]


@pytest.mark.parametrize("limit", [1, 2, 7, 20, 21, 100])
def test_pages_of_tasks_are_whole_and_ordered(harness: Harness, limit: int) -> None:
    """Semantics 7: pages of any size list every task once, by creation time, then by id in byte
    order.
    """
    store = harness.open()
    order = _tasks(store, 20)
    for newest_first in (False, True):
        got, after = list[str](), None
        while True:
            page = store.list_tasks(TaskQuery(newest_first=newest_first), after=after, limit=limit)
            got += [t.task_id for t in page.items]
            after = page.next
            if after is None:
                break
        assert got == (order[::-1] if newest_first else order)


def test_pages_are_stable_under_inserts(harness: Harness) -> None:
    """Semantics 7: a task inserted between two pages never repeats or hides another one."""
    store = harness.open()
    order = _tasks(store, 10)
    first = store.list_tasks(limit=4)
    build.make(store, "early", created_at=build.later(-5))
    build.make(store, "late", created_at=build.later(500))
    rest = store.list_tasks(after=first.next)
    assert [t.task_id for t in (*first.items, *rest.items)] == [*order, "late"]


def test_tasks_are_filtered(harness: Harness) -> None:
    """Semantics 7: tasks can be filtered by derived status, time and plain substring."""
    store = harness.open()
    _tasks(store, 9)
    build.make(store, "live", build.agent("live"), created_at=build.later(50))

    def ids(query: TaskQuery) -> list[str]:
        return [t.task_id for t in all_tasks(store, query)]

    assert ids(TaskQuery(status=TaskStatus.ACTIVE)) == ["live"]
    assert len(ids(TaskQuery(status=TaskStatus.INITIALIZED))) == 9
    assert ids(TaskQuery(since=build.later(2))) == ["T006", "T008", "t007", "live"]
    assert ids(TaskQuery(until=build.later(1))) == ["T000", "T002", "t001"]
    assert ids(TaskQuery(text="number 3 100%_")) == ["t003"]
    assert ids(TaskQuery(text="00%_d", since=build.later(2))) == ["T006", "T008", "t007"]
    assert ids(TaskQuery(text="%")) == ids(TaskQuery(text="number"))
    assert ids(TaskQuery(text="NUMBER")) == []


def _populate(store: RegistryStore) -> None:
    for task in ("t1", "t2"):
        build.make(
            store,
            task,
            build.phase(task, 0, status=PhaseStatus.APPROVED, name="Look", started_at=build.T0),
            build.phase(task, 1, status=PhaseStatus.ACTIVE, name="Build"),
            build.agent(task, "a1", status=AgentStatus.WORKING, phase_index=0, type="finder"),
            build.agent(task, "a2", status=AgentStatus.COMPLETED, phase_index=1),
            Review(task_id=task, review_id="r1", phase_index=0, created_at=build.T0),
            Verdict(
                task_id=task,
                verdict_id="v1",
                review_id="r1",
                reviewer_id="a1",
                submitted_at=build.T0,
            ),
            Handover(task_id=task, handover_id="h1", from_phase_index=0, created_at=build.T0),
            *(
                build.report(task, a, entry_id=f"p{i}-{a}", timestamp=build.later(i), message=m)
                for a in ("a1", "a2")
                for i, m in enumerate(("start", "50% _x_", "end"))
            ),
            build.finding(task, severity="high", finding_id="f1", phase_index=1),
            build.finding(task, "a2", finding_id="f2", timestamp=build.later(9)),
        )


CASES: list[tuple[Kind, RecordQuery, list[str]]] = [
    (Kind.PHASE, RecordQuery(), ["t1/0", "t2/0", "t1/1", "t2/1"]),
    (Kind.PHASE, RecordQuery(status=PhaseStatus.ACTIVE), ["t1/1", "t2/1"]),
    (Kind.PHASE, RecordQuery(phase_index=0, text="Loo"), ["t1/0", "t2/0"]),
    (Kind.PHASE, RecordQuery(since=build.T0), ["t1/0", "t2/0"]),
    (Kind.AGENT, RecordQuery(), ["t1/a1", "t2/a1", "t1/a2", "t2/a2"]),
    (Kind.AGENT, RecordQuery(active=True), ["t1/a1", "t2/a1"]),
    (Kind.AGENT, RecordQuery(active=False, task_id="t2"), ["t2/a2"]),
    (Kind.AGENT, RecordQuery(status=AgentStatus.COMPLETED), ["t1/a2", "t2/a2"]),
    (Kind.AGENT, RecordQuery(phase_index=0), ["t1/a1", "t2/a1"]),
    (Kind.AGENT, RecordQuery(agent_id="a2", newest_first=True), ["t2/a2", "t1/a2"]),
    (Kind.AGENT, RecordQuery(text="find"), ["t1/a1", "t2/a1"]),
    (
        Kind.PROGRESS,
        RecordQuery(task_id="t1"),
        ["t1/p0-a1", "t1/p0-a2", "t1/p1-a1", "t1/p1-a2", "t1/p2-a1", "t1/p2-a2"],
    ),
    (Kind.PROGRESS, RecordQuery(text="50% _"), ["t1/p1-a1", "t1/p1-a2", "t2/p1-a1", "t2/p1-a2"]),
    (
        Kind.PROGRESS,
        RecordQuery(agent_id="a1", task_id="t2", newest_first=True),
        ["t2/p2-a1", "t2/p1-a1", "t2/p0-a1"],
    ),
    (Kind.PROGRESS, RecordQuery(since=build.later(2), agent_id="a1"), ["t1/p2-a1", "t2/p2-a1"]),
    (Kind.FINDING, RecordQuery(severity="high"), ["t1/f1", "t2/f1"]),
    (Kind.FINDING, RecordQuery(agent_id="a2", task_id="t1"), ["t1/f2"]),
    (Kind.FINDING, RecordQuery(phase_index=1), ["t1/f1", "t2/f1"]),
    (Kind.FINDING, RecordQuery(newest_first=True), ["t2/f2", "t1/f2", "t2/f1", "t1/f1"]),
    (Kind.REVIEW, RecordQuery(status=ReviewStatus.IN_PROGRESS), ["t1/r1", "t2/r1"]),
    (Kind.REVIEW, RecordQuery(phase_index=5), []),
    (Kind.VERDICT, RecordQuery(agent_id="a1"), ["t1/v1", "t2/v1"]),
    (Kind.HANDOVER, RecordQuery(phase_index=0, task_id="t1"), ["t1/h1"]),
]


@pytest.mark.parametrize("limit", [1, 3, 100])
@pytest.mark.parametrize(("kind", "query", "expected"), CASES, ids=range(len(CASES)))
def test_records_are_filtered_and_paged(
    harness: Harness, kind: Kind, query: RecordQuery, expected: list[str], limit: int
) -> None:
    """Semantics 7: each filter works over one task or all, in page order and with any page size."""
    store = harness.open()
    _populate(store)
    got, after = list[str](), None
    while True:
        page = store.list_records(kind, query, after=after, limit=limit)
        got += [f"{r.task_id}/{record_key(r)}" for r in page.items]
        after = page.next
        if after is None:
            break
    assert got == expected


def test_long_lists_are_whole(harness: Harness) -> None:
    """Semantics 6 and 7: thousands of records are listed once each, in order, and loaded, however
    an engine cuts its answers.
    """
    store = harness.open()
    agents = [build.agent("t", f"a{n:04}") for n in range(1200)]
    build.make(store, "t", *agents)
    for first in range(0, 5000, 1000):
        some = (f"f{n:04}" for n in range(first, first + 1000))
        build.put(store, *(build.finding("t", finding_id=i) for i in some), expected=None)
    listed = [record_key(r) for r in all_records(store, Kind.FINDING, RecordQuery())]
    assert listed == [f"f{n:04}" for n in range(5000)]
    of_task = all_records(store, Kind.FINDING, RecordQuery(task_id="t", newest_first=True))
    assert [record_key(r) for r in of_task] == listed[::-1]
    assert store.load("t").agents == tuple(agents)
    assert list(all_records(store, Kind.AGENT, RecordQuery())) == agents
    assert store.counts().records == {Kind.TASK: 1, Kind.AGENT: 1200, Kind.FINDING: 5000}
    assert sum(len(c.changeset.ops) for c in store.changes()) == 6201


def test_queries_that_make_no_sense_are_refused(harness: Harness) -> None:
    """Semantics 7: a filter that a kind does not have, a bad limit and an invented cursor raise
    InvalidQuery.
    """
    store = harness.open()
    _populate(store)
    with pytest.raises(errors.InvalidQuery):
        store.list_records(Kind.AGENT, RecordQuery(severity="high"))
    with pytest.raises(errors.InvalidQuery):
        store.list_records(Kind.PHASE, RecordQuery(status=AgentStatus.WORKING))
    with pytest.raises(errors.InvalidQuery):
        store.list_records(Kind.TASK)
    with pytest.raises(errors.InvalidQuery):
        store.list_records(Kind.AGENT, RecordQuery(since=build.T0.replace(tzinfo=None)))
    for limit in (0, -1, 1001):
        with pytest.raises(errors.InvalidQuery):
            store.list_tasks(limit=limit)
        with pytest.raises(errors.InvalidQuery):
            store.list_records(Kind.AGENT, limit=limit)
        with pytest.raises(errors.InvalidQuery):
            store.changes(limit=limit)
    for cursor in ("", "x", "bm9wZQ", "W10", "e30"):
        with pytest.raises(errors.InvalidQuery):
            store.list_tasks(after=cursor)


def _odd(value: Any) -> Any:
    """Return what a caller without a type checker may pass."""
    return value


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.list_tasks(TaskQuery(text="\ud800")),
        lambda s: s.list_tasks(TaskQuery(text="a\x00")),
        lambda s: s.list_tasks(TaskQuery(status=_odd("ACTIVE"))),
        lambda s: s.list_tasks(TaskQuery(since=_odd("yesterday"))),
        lambda s: s.list_tasks(limit=2.5),
        lambda s: s.list_tasks(after=b"abc"),
        lambda s: s.list_records(Kind.AGENT, RecordQuery(status=_odd("running"))),
        lambda s: s.list_records(Kind.AGENT, RecordQuery(phase_index=2**70)),
        lambda s: s.list_records(Kind.AGENT, RecordQuery(task_id="\ud800")),
        lambda s: s.list_records(Kind.AGENT, RecordQuery(active=_odd(1))),
        lambda s: s.list_records("unknown"),
        lambda s: s.list_records(Kind.PHASE, after=make_cursor((2**62, "t", ""))),
        lambda s: s.list_records(
            Kind.FINDING, RecordQuery(since=datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=9))))
        ),
    ],
    ids=range(13),
)
def test_values_that_cannot_be_are_refused(
    harness: Harness, call: Callable[[RegistryStore], object]
) -> None:
    """Semantics 7: a value of the wrong type or out of range raises InvalidQuery in every store, no
    other error.
    """
    store = harness.open()
    _populate(store)
    with pytest.raises(errors.InvalidQuery):
        call(store)


@pytest.mark.parametrize("task_id", ["\ud800", "../up", "", "a\x00", "x" * 500])
def test_no_task_has_such_an_id(harness: Harness, task_id: str) -> None:
    """Semantics 11: a task id that is not valid is answered as a task that does not exist."""
    store = harness.open()
    assert store.head(task_id).revision == 0
    with pytest.raises(errors.TaskNotFound):
        store.load(task_id)


def test_a_cursor_of_another_kind_is_refused(harness: Harness) -> None:
    """Semantics 7: a page cursor whose sort key has the wrong type raises InvalidQuery."""
    store = harness.open()
    _populate(store)
    cursor = store.list_records(Kind.PHASE, limit=1).next
    with pytest.raises(errors.InvalidQuery):
        store.list_tasks(after=cursor)


def test_who_is_silent(harness: Harness) -> None:
    """An agent is silent if it is active by record without a recent sign of life; a task is silent
    if all its active agents are.
    """
    store = harness.open()
    _populate(store)
    build.put(store, build.report("t2", "a1", timestamp=build.later(100)), expected=None)
    found = silent(store, build.later(50))
    assert [(a.task_id, a.agent_id) for a in found.agents] == [("t1", "a1")]
    assert found.tasks == ("t1",)
    everyone = silent(store, build.later(1000))
    assert [a.task_id for a in everyone.agents] == ["t1", "t2"]


def test_lists_see_the_newest_state(harness: Harness) -> None:
    """A list after a commit shows the new state, an agent as its last report left it."""
    store = harness.open()
    build.make(store, "t", build.agent("t"))
    build.put(store, build.report("t", progress=33, status="blocked"), expected=None)
    listed = next(iter(all_records(store, Kind.AGENT, RecordQuery(active=True))))
    assert listed == store.load("t").agents[0]
    assert replace(listed, progress=0) != listed
    assert store.list_tasks().items[0] == store.load("t").summary()
