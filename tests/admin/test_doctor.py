"""registry-backend doctor, recover and watch."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from backends.admin.cli import main
from contract_tests import build
from registry_api import load_settings, open_migration, open_store
from registry_api.migration import MigrationPhase
from registry_api.plugins import Issue, Plugins, load_plugins
from tests import legacy, samples


def run(capsys, *tokens):
    code = main([*map(str, tokens), "--json"])
    return code, json.loads(capsys.readouterr().out)


def todo(found):
    return {i["check"]: i["next"] for i in found["issues"] if i["next"]}


@pytest.fixture
def workspace(tmp_path):
    for n in range(2):
        legacy.write_task(tmp_path, f"TASK-{n}", agents=[{"id": "a", "status": "running"}])
    return tmp_path


def switch(workspace, phase):
    with closing(open_migration(load_settings(workspace, env={}))) as migration:
        migration.switch(MigrationPhase(phase), actor="test")


@pytest.mark.parametrize("name", ["recorded-2025-10", "server-2026-01"])
def test_doctor_on_real_registries_writes_nothing(name, tmp_path, capsys):
    """Unreadable parts are named; nothing needs action, and no file is created."""
    place = samples.copy_of(name, tmp_path)
    before = sorted(place.rglob("*"))
    code, found = run(capsys, "doctor", "--workspace", place)
    assert (code, todo(found)) == (0, {})
    assert sorted(place.rglob("*")) == before
    if name == "server-2026-01":
        assert any("ghost-agent" in i["what"] for i in found["issues"])


def test_doctor_finds_nothing_to_do_in_a_move_that_is_well(workspace, capsys):
    """In phase 2 modes, locks, counts, pages and replication positions are all in order."""
    switch(workspace, 2)
    code, found = run(capsys, "doctor", "--workspace", workspace)
    assert (code, todo(found)) == (0, {})


def test_doctor_names_what_needs_action(workspace, capsys):
    """A wrong mode, an interrupted switch, a task behind, a conflict, a mismatch: with commands."""
    switch(workspace, 1)
    state = workspace / ".registry"
    (state / "phase.json").chmod(0o644)
    (state / "switch.json").write_text("{}")
    (state / "conflicts").mkdir(exist_ok=True)
    (state / "conflicts" / "TASK-0.1").write_text("theirs")
    (state / "mismatches.jsonl").write_text('{"task_id": "TASK-1"}\n')
    document = workspace / "TASK-1" / "AGENT_REGISTRY.json"
    document.write_text(document.read_text().replace('"running"', '"completed"'))
    code, found = run(capsys, "doctor", "--workspace", workspace)
    assert code == 3
    steps = [i["next"] for i in found["issues"] if i["next"]]
    assert f"chmod 600 {state / 'phase.json'}" in steps
    for word in ("recover", "reconcile", "verify"):
        assert any(s.startswith(f"registry-backend {word}") for s in steps), word
    assert any("conflicts" in s for s in steps)
    assert main(["doctor", "--workspace", str(workspace)]) == 3
    assert "next: registry-backend recover" in capsys.readouterr().out


def test_doctor_recounts(tmp_path, capsys):
    """Counters that differ from a count of the records are found; so is a damaged file."""
    with closing(open_store(load_settings(tmp_path, env={}))) as store:
        build.make(store, "t", build.agent("t"))
    path = tmp_path / ".registry" / "registry.sqlite3"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE counters SET n = 5 WHERE kind = 'status'")
    code, found = run(capsys, "doctor", "--workspace", tmp_path)
    assert code == 3
    assert "counts" in todo(found)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(path.read_bytes())
    data[4096 : len(data)] = bytes(len(data) - 4096)
    path.write_bytes(data)
    code, found = run(capsys, "doctor", "--workspace", tmp_path)
    assert code == 3
    assert "sqlite" in todo(found)


def test_doctor_compares_logs_and_records(tmp_path, capsys):
    """A line that was not imported, a record without a line: reconcile is named, and fixes both."""
    with closing(open_store(load_settings(tmp_path, env={}))) as store:
        build.make(store, "t", build.agent("t"))
        build.put(store, build.report("t"), expected=None)
    log = tmp_path / "t" / "progress" / "a1_progress.jsonl"
    line = b'{"timestamp": "2026-01-04T22:15:30", "agent_id": "a1", "progress": 9}'
    log.write_bytes(line + b"\n")
    code, found = run(capsys, "doctor", "--workspace", tmp_path)
    assert (code, todo(found)) == (3, {"logs": "registry-backend reconcile"})
    assert [i["what"].split()[0] for i in found["issues"] if i["check"] == "logs"] == ["1", "1"]
    assert run(capsys, "reconcile", "--workspace", tmp_path)[1]["taken"] == 1
    code, found = run(capsys, "doctor", "--workspace", tmp_path)
    assert (code, todo(found)) == (0, {})


def test_doctor_compares_the_sides_of_a_move(workspace, capsys):
    """A row of the target changed by hand in phase 2: the task and the diff command are named."""
    switch(workspace, 2)
    path = workspace / ".registry" / "registry.sqlite3"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE agents SET progress = 77 WHERE task_id = 'TASK-1'")
    code, found = run(capsys, "doctor", "--workspace", workspace)
    assert code == 3
    assert todo(found)["move"] == "registry-backend diff TASK-1"


def test_doctor_sees_what_nobody_can_write_or_read(workspace, capsys):
    """A read-only document in phase 1 and a journal with a damaged line are reported."""
    switch(workspace, 1)
    document = workspace / "TASK-1" / "AGENT_REGISTRY.json"
    document.chmod(0o444)
    code, found = run(capsys, "doctor", "--workspace", workspace)
    assert (code, todo(found)) == (3, {"files": f"chmod u+w {document}"})
    document.chmod(0o644)
    journal = workspace / ".registry" / "json" / "TASK-0.journal"
    with journal.open("r+b") as file:
        file.write(b"#")
    code, found = run(capsys, "doctor", "--workspace", workspace)
    assert code == 3
    assert any(f"{journal} at byte 0" in i["what"] for i in found["issues"])


def test_a_check_that_fails_is_an_issue_not_the_end(tmp_path, capsys, monkeypatch):
    """If a plugin's check raises, the other checks still run and its error is reported."""

    class Broken:
        pass

    def loaded() -> Plugins:
        plugins = load_plugins()
        from registry_api import hookimpl

        @hookimpl
        def registry_register_health_checks(register):
            register("raises", lambda context: 1 / 0)
            register("tells", lambda context: [Issue(what="seen", next_step="do it")])

        Broken.registry_register_health_checks = staticmethod(registry_register_health_checks)
        plugins.manager.register(Broken, name="broken")
        return plugins

    monkeypatch.setattr("registry_api.load_plugins", loaded)
    code, found = run(capsys, "doctor", "--workspace", tmp_path)
    assert code == 3
    assert "ZeroDivisionError" in next(i for i in found["issues"] if i["check"] == "raises")["what"]
    assert todo(found)["tells"] == "do it"


