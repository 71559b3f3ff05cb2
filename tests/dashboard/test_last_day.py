"""The last hour and day are what the records say, however the server learned of them."""

import asyncio
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract_tests import build
from dashboard.live import last_day
from dashboard.live.activity_index import ActivityIndex
from registry_api import AsyncStore, TaskStatus, load_settings, open_store
from registry_api.records import ACTIVE_AGENT, FAILED_AGENT, AgentStatus
from tests.dashboard.serving import serving
from tests.orchestrator.playing import until

MINUTES = st.integers(0, 2000)
AGENT = st.tuples(
    st.sampled_from(["T-0", "T-1", "T-2"]),
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(list(AgentStatus)),
    MINUTES,
    MINUTES,
)


def rows(agents, now, length):
    """Count each bucket of ``length`` minutes by looking at every agent, without differences."""
    found, width = [], length // 60
    for n in range(60):
        first = now - length + 1 + n * width
        last = first + width - 1
        active = completed = failed = 0
        for began, ended, status in agents:
            if ended is not None and first <= ended <= last:
                completed += status not in FAILED_AGENT
                failed += status in FAILED_AGENT
            elif began <= last and (ended is None or ended > last):
                active += 1
        found.append((active, completed, failed))
    return tuple(found)


def minute(moment):
    return int(moment.timestamp() // 60)


def fill(index, store):
    asyncio.run(index.last_day.fill(AsyncStore(store), index.catch_up(), index.catch_up))


@settings(max_examples=60, deadline=None)
@given(st.lists(AGENT, max_size=8), st.integers(0, 8))
def test_the_last_day_equals_a_recount(tmp_path_factory, steps, known):
    """Of any agents, some written before the server read the records and some after."""
    now = datetime.now(UTC).replace(microsecond=0)
    workspace = tmp_path_factory.mktemp("day")
    with closing(open_store(load_settings(workspace, env={}, backend="memory"))) as store:
        index = ActivityIndex(store)
        assert index.last_day.recent(now) is None
        agents = {}
        for n, (task_id, agent_id, status, began, lasted) in enumerate(steps):
            if n == known:
                fill(index, store)
            start = now - timedelta(minutes=began)
            end = min(start + timedelta(minutes=lasted), now)
            times = {"started_at": start, "last_update": end}
            if status not in ACTIVE_AGENT:
                times["completed_at"] = end
            agent = build.agent(task_id, agent_id, status=status, **times)
            if revision := store.head(task_id).revision:
                build.put(store, agent, expected=revision)
            else:
                build.make(store, task_id, agent)
            agents[task_id, agent_id] = start, times.get("completed_at"), status
            if status is AgentStatus.UNKNOWN:  # neither active nor ended
                del agents[task_id, agent_id]
        if known >= len(steps):
            fill(index, store)
        index.catch_up()
        recent = index.last_day.recent(now)
        found = [(minute(s), e and minute(e), status) for s, e, status in agents.values()]
        assert recent.hour == rows(found, minute(now), 60)
        assert recent.day == rows(found, minute(now), 1440)
        ended = [s in FAILED_AGENT for _, end, s in found if end and end > minute(now) - 1440]
        assert recent.agents == {
            TaskStatus.FAILED: sum(ended),
            TaskStatus.COMPLETED: len(ended) - sum(ended),
        }
        for status, names in recent.newest.items():
            assert all(store.load(name).status is status for name in names)
            assert len(names) == recent.tasks[status]


def test_changes_that_were_missed_are_read_again(tmp_path):
    """After more changes than are applied one by one the records are read again, and no number is
    told before."""
    now = datetime.now(UTC)
    with closing(open_store(load_settings(tmp_path, env={}, backend="memory"))) as store:
        index = ActivityIndex(store)
        build.make(store, "T", build.agent("T", "a", last_update=now))
        fill(index, store)
        for n in range(2100):
            build.put(store, build.report("T", "a", progress=n % 100), expected=None)
        index.quiet(now)
        assert index.last_day.recent(now) is None
        fill(index, store)
        assert index.last_day.recent(now).hour[-1] == (1, 0, 0)


def test_what_was_changed_while_the_records_were_read_stays(tmp_path):
    """A task that changes during the reading is not put back to what was read of it before."""
    now = datetime.now(UTC)
    with closing(open_store(load_settings(tmp_path, env={}, backend="memory"))) as store:
        build.make(store, "T", build.agent("T", "a", started_at=now, last_update=now))
        index = ActivityIndex(store)
        active = index.catch_up()

        class Late(AsyncStore):
            async def load(self, task_id, *, only=None):
                old = await super().load(task_id, only=only)
                ended = build.agent(
                    "T", "a", status=AgentStatus.FAILED, started_at=now, completed_at=now
                )
                build.put(store, ended, expected=old.revision)
                index.catch_up()
                return old

        asyncio.run(index.last_day.fill(Late(store), active, index.catch_up))
        assert index.last_day.recent(now).agents[TaskStatus.FAILED] == 1


def test_an_odd_time_is_no_end(tmp_path):
    """An agent that ended in the year 9999 is neither active nor ended, before and after a change,
    and one that ended without a report counts as soon as it is read."""
    now = datetime.now(UTC)
    with closing(open_store(load_settings(tmp_path, env={}, backend="memory"))) as store:
        odd = {"status": AgentStatus.COMPLETED, "completed_at": datetime(9999, 12, 31, tzinfo=UTC)}
        later = {"status": AgentStatus.RUNNING, "started_at": now + timedelta(days=400)}
        done = {"status": AgentStatus.FAILED, "completed_at": now - timedelta(hours=1)}
        build.make(store, "odd", build.agent("odd", "a", **odd), build.agent("odd", "b", **later))
        build.make(store, "done", build.agent("done", "a", last_update=None, **done))
        index = ActivityIndex(store)
        fill(index, store)
        before = index.last_day.recent(now)
        assert before.agents == {TaskStatus.COMPLETED: 0, TaskStatus.FAILED: 1}
        for task_id in ("odd", "done"):
            index.last_day.note(task_id, store.load(task_id))
        assert index.last_day.recent(now) == before
        assert before.day[-1] == (0, 0, 0)


def test_reading_goes_on_beside_many_changes(tmp_path, monkeypatch):
    """More changes than a page applies do not start the reading again."""
    now = datetime.now(UTC)
    monkeypatch.setattr(last_day, "_PAGE", 1)
    with closing(open_store(load_settings(tmp_path, env={}, backend="memory"))) as store:
        for n in range(3):
            agent = build.agent(f"T-{n}", "a", started_at=now, last_update=now)
            build.make(store, f"T-{n}", agent)
        index = ActivityIndex(store)

        def beside():
            for n in range(2100):
                build.put(store, build.report("T-0", "a", progress=n % 100), expected=None)
            return index.catch_up()

        asyncio.run(index.last_day.fill(AsyncStore(store), index.catch_up(), beside))
        assert index.last_day.recent(now).hour[-1][0] == 3


def test_what_is_older_than_a_day_is_forgotten(tmp_path):
    """The counts stay right when old tasks are dropped."""
    now = datetime.now(UTC)
    old = now - timedelta(days=2)
    with closing(open_store(load_settings(tmp_path, env={}, backend="memory"))) as store:
        done = {"status": AgentStatus.COMPLETED, "started_at": old, "completed_at": old}
        build.make(store, "old", build.agent("old", "a", **done))
        running = build.agent("new", "a", started_at=old, last_update=now)
        build.make(store, "new", running)
        index = ActivityIndex(store)
        index.catch_up()
        for task_id in ("old", "new"):
            index.last_day.note(task_id, store.load(task_id))
        fill(index, store)
        before = index.last_day.recent(now)
        index.last_day._drop_old(minute(now))
        assert index.last_day.recent(now) == before
        assert before.day == ((1, 0, 0),) * 60
        assert set(index.last_day._entries) == {"new"}
        counts = index.last_day._counts
        assert set(counts.began) == {minute(old)}
        assert not any(counts.ended.values())
        assert not any(counts.tasks.values())


@pytest.mark.parametrize("backend", ["json", "sqlite"])
def test_tiles_of_the_last_day(tmp_path, backend):
    """The overview counts what ended within the last day, each tile leads to these tasks, and a
    change is counted at once."""
    now = datetime.now(UTC)

    def make(store, name, status, ended):
        agent = build.agent(
            name,
            f"{name}-a",
            status=status,
            started_at=ended,
            completed_at=ended,
            last_update=ended,
        )
        build.make(store, name, agent, created_at=ended)

    with closing(open_store(load_settings(tmp_path, env={}, backend=backend))) as store:
        make(store, "old", AgentStatus.FAILED, now - timedelta(days=2))
        make(store, "new", AgentStatus.FAILED, now - timedelta(hours=2))
        make(store, "done", AgentStatus.COMPLETED, now - timedelta(hours=3))
        with serving(tmp_path) as served:
            page = until(lambda: (t := served.get("/").text) and "being read" not in t and t)
            assert '<strong data-count="failed_tasks">1</strong>' in page
            assert '<strong data-count="completed_agents">1</strong>' in page
            failed = served.get("/?ended=FAILED").text
            assert 'href="/tasks/new"' in failed
            assert 'href="/tasks/old"' not in failed
            make(store, "newest", AgentStatus.FAILED, now)
            assert '<strong data-count="failed_tasks">2</strong>' in served.get("/").text
            failed = served.get("/?ended=FAILED").text
            assert failed.index("/tasks/newest") < failed.index('/tasks/new"')
