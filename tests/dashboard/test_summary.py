"""The numbers are counts of the records in every phase, shown with the stored legacy counters."""

from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract_tests import build
from dashboard.live.activity_index import ActivityIndex
from dashboard.views.summary import look
from registry_api import (
    FeedCursor,
    Kind,
    RecordQuery,
    TaskStatus,
    all_records,
    all_tasks,
    load_settings,
    open_migration,
    open_store,
    silent,
)
from registry_api.client import is_silent, last_sign
from registry_api.migration import MigrationPhase
from registry_api.records import ACTIVE_AGENT, FAILED_AGENT, AgentStatus, TaskQuery
from tests.dashboard.serving import serving
from tests.samples import copy_of


@pytest.mark.parametrize("phase", [0, 4])
def test_the_recorded_registry(tmp_path, phase):
    """27 agents, one active and that one silent; the stored count of five is shown as stale."""
    workspace = copy_of("recorded-2025-10", tmp_path)
    if phase:
        chosen = load_settings(workspace, env={}, retire_seconds=0)
        with closing(open_migration(chosen)) as migration:
            migration.switch(MigrationPhase(phase), actor="test")
    with serving(workspace) as served:
        found = served.get("/api/tasks/summary/dashboard").json()
        page = served.get("/").text
    assert found["global_counts"] == {
        "total_tasks": 5,
        "active_tasks": 1,
        "completed_tasks": 3,
        "failed_tasks": 0,
        "silent_tasks": 1,
        "total_agents": 27,
        "active_agents": 1,
        "completed_agents": 26,
        "failed_agents": 0,
        "silent_agents": 1,
    }
    assert found["headline"].startswith("Nothing is running. 1 task is marked active but silent")
    assert found["headline"] in page
    if phase == 0:
        assert found["claimed"]["active_tasks"] == 5
        assert "says 5; the actual count is 1" in page


AGENTS = st.lists(st.sampled_from(list(AgentStatus)), max_size=4)
TASKS = st.lists(st.tuples(st.sampled_from(list(TaskStatus)), AGENTS), max_size=5)


@settings(max_examples=40, deadline=None)
@given(TASKS, st.integers(0, 4))
def test_counts_equal_a_recount(tmp_path_factory, tasks, phase):
    """After any history, in any phase, the summary equals a count of the records."""
    workspace = tmp_path_factory.mktemp("recount")
    chosen = load_settings(workspace, env={}, phase=phase, retire_seconds=0)
    now = datetime.now(UTC)
    with closing(open_store(chosen)) as store:
        for n, (recorded, agents) in enumerate(tasks):
            name = f"T-{n}"
            records = [
                build.agent(
                    name, f"a{m}", status=s, last_update=now - timedelta(minutes=20 * (m % 2))
                )
                for m, s in enumerate(agents)
            ]
            build.make(store, name, *records, recorded_status=recorded)
        summary = look(ActivityIndex(store), chosen, now)
        found = summary.numbers()
        every = list(all_tasks(store, TaskQuery()))
        agents = list(all_records(store, Kind.AGENT, RecordQuery()))
    before = now - timedelta(seconds=chosen.silent_after)
    active = [a for a in agents if a.status in ACTIVE_AGENT]
    quiet = {(a.task_id, a.agent_id) for a in active if last_sign(a) < before}
    alive = {a.task_id for a in active if (a.task_id, a.agent_id) not in quiet}
    by_status = Counter(t.status for t in every)
    assert found == {
        "total_tasks": len(tasks),
        "active_tasks": by_status[TaskStatus.ACTIVE],
        "completed_tasks": by_status[TaskStatus.COMPLETED],
        "failed_tasks": by_status[TaskStatus.FAILED],
        "silent_tasks": sum(
            t.status is TaskStatus.ACTIVE and t.task_id not in alive for t in every
        ),
        "total_agents": len(agents),
        "active_agents": len(active),
        "completed_agents": sum(
            a.status in {AgentStatus.COMPLETED, AgentStatus.PHASE_COMPLETED} for a in agents
        ),
        "failed_agents": sum(a.status in FAILED_AGENT for a in agents),
        "silent_agents": len(quiet),
    }
    assert summary.headline()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["T-0", "T-1", "T-2"]),
        st.sampled_from(["a", "b"]),
        st.sampled_from(list(AgentStatus)),
        st.booleans(),
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(STEPS, st.sampled_from([0, 1, 3]))
def test_what_is_kept_equals_what_is_read_anew(tmp_path_factory, steps, phase):
    """After each step, with a switch in between, the index equals a full read of the store."""
    workspace = tmp_path_factory.mktemp("kept")
    chosen = load_settings(workspace, env={}, phase=phase)
    now = datetime.now(UTC)
    before = now - timedelta(seconds=chosen.silent_after)
    with closing(open_store(chosen)) as store:
        kept = ActivityIndex(store)
        for n, (task_id, agent_id, status, late) in enumerate(steps):
            agent = build.agent(
                task_id, agent_id, status=status, last_update=now - timedelta(minutes=20 * late)
            )
            if revision := store.head(task_id).revision:
                build.put(store, agent, expected=revision)
            else:
                build.make(store, task_id, agent)
            if n == 5:
                with closing(open_migration(chosen)) as migration:
                    migration.switch(MigrationPhase(phase + 1), actor="test")
            quiet, fresh = kept.quiet(before), silent(store, before)
            assert {a.agent_id for a in quiet.agents} == {a.agent_id for a in fresh.agents}
            assert sorted(quiet.agents, key=repr) == sorted(fresh.agents, key=repr)
            assert quiet.tasks == set(fresh.tasks)
            for known in store.list_tasks().items:
                loaded = store.load(known.task_id)
                assert is_silent(loaded, before) == (known.task_id in fresh.tasks)


def test_who_is_far_behind_reads_all_anew(tmp_path):
    """After more changes than are applied one by one, and with an unknown cursor, all is read."""
    now = datetime.now(UTC)
    with closing(open_store(load_settings(tmp_path, env={}))) as store:
        build.make(store, "T", build.agent("T", "a", last_update=now))
        kept = ActivityIndex(store)
        assert kept.quiet(now - timedelta(minutes=1)).agents == ()
        for n in range(2100):
            build.put(store, build.report("T", "a", progress=n % 100), expected=None)
        build.make(store, "U", build.agent("U", "b", last_update=now - timedelta(hours=1)))
        assert "b" in {a.agent_id for a in kept.quiet(now - timedelta(minutes=1)).agents}
        kept._at = FeedCursor(feed_id="another", number=3)
        assert "U" in kept.quiet(now - timedelta(minutes=1)).tasks
