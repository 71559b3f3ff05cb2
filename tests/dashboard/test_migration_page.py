"""The page of the migration: conflicts with their three sides, checklists, samples."""

import json
import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from backends.json_files.merge import compared
from contract_tests import build
from dashboard.live.move_history import MoveHistory
from dashboard.views import programs
from dashboard.views.conflicts import conflicts_of
from dashboard.views.foreign_writes import foreign_writes
from registry_api import AgentStatus, Task, load_settings, open_migration, open_store
from registry_api.migration import MigrationPhase
from registry_api.records import TaskState
from tests import legacy
from tests.dashboard.serving import serving
from tests.dashboard.test_acting import act
from tests.orchestrator.playing import until
from tests.samples import copy_of

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
        assert "Not ready for phase 3: legacy programs still write" in page
        assert 'in <a href="/tasks/TASK-0">TASK-0</a> (1 of the last' in page
        act(served, "plan", {"to": 3})
        assert (
            "legacy programs still write: stop them before phase 3</li>"
            in served.get("/migration").text
        )


def test_old_files_are_not_taken_for_writes(tmp_path):
    """The first reading of a recorded registry, with its logs, is no write of a legacy program."""
    workspace = copy_of("recorded-2025-10", tmp_path)
    with closing(open_store(load_settings(workspace, env={}))) as store:
        store.counts()
        found = foreign_writes(store)
    assert found.of > 0
    assert (found.number, found.is_recent) == (0, False)


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


def test_a_large_report_is_shown_in_part(tmp_path):
    """At most 100 fields and lines, each cut; the number of the others is told."""
    folder = tmp_path / "conflicts"
    folder.mkdir()
    rows = [{"record": "agent a", "field": "prompt", "theirs": "x" * 900}] * 300
    report = {"task_id": "T", "fields": rows, "changes": ["y" * 900] * 300, "fields_left_out": 5}
    (folder / "T.1.report").write_text(json.dumps(report))
    (found,) = conflicts_of(tmp_path)
    assert (len(found["fields"]), found["more"], len(found["lines"])) == (100, 205, 100)
    assert len(json.dumps(found)) < 100_000


def test_a_long_value_is_cut_around_the_difference():
    """Three texts that differ only at their ends are shown where they differ."""
    same = "p" * 500
    said = [
        TaskState(Task(task_id="t"), agents={"a": build.agent("t", "a", prompt=same + end)})
        for end in ("before", "ours", "theirs")
    ]
    rows, left_out = compared(said[0], said[1], said[2])
    (row,) = rows
    assert left_out == 0
    assert [row[side][-6:] for side in ("before", "ours", "theirs")] == [
        "before",
        "ppours",
        "theirs",
    ]
    assert row["theirs"].startswith("…")
    assert max(map(len, row.values())) <= 202


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["python", "-X", "dev", "-m", "orchestrator", "serve", "-p", "1"], "orchestrator serve"),
        (["/x/bin/python3.11", "/x/bin/registry-dashboard", "serve"], "registry-dashboard serve"),
        (["python", "worker.py", "ghp_16C7e42F292c6912E7710c838347Ae178B4a"], "worker.py"),
        (["python", "x.py", "--token", "x", "-m", "hunter2"], "x.py"),
        (["python", "-c", "secret"], "python"),
        (["registry-backend", "sk-ant-api03-abcdef"], "registry-backend"),
        ([], ""),
    ],
)  # fmt: skip
def test_a_command_line_shows_no_secret(monkeypatch, argv, name):
    """Only the program, and of ours the command."""
    monkeypatch.setattr(Path, "read_bytes", lambda _: "\0".join([*argv, ""]).encode())
    assert programs._name(1) == name


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
