"""The page of the migration: conflicts with their three sides, checklists, samples."""

import json
import os
from contextlib import closing
from dataclasses import replace

import pytest

from contract_tests import build
from dashboard.live.move_history import MoveHistory
from dashboard.views.conflicts import conflicts_of
from registry_api import AgentStatus, load_settings, open_migration, open_store
from registry_api.migration import MigrationPhase
from tests import legacy
from tests.dashboard.serving import serving
from tests.dashboard.test_acting import act
from tests.orchestrator.playing import until

AGENTS = [{"id": "a1", "type": "x", "status": "running", "progress": 1}]


def switch(workspace, to):
    with closing(open_migration(load_settings(workspace, env={}))) as migration:
        migration.switch(MigrationPhase(to), actor="test")


def complete(store, task_id):
    found = store.load(task_id)
    ours = replace(found.agents[0], status=AgentStatus.COMPLETED, progress=100)
    build.put(store, ours, expected=found.revision)


def test_a_late_write_is_shown_with_its_three_sides(tmp_path):
    """Before, theirs, ours now, field by field; values are text, whatever is in them."""
    legacy.write_task(tmp_path, "TASK-0", agents=AGENTS)
    switch(tmp_path, 3)
    with closing(open_store(load_settings(tmp_path, env={}))) as store:
        complete(store, "TASK-0")
    document = tmp_path / "TASK-0" / "AGENT_REGISTRY.json"
    document.chmod(0o644)

    def late(registry):
        registry["agents"][0] |= {"status": "failed", "model": "<script>alert(1)</script>"}

    legacy.edit(document, late)
    with serving(tmp_path) as served:
        page = served.get("/migration").text
    row = "<tr><td>agent a1</td><td><code>{}</code></td><td>{}</td><td>{}</td><td{}>{}</td></tr>"
    assert row.format("status", "running", "failed", ' class="bad"', "completed") in page
    assert row.format("model", "", "&lt;script&gt;alert(1)&lt;/script&gt;", "", "") in page
    assert "a late write, after the cut-over" in page
    (report,) = (tmp_path / ".registry" / "conflicts").glob("*.report")
    assert str(report) in page


def test_legacy_programs_that_still_write_are_counted(tmp_path):
    """Of the newest changes, with the time and the task of the last one."""
    legacy.write_task(tmp_path, "TASK-0", agents=AGENTS)
    switch(tmp_path, 2)
    with closing(open_store(load_settings(tmp_path, env={}))) as store, serving(tmp_path) as served:
        build.put(store, build.report("TASK-0", "a1"), expected=None)
        assert "changes came from a legacy program." in served.get("/migration").text
        legacy.edit(tmp_path / "TASK-0" / "AGENT_REGISTRY.json", legacy.add_agent("theirs"))
        page = served.get("/migration").text
        assert "<strong>Legacy programs still write</strong>: 1 of the last" in page
        assert 'in <a href="/tasks/TASK-0">TASK-0</a>. Stop them' in page


def test_a_stale_write_in_phase_0_is_shown(tmp_path):
    """A legacy program that wrote an agent's end after ours: ours stays, and the page tells it."""
    legacy.write_task(tmp_path, "TASK-0", agents=AGENTS)
    with closing(open_store(load_settings(tmp_path, env={}, backend="json"))) as store:
        read = json.loads((tmp_path / "TASK-0" / "AGENT_REGISTRY.json").read_text())
        complete(store, "TASK-0")

        def stale(registry):
            registry.clear()
            registry |= read
            registry["agents"][0]["status"] = "failed"

        legacy.edit(tmp_path / "TASK-0" / "AGENT_REGISTRY.json", stale)
        assert store.load("TASK-0").agents[0].status is AgentStatus.COMPLETED
    with serving(tmp_path) as served:
        page = served.get("/migration").text
    assert "a stale write, merged: ours stayed" in page
    assert "<td>running</td><td>failed</td>" in page


@pytest.mark.parametrize("text", ["", "{", "[]", '{"fields": [1], "changes": 3}', "\ud800"])
def test_a_report_that_cannot_be_read_is_named(tmp_path, text):
    """Whatever somebody wrote into it; a link is not followed."""
    folder = tmp_path / "conflicts"
    folder.mkdir()
    (folder / "TASK-0.straggler-1.report").write_bytes(text.encode("utf-8", "surrogatepass"))
    (folder / "TASK-1.report").symlink_to("/etc/passwd")
    os.mkfifo(folder / "TASK-2.report")
    (found,) = conflicts_of(tmp_path)
    assert (found["task_id"], found["late"], found["fields"]) == ("TASK-0", True, [])
    assert conflicts_of(tmp_path / "nowhere") == []


def test_a_plan_and_a_switch_are_checklists(tmp_path):
    """A plan lists the checks that hold and what would be done, a switch the steps that ended."""
    for n in range(3):
        legacy.write_task(tmp_path, f"TASK-{n}", agents=AGENTS)
    with serving(tmp_path) as served:
        plan = act(served, "plan", {"to": 2})[1]["answer"]
        assert "every document can be read" in plan["checks"]
        page = served.get("/migration").text
        assert "the stores of the move answer</li>" in page
        assert page.count('<li class="to-do">would switch') == 2
        job = act(served, "switch", {"to": 2})[1]
        assert ["verify", 3] in job["past"] or job["step"] == "verify"
        page = served.get("/migration").text
        assert page.count('<li class="done">switched') == 2
        assert "verify, 3" in page
        assert act(served, "plan", {"to": 1})[1]["answer"]["checks"] == [
            "the stores of the move answer"
        ]


def test_what_happened_between_two_samples(tmp_path):
    """A row counts the commits since the row before; nothing is kept outside phases 1 and 2."""
    legacy.write_task(tmp_path, "TASK-0", agents=AGENTS)
    history = MoveHistory(tmp_path / ".registry")
    history.look()
    switch(tmp_path, 1)
    with closing(open_store(load_settings(tmp_path, env={}))) as store:
        build.put(store, build.report("TASK-0", "a1"), expected=None)
        store.close()
    with closing(open_store(load_settings(tmp_path, env={}))) as store:
        store.load("TASK-0")
        history.look()
        for n in range(5):
            build.put(store, build.report("TASK-0", "a1", progress=n), expected=None)
        # What a process has counted appears with its next operation, 0.1 s later.
        until(
            lambda: (store.load("TASK-0"), history.look(), sum(r[0] for r in history.rows))[2] == 5
        )
    assert [sum(column) for column in zip(*history.rows, strict=True)][:2] == [5, 0]
    switch(tmp_path, 3)
    history.look()
    assert not history.rows