def test_recover_finishes_what_the_dead_left(workspace, capsys):
    """An interrupted switch and a task behind: listed by --dry-run, then fixed, then gone."""
    switch(workspace, 2)
    (workspace / ".registry" / "switch.json").write_text("{}")
    document = workspace / "TASK-1" / "AGENT_REGISTRY.json"
    document.write_text(document.read_text().replace('"running"', '"completed"'))
    code, found = run(capsys, "recover", "--dry-run", "--workspace", workspace)
    assert code == 0
    assert len(found["recovered"]) == 2
    assert (workspace / ".registry" / "switch.json").exists()
    _, found = run(capsys, "recover", "--workspace", workspace)
    assert len(found["recovered"]) == 2
    assert not (workspace / ".registry" / "switch.json").exists()
    assert run(capsys, "recover", "--workspace", workspace)[1]["recovered"] == []
    assert run(capsys, "status", "--workspace", workspace)[1]["migration"]["dirty"] == 0


def test_reconcile_says_what_it_would_do(workspace, capsys):
    """--dry-run counts the tasks that are behind; without it, they catch up."""
    switch(workspace, 1)
    document = workspace / "TASK-1" / "AGENT_REGISTRY.json"
    document.write_text(document.read_text().replace('"running"', '"completed"'))
    for words, caught_up in ((["--dry-run"], 1), (["--dry-run"], 1), ([], 1), (["--dry-run"], 0)):
        code, found = run(capsys, "reconcile", *words, "--workspace", workspace)
        assert (code, found["healed"]) == (0, caught_up)
    assert main(["reconcile", "--dry-run", "--workspace", str(workspace)]) == 0
    assert "0 task(s) would be brought up to date" in capsys.readouterr().out


