"""Semantics 1, 2, 5 and 12: revisions, refusals that change nothing, one winner."""

from __future__ import annotations

import pytest

from contract_tests import build
from contract_tests.harness import Harness
from registry_api import (
    AgentStatus,
    Delete,
    Handover,
    Kind,
    Op,
    PhaseStatus,
    Put,
    RecordQuery,
    Refs,
    Review,
    Task,
    TaskStatus,
    Verdict,
    errors,
    new_changeset,
)


def test_revisions_are_gapless_and_load_sees_each(harness: Harness) -> None:
    """Semantics 1: every commit is the next revision, and load returns the state after it."""
    store = harness.open()
    assert store.head("t").revision == 0
    assert build.make(store, "t").revision == 1
    for n in range(2, 8):
        commit = build.put(store, build.agent("t", f"a{n}"), expected=n - 1)
        snapshot = store.load("t")
        assert commit.revision == snapshot.revision == store.head("t").revision == n
        assert [a.agent_id for a in snapshot.agents] == [f"a{i}" for i in range(2, n + 1)]
        assert snapshot.lineage == commit.lineage == store.head("t").lineage


def test_everything_put_is_loaded(harness: Harness) -> None:
    """Semantics 1: a snapshot holds each record as it was put, in the order of the keys."""
    store = harness.open()
    phases = tuple(build.phase("t", i, name=f"P{i}") for i in range(12))
    agents = tuple(build.agent("t", a, type="builder") for a in ("Z", "a", "b.1"))
    review = Review(
        task_id="t", review_id="r1", phase_index=0, reviewers=("a", "x y"), created_at=build.T0
    )
    verdict = Verdict(
        task_id="t",
        verdict_id="v1",
        review_id="r1",
        verdict="approved",
        findings='[{"severity":"low"}]',
        submitted_at=build.T0,
    )
    handover = Handover(
        task_id="t",
        handover_id="h1",
        from_phase_index=0,
        key_findings=("one", "two"),
        created_at=build.T0,
    )
    build.make(store, "t", *phases[::-1], *agents[::-1], verdict, review, handover)
    snapshot = store.load("t")
    assert snapshot.phases == phases
    assert snapshot.agents == agents
    assert snapshot.reviews == (review,)
    assert snapshot.verdicts == (verdict,)
    assert snapshot.handovers == (handover,)
    assert snapshot.task == Task(task_id="t", created_at=build.T0)


def test_a_part_of_a_task_can_be_loaded(harness: Harness) -> None:
    """With `only`, load returns the requested records unchanged and leaves out the others."""
    store = harness.open()
    build.make(store, "t", build.phase("t"), build.agent("t", "a"), build.agent("t", "b"))
    part = store.load("t", only=Refs(kinds=frozenset({Kind.AGENT}), agent_ids=frozenset({"b"})))
    assert [a.agent_id for a in part.agents] == ["b"]
    assert part.phases == ()
    assert part.revision == 1
    assert part.task.task_id == "t"


def test_put_replaces_and_delete_removes(harness: Harness) -> None:
    """Semantics 1: a put of a known key replaces the record; a delete removes it; deleting a record
    that does not exist is allowed.
    """
    store = harness.open()
    build.make(store, "t", build.phase("t", 0), build.phase("t", 1), build.agent("t"))
    build.put(store, build.phase("t", 0, status=PhaseStatus.ACTIVE), expected=1)
    ops: list[Op] = [Delete(Kind.PHASE, "1"), Delete(Kind.AGENT, "a1"), Delete(Kind.REVIEW, "none")]
    store.commit(new_changeset("t", ops, expected=2))
    snapshot = store.load("t")
    assert [(p.phase_index, p.status) for p in snapshot.phases] == [(0, PhaseStatus.ACTIVE)]
    assert snapshot.agents == ()


