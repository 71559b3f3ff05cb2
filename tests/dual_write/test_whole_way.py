"""The whole move, 0 to 4 and back: a record written in one phase is there in every other phase."""

import itertools
import json
import threading
from contextlib import closing

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from contract_tests import build
from contract_tests.harness import Harness
from contract_tests.test_model import Machine
from registry_api import load_settings, open_migration, open_store
from registry_api.errors import BackendMismatch
from registry_api.migration import MigrationPhase
from tests import legacy, samples

ENV = {"REGISTRY_RETIRE_SECONDS": "0", "REGISTRY_DURABLE": "0"}


def opened(workspace, **env):
    return open_store(load_settings(workspace, env=ENV | env))


def moved(workspace):
    return closing(open_migration(load_settings(workspace, env=ENV)))


def switch(workspace, phase, **options):
    with moved(workspace) as migration:
        return migration.switch(MigrationPhase(phase), actor="test", **options)


def mismatches(workspace):
    with moved(workspace) as migration:
        return migration.verify().mismatches


@pytest.fixture
def workspace(tmp_path):
    for n in range(3):
        agents = [{"id": f"a{n}", "type": "x", "status": "running", "mine": [n], "progress": 1}]
        legacy.write_task(tmp_path, f"TASK-{n}", agents=agents, own_key={"b": 1, "a": 2})
    return tmp_path


def document(workspace, task):
    return json.loads((workspace / task / "AGENT_REGISTRY.json").read_bytes())


def test_a_random_history_over_all_phases_has_the_same_outcome(tmp_path):
    """After any random history with switches at any moment, the store holds the same as the
    reference, feed included."""
    count = iter(range(10**6))

    class Walking(Machine):
        make = staticmethod(lambda: Harness("dual1", tmp_path / str(next(count))))

        @rule(phase=st.integers(0, 4))
        def switch(self, phase):
            switch(self.harness.workspace, phase)
            assert mismatches(self.harness.workspace) == ()

    run_state_machine_as_test(
        Walking,
        settings=settings(
            max_examples=25,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("name", ["recorded-2025-10", "server-2026-01"])
def test_real_registries_go_the_whole_way_and_back(tmp_path, name):
    """A real registry goes from 0 to 4 and back to 0 with the same counts at each step and every
    byte as before, except the list of all tasks, whose counters are then accurate."""
    workspace = samples.copy_of(name, tmp_path)

    def contents():
        return {
            p: p.read_bytes()
            for p in workspace.rglob("*")
            if p.is_file() and ".registry" not in p.parts
        }

    before = contents()
    with closing(opened(workspace)) as store:
        counts = store.counts()
        for phase in (1, 2, 3, 4, 3, 2, 1, 0):
            switch(workspace, phase)
            assert mismatches(workspace) == ()
            assert store.counts() == counts
            assert any("AGENT_REGISTRY" in p.name for p in contents()) is (phase < 4)
    after, listed = contents(), workspace / "registry" / "GLOBAL_REGISTRY.json"
    assert samples.keeps_entries(before.pop(listed), after.pop(listed))
    assert after == before


@pytest.mark.parametrize("top", [3, 4])
def test_records_written_after_the_cut_over_come_back(workspace, top):
    """Records written after the cut-over come back in the document's own order, with its unknown
    keys, and a task created in SQLite becomes a document."""
    switch(workspace, top)
    with closing(opened(workspace)) as store:
        build.put(store, build.report("TASK-0", "a0", progress=77), expected=None)
        build.put(store, build.agent("TASK-1", "new"), expected=1)
        build.make(store, "TASK-born", build.agent("TASK-born"))
        build.put(store, build.finding("TASK-born"), expected=None)
        switch(workspace, 0)
        assert store.load("TASK-0").agents[0].progress == 77
    found = document(workspace, "TASK-0")
    assert list(found)[-1] == "own_key"
    assert list(found["own_key"]) == ["b", "a"]
    assert (found["agents"][0]["progress"], found["agents"][0]["mine"]) == (77, [0])
    assert [a["id"] for a in document(workspace, "TASK-1")["agents"]] == ["a1", "new"]
    assert document(workspace, "TASK-born")["agents"][0]["id"] == "a1"
    legacy.edit(workspace / "TASK-born" / "AGENT_REGISTRY.json", legacy.add_agent("theirs"))
    with closing(opened(workspace)) as store:
        assert [a.agent_id for a in store.load("TASK-born").agents] == ["a1", "theirs"]
    switch(workspace, 2)
    assert mismatches(workspace) == ()


def test_a_task_replaced_on_rollback_hides_nothing(workspace):
    """A log removed in phase 3 is rebuilt when its task is replaced on rollback; the feed still
    begins at its beginning, also for tasks with older lines."""
    with closing(opened(workspace)) as store:
        for n in range(6):
            build.put(store, build.report(f"TASK-{n % 3}", f"a{n % 3}"), expected=None)
        switch(workspace, 3)
        feed = store.changes()
        for path in workspace.glob("TASK-2/progress/*.jsonl"):
            path.unlink()
        switch(workspace, 2)
        assert list(workspace.glob("TASK-2/progress/*.jsonl"))
        assert store.changes() == feed
        switch(workspace, 0)
        assert store.changes() == feed


def test_a_lost_record_is_never_taken_for_phase_0(workspace):
    """Frozen documents without phase.json and database are an error that says what to restore."""
    switch(workspace, 3)
    for path in (workspace / ".registry").glob("registry.sqlite3*"):
        path.unlink()
    record = workspace / ".registry" / "phase.json"
    record.unlink()
    with pytest.raises(BackendMismatch, match="frozen by a cut-over"):
        opened(workspace)
    assert not record.exists()


def test_a_subscriber_follows_the_whole_way(workspace):
    """A subscriber follows a writer from 0 to 4 and back without a gap or a repeat."""
    stop, sent = threading.Event(), []

    def write():
        with closing(opened(workspace)) as store:
            for n in itertools.count():
                if stop.is_set():
                    return
                commit = build.put(store, build.report(f"TASK-{n % 3}"), expected=None)
                sent.append(commit.changeset_id)

    writer = threading.Thread(target=write)
    writer.start()
    seen, cursor = [], None
    try:
        with closing(opened(workspace)) as store:
            for phase in (1, 2, 3, 4, 3, 2, 1, 0):
                switch(workspace, phase, timeout=30.0)
                while page := store.changes(cursor, limit=100):
                    seen += [c.changeset.id for c in page]
                    cursor = page[-1].cursor
            stop.set()
            writer.join()
            while page := store.changes(cursor, limit=100):
                seen += [c.changeset.id for c in page]
                cursor = page[-1].cursor
    finally:
        stop.set()
        writer.join()
    ours = [c for c in seen if c.version == 7]
    assert ours == sent
    assert len(seen) == len(set(seen)) == len(sent) + 3