def test_recover_waits_for_no_switch(workspace, capsys):
    """While a switch runs, recover exits with 4."""
    from filelock import FileLock

    switch(workspace, 1)
    with FileLock(workspace / ".registry" / "switch.lock"):
        assert run(capsys, "recover", "--workspace", workspace)[0] == 4


WRITER = """
import sys
from registry_api import load_settings, open_store
from contract_tests import build
store = open_store(load_settings(sys.argv[1], env={}))
print("up", flush=True)
while True:
    build.put(store, build.report("TASK-0", "a"), expected=None)
    store.load("TASK-0")
"""


def test_watch_sees_what_another_process_does(workspace, capsys):
    """Writes and reads a second with their 99th percentile, gate waits, replicated changesets."""
    switch(workspace, 1)
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(workspace)], stdout=subprocess.PIPE
    )
    try:
        writer.stdout.readline()
        code, found = run(capsys, "watch", "--every", 1, "--workspace", workspace)
    finally:
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate()
    assert code == 0
    assert (found["phase"], found["processes"]) == (1, 1)
    assert found["writes_per_second"] > 1
    assert found["reads_per_second"] > 1
    assert found["mirrored"] > 0
    assert 0 < found["gate_wait_p99_ms"] <= found["write_p99_ms"]
    assert main(["watch", "--count", "1", "--every", "0.1", "--workspace", str(workspace)]) == 0
    assert "gate wait p99 ms" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--every", "0"], ["--count", "-1"]])
def test_watch_refuses_what_it_cannot_do(workspace, capsys, words):
    """Usage errors exit with 2."""
    assert run(capsys, "watch", *words, "--workspace", workspace)[0] == 2


def test_other_registries_nearby_are_named(tmp_path, monkeypatch, capsys):
    """Registries above this one, in the home folder and in a folder that an editor's name was not
    expanded in are named, and none is merged."""
    from registry_api import open_store
    from registry_api.settings import load_settings

    home, project = tmp_path / "home", tmp_path / "project"
    literal = project / "${workspaceFolder}" / ".agent-workspace"
    places = [tmp_path, home / ".claude-orchestrator" / "workspaces", literal]
    own = project / ".agent-workspace"
    for place in (*places, own):
        place.mkdir(parents=True, exist_ok=True)
        open_store(load_settings(place, env={}, backend="sqlite")).close()
    monkeypatch.setattr("pathlib.Path.home", lambda: home)
    monkeypatch.chdir(project)
    main(["doctor", "--workspace", str(own), "--json"])
    found = json.loads(capsys.readouterr().out)["issues"]
    named = [i["what"].split()[4].rstrip(";") for i in found if i["check"] == "workspaces"]
    assert sorted(named) == sorted(map(str, places))
    assert all(i["next"] is None for i in found if i["check"] == "workspaces")