def test_ops_apply_in_order(harness: Harness) -> None:
    """Semantics 1: of several ops on one record the last one decides."""
    store = harness.open()
    build.make(store, "t")
    ops: list[Op] = [
        Put(build.agent("t", progress=1)),
        Delete(Kind.AGENT, "a1"),
        Put(build.agent("t", progress=2)),
        Put(build.report("t", progress=3)),
        Put(build.agent("t", "gone")),
        Delete(Kind.AGENT, "gone"),
    ]
    store.commit(new_changeset("t", ops, expected=1))
    assert [(a.agent_id, a.progress) for a in store.load("t").agents] == [("a1", 3)]


def test_one_of_two_with_the_same_expectation_wins(harness: Harness) -> None:
    """Semantics 5: the second commit on a revision is a Conflict that names both revisions."""
    store = harness.open()
    build.make(store, "t")
    build.put(store, build.agent("t", "first"), expected=1)
    with pytest.raises(errors.Conflict) as caught:
        build.put(store, build.agent("t", "second"), expected=1)
    assert (caught.value.expected, caught.value.actual) == (1, 2)
    assert [a.agent_id for a in store.load("t").agents] == ["first"]


@pytest.mark.parametrize("expected", [0, 1, 3, 99])
def test_a_wrong_expectation_is_refused(harness: Harness, expected: int) -> None:
    """Semantics 5: creating a task twice and expecting a past or future revision are Conflicts."""
    store = harness.open()
    build.make(store, "t")
    build.put(store, build.agent("t"), expected=1)
    with pytest.raises(errors.Conflict):
        build.put(store, Task(task_id="t", description="other"), expected=expected)
    assert store.load("t").task.description == ""


def test_a_task_that_is_not_there(harness: Harness) -> None:
    """Semantics 2: loading a task that does not exist, appending to it, or expecting a revision of
    it is refused and creates nothing.
    """
    store = harness.open()
    with pytest.raises(errors.TaskNotFound):
        store.load("t")
    with pytest.raises(errors.TaskNotFound):
        build.put(store, build.report("t"), expected=None)
    with pytest.raises(errors.Conflict):
        build.put(store, build.agent("t"), expected=3)
    assert store.head("t").revision == 0
    assert store.list_tasks().items == ()
    assert store.changes() == ()


def test_a_refused_commit_changes_nothing(harness: Harness) -> None:
    """Semantics 2: if the last op is refused, no op is applied, and the feed gets no line."""
    store = harness.open()
    taken = build.report("t", entry_id="taken", progress=10)
    build.make(store, "t", build.agent("t"), taken)
    before = store.load("t"), store.counts(), store.changes()
    ops: list[Op] = [
        Put(build.agent("t", "new")),
        Put(build.finding("t")),
        Put(build.report("t", progress=90)),
        Delete(Kind.AGENT, "a1"),
        Put(build.report("t", entry_id="taken", progress=50)),
    ]
    with pytest.raises(errors.RecordExists):
        store.commit(new_changeset("t", ops, expected=1))
    assert (store.load("t"), store.counts(), store.changes()) == before
    assert store.list_records(Kind.FINDING, RecordQuery(task_id="t")).items == ()
    assert store.list_records(Kind.PROGRESS, RecordQuery(task_id="t")).items == (taken,)


def test_appends_need_no_revision(harness: Harness) -> None:
    """Semantics 5: with `expected` None appends never conflict, and each one is a revision."""
    store = harness.open()
    build.make(store, "t", build.agent("t"))
    for n in range(3):
        assert build.put(store, build.report("t", progress=n), expected=None).revision == n + 2
    build.put(store, build.finding("t"), expected=None)
    handover = Handover(task_id="t", handover_id="h", created_at=build.T0)
    build.put(store, handover, expected=None)
    with pytest.raises(errors.RecordExists):
        build.put(store, handover, expected=None)
    assert store.load("t").revision == 6


