"""Consistency is monitored: a sample of answers is compared, and a guarded switch steps back."""

import json
import sqlite3
import threading
import time
from contextlib import closing

import pytest

from backends.admin.cli import main
from contract_tests import build
from registry_api import Kind, load_plugins, load_settings, open_store
from registry_api.migration import PhaseFile
from registry_api.plugins import hookimpl
from registry_api.workspace import Process
from tests import legacy
from tests.dual_write.unwrap import dual


@pytest.fixture
def workspace(tmp_path):
    agents = [{"id": "a1", "type": "x", "status": "running", "progress": 1}]
    legacy.write_task(tmp_path, "TASK-0", agents=agents)
    return tmp_path


def cli(capsys, *tokens):
    code = main([str(t) for t in tokens])
    return code, json.loads(capsys.readouterr().out)


class Watching:
    def __init__(self):
        self.seen = []

    @hookimpl
    def registry_observe(self, op, outcome):
        if op.startswith("compare."):
            self.seen.append((op, outcome))


@pytest.mark.parametrize("phase", [1, 2])
def test_a_difference_is_counted_kept_and_shown(workspace, capsys, phase):
    """Each compared answer is counted as matched or mismatched per operation: in procs, for
    plugins, in status and in metrics."""
    assert cli(capsys, "switch", phase, "--json", "--workspace", workspace)[0] == 0
    plugins, watching = load_plugins(), Watching()
    plugins.manager.register(watching)
    settings = load_settings(workspace, env={"REGISTRY_COMPARE": "1"})
    with closing(open_store(settings, plugins=plugins)) as store:
        store.load("TASK-0")
        store.counts()
        with closing(sqlite3.connect(workspace / ".registry" / "registry.sqlite3")) as db:
            db.execute("UPDATE agents SET prompt = 'another'")
            db.commit()
        store.load("TASK-0")
        store.list_records(Kind.AGENT)
        time.sleep(0.2)  # counts are written ten times a second
        store.list_tasks()
        found = cli(capsys, "status", "--json", "--workspace", workspace)[1]["monitor"]
        assert main(["metrics", "--workspace", str(workspace)]) == 0
        lines = capsys.readouterr().out.splitlines()
    assert watching.seen == [
        ("compare.load", "matched"),
        ("compare.counts", "matched"),
        ("compare.load", "mismatched"),
        ("compare.list_records", "mismatched"),
        ("compare.list_tasks", "matched"),
    ]
    assert found["compared"] >= 4
    assert (found["mismatched"], found["kept_mismatches"]) == (2, 2)
    label = '{op="load",outcome="mismatched"}'
    assert f"registry_compared_answers_total{label} 1" in lines
    kept = (workspace / ".registry" / "mismatches.jsonl").read_bytes().splitlines()
    assert json.loads(kept[0])["pointer"] == "/agents/a1/prompt"


def test_a_failed_replication_is_not_a_difference(workspace, capsys):
    """A target that is behind after a failed replication is in flight, not a mismatch."""
    assert cli(capsys, "switch", 1, "--json", "--workspace", workspace)[0] == 0
    with closing(open_store(load_settings(workspace, env={"REGISTRY_COMPARE": "1"}))) as store:
        target = dual(store).replicator().target
        original, target.apply = target.apply, lambda change: (_ for _ in ()).throw(OSError())
        build.put(store, build.report("TASK-0"), expected=None)
        target.apply = original
        store.load("TASK-0")
        assert dual(store).followed["load.in_flight"] == 1
        assert dual(store).followed["mismatched"] == 0


def test_a_target_that_catches_up_meanwhile_is_not_a_difference(workspace, capsys):
    """A target that is behind when it answers and then catches up is in flight, not a mismatch."""
    assert cli(capsys, "switch", 1, "--json", "--workspace", workspace)[0] == 0
    with closing(open_store(load_settings(workspace, env={"REGISTRY_COMPARE": "1"}))) as store:
        replicator = dual(store).replicator()
        target = replicator.target
        apply, load = target.apply, target.load
        target.apply = lambda change: (_ for _ in ()).throw(OSError())
        build.put(store, build.report("TASK-0"), expected=None)
        target.apply = apply
        asked = []

        def answering(task_id, *, only=None):
            found = load(task_id, only=only)
            asked.append(found.revision)
            if len(asked) == 2:
                replicator.catch_up(task_id)
            return found

        target.load = answering
        store.load("TASK-0")
        assert asked == [asked[0]] * 2
        assert dual(store).followed["load.in_flight"] == 1
        assert dual(store).followed["mismatched"] == 0


def test_a_guarded_switch_steps_back_by_itself(workspace, capsys):
    """A guarded switch followed by failing calls steps back, exits 3 and says why."""
    assert cli(capsys, "switch", 1, "--json", "--workspace", workspace)[0] == 0
    process = Process(workspace / ".registry", every=0.0)
    stop = threading.Event()

    def fail():
        while not stop.wait(0.05):
            if PhaseFile(workspace / ".registry").current().phase == 2:
                process.count("failed")

    failing = threading.Thread(target=fail)
    failing.start()
    try:
        tokens = ("switch", 2, "--guard", "20s", "--json", "--workspace", workspace)
        code, found = cli(capsys, *tokens)
    finally:
        stop.set()
        failing.join()
        process.close()
    assert code == 3
    assert any("stepped back to 1" in note for note in found["notes"])
    assert PhaseFile(workspace / ".registry").current().phase == 1


def test_a_guarded_switch_that_goes_well_stays(workspace, capsys):
    """A guarded switch after which nothing fails in the given time keeps the new phase."""
    tokens = ("switch", 1, "--guard", "1", "--json", "--workspace", workspace)
    code, found = cli(capsys, *tokens)
    assert code == 0
    assert found["notes"] == ["watched for 1 s: no problem found"]


@pytest.mark.parametrize("wrong", ["", "soon", "-1", "0", "99h", "1d"])
def test_a_guard_that_is_not_a_duration_is_refused(workspace, capsys, wrong):
    """The command refuses a guard that is not a duration before it changes anything."""
    code, _ = cli(capsys, "switch", "1", f"--guard={wrong}", "--json", "--workspace", workspace)
    assert code == 2
    assert not (workspace / ".registry").exists()