def test_agents_are_keyed_by_task_and_agent(harness: Harness) -> None:
    """Semantics 12: the same agent id in two tasks is two agents."""
    store = harness.open()
    build.make(store, "t1", build.agent("t1", "same", progress=1))
    build.make(store, "t2", build.agent("t2", "same", progress=2))
    build.put(store, build.report("t1", "same", progress=70), expected=None)
    assert store.load("t1").agents[0].progress == 70
    assert store.load("t2").agents[0].progress == 2
    assert store.counts().total_agents == 2


def test_a_report_shows_on_its_agent(harness: Harness) -> None:
    """The agent's status, progress and last update are those of its newest report."""
    store = harness.open()
    build.make(store, "t", build.agent("t", status=AgentStatus.RUNNING))
    entry = build.report("t", status="blocked", progress=40, message="waiting")
    build.put(store, entry, expected=None)
    snapshot = store.load("t")
    assert snapshot.latest == (entry,)
    seen = snapshot.agents[0]
    assert (seen.status, seen.progress, seen.last_update) == (
        AgentStatus.BLOCKED,
        40,
        entry.timestamp,
    )
    assert store.counts().agents == {AgentStatus.BLOCKED: 1}


def test_a_report_never_ends_or_revives_an_agent(harness: Harness) -> None:
    """A terminal status in a report does not end the agent; a late report does not reopen it."""
    store = harness.open()
    build.make(store, "t", build.agent("t", "live"), build.agent("t", "dead"))
    build.put(store, build.report("t", "live", status="completed", progress=100), expected=None)
    assert store.load("t").agents[1].status is AgentStatus.RUNNING
    assert store.load("t").agents[1].progress == 100
    ended = build.agent("t", "dead", status=AgentStatus.FAILED, progress=30)
    build.put(store, ended, expected=2)
    build.put(store, build.report("t", "dead", status="working", progress=99), expected=None)
    assert store.load("t").agents[0] == ended
    assert len(store.list_records(Kind.PROGRESS).items) == 2


def test_a_foreign_line_is_history_and_a_sign_of_life(harness: Harness) -> None:
    """A log line of another program changes only the agent's last update, and only forward."""
    store = harness.open()
    build.make(store, "t", build.agent("t", progress=5))
    entry = build.report("t", progress=80, status="blocked", foreign=True, timestamp=build.later(9))
    early = build.report("t", progress=80, foreign=True, timestamp=build.later(3))
    build.put(store, entry, early, expected=None)
    snapshot = store.load("t")
    seen = snapshot.agents[0]
    assert (seen.status, seen.progress) == (AgentStatus.RUNNING, 5)
    assert seen.last_update == build.later(9)
    assert snapshot.latest == ()


def test_a_report_of_an_unknown_agent_is_kept(harness: Harness) -> None:
    """A report is kept even if its agent has no record."""
    store = harness.open()
    build.make(store, "t")
    entry = build.report("t", "ghost")
    build.put(store, entry, expected=None)
    assert store.list_records(Kind.PROGRESS).items == (entry,)
    assert store.load("t").agents == ()


def test_status_is_derived_and_the_recorded_one_kept(harness: Harness) -> None:
    """The summary's status is derived from the records; the recorded status is kept as well."""
    store = harness.open()
    build.make(store, "t", build.phase("t", status=PhaseStatus.ACTIVE))
    states = [store.list_tasks().items[0].status]
    build.put(store, build.agent("t"), expected=1)
    states.append(store.list_tasks().items[0].status)
    build.put(store, build.agent("t", status=AgentStatus.COMPLETED), expected=2)
    build.put(store, build.phase("t", status=PhaseStatus.APPROVED), expected=3)
    summary = store.list_tasks().items[0]
    states.append(summary.status)
    assert states == [TaskStatus.INITIALIZED, TaskStatus.ACTIVE, TaskStatus.COMPLETED]
    assert summary.recorded_status is TaskStatus.INITIALIZED
    assert store.load("t").status is TaskStatus.COMPLETED
