"""A write by a legacy program after the cut-over is not the record, but is never lost silently."""

import json
import subprocess
import sys
from contextlib import closing, contextmanager

import pytest

from backends.admin.cli import main
from contract_tests import build
from registry_api import Kind, load_settings, open_migration, open_store
from tests import legacy

TASK = "TASK-0"
# A legacy program that had the document open all along: neither its mode nor its name stops it.
HOLDING = (
    legacy.PROGRAM
    + """
file = open(sys.argv[1], "r+")
print("open", flush=True)
for line in sys.stdin:
    fcntl.flock(file, fcntl.LOCK_EX)
    file.seek(0)
    document = json.load(file)
    add_agent(line.strip())(document)
    file.seek(0)
    file.write(json.dumps(document, indent=2))
    file.truncate()
    file.flush()
    fcntl.flock(file, fcntl.LOCK_UN)
    print("written", flush=True)
"""
)


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setenv("REGISTRY_RETIRE_SECONDS", "0.3")


@pytest.fixture
def workspace(tmp_path):
    agents = [{"id": "a1", "type": "x", "status": "running", "progress": 1}]
    for n in range(2):
        legacy.write_task(tmp_path, f"TASK-{n}", agents=agents)
    return tmp_path


def cli(capsys, *tokens):
    code = main([str(t) for t in tokens])
    return code, json.loads(capsys.readouterr().out)


def switch(capsys, workspace, to, *options):
    return cli(capsys, "switch", to, *options, "--json", "--workspace", workspace)


def status(capsys, workspace):
    return cli(capsys, "status", "--json", "--workspace", workspace)[1]


def document(workspace, task=TASK):
    return workspace / task / "AGENT_REGISTRY.json"


def reports(workspace):
    return [
        json.loads(p.read_bytes()) for p in (workspace / ".registry").glob("conflicts/*.report")
    ]


@contextmanager
def holding(path):
    """Run a process that has the document open; give a function that makes it add an agent."""
    command = [sys.executable, "-c", HOLDING, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as program:
        assert program.stdout.readline() == "open\n"

        def add(name):
            program.stdin.write(f"{name}\n")
            program.stdin.flush()
            assert program.stdout.readline() == "written\n"

        yield add


def test_a_late_write_is_kept_and_shown(workspace, capsys):
    """A late write is kept in conflicts/ with its differences, the frozen text is restored and
    status shows it; phase 4 is then refused until an operator forces it with a reason."""
    assert switch(capsys, workspace, 2)[0] == 0
    with holding(document(workspace)) as add:
        code, found = switch(capsys, workspace, 3)
        assert code == 0
        assert any("open in another process" in note for note in found["notes"])
        frozen = document(workspace).read_bytes()
        add("late")
        assert document(workspace).read_bytes() != frozen
        late = status(capsys, workspace)["stragglers"]
        assert len(late) == 1
        assert document(workspace).read_bytes() == frozen
    assert reports(workspace)[0]["changes"] == ["changed agent late"]
    kept = list((workspace / ".registry").glob("conflicts/*.json"))
    assert b'"late"' in kept[0].read_bytes()
    code, found = switch(capsys, workspace, 4)
    assert (code, found["error"]["code"]) == (6, "preflight")
    assert switch(capsys, workspace, 4, "--anyway")[0] == 2
    assert switch(capsys, workspace, 4, "--anyway", "--reason", "seen")[0] == 0
    last = cli(capsys, "history", "--json", "--workspace", workspace)[1]["switches"][-1]
    assert last["by"].endswith("forced: seen")


def test_an_open_document_is_not_removed_unseen(workspace, capsys):
    """The switch to phase 4 names the program that has a document open, and a forced switch still
    keeps a later write of that program."""
    with holding(document(workspace)) as add:
        assert switch(capsys, workspace, 3)[0] == 0
        code, found = switch(capsys, workspace, 4)
        assert code == 6
        assert "python" in found["error"]["message"]
        code, found = switch(capsys, workspace, 4, "--anyway", "--reason", "it may")
        assert code == 0
        assert any("pending deletion" in note for note in found["notes"])
        assert not document(workspace).exists()
        add("too-late")
    code, found = cli(capsys, "recover", "--json", "--workspace", workspace)
    assert any("late write after archiving" in note for note in found["recovered"])
    assert list((workspace / ".registry" / "retired").iterdir()) == []
    kept = list((workspace / ".registry").glob("conflicts/*.json"))
    assert b'"too-late"' in b"".join(p.read_bytes() for p in kept)
    assert len(status(capsys, workspace)["stragglers"]) == 1


@pytest.mark.parametrize("phase", [3, 4])
def test_a_registry_made_after_the_cut_over_is_found(workspace, capsys, phase):
    """A registry that a legacy program creates after the cut-over is kept and shown once, and
    becomes a task when JSON is the writer of record again."""
    assert switch(capsys, workspace, phase)[0] == 0
    legacy.write_task(workspace, "TASK-new", agents=[{"id": "n1", "status": "running"}])
    for _ in range(2):
        assert len(status(capsys, workspace)["stragglers"]) == 1
    assert reports(workspace)[0]["changes"] == ["a new registry with 1 agent(s)"]
    assert switch(capsys, workspace, 2)[0] == 0
    with closing(open_store(load_settings(workspace))) as store:
        assert store.load("TASK-new").agents[0].agent_id == "n1"


def test_a_late_write_is_not_overwritten_on_rollback(workspace, capsys):
    """The step from 3 to 2 replaces only frozen text; a late write in a document is kept."""
    with holding(document(workspace)) as add:
        assert switch(capsys, workspace, 3)[0] == 0
        with closing(open_store(load_settings(workspace))) as store:
            build.put(store, build.agent(TASK, "ours"), expected=1)
        add("late")
        assert switch(capsys, workspace, 2)[0] == 0
    assert reports(workspace)[0]["changes"] == ["changed agent late"]
    with closing(open_store(load_settings(workspace))) as store:
        assert [a.agent_id for a in store.load(TASK).agents] == ["a1", "ours"]
    assert cli(capsys, "verify", "--json", "--workspace", workspace)[0] == 0


def test_lines_appended_after_the_cut_over_are_imported_once(workspace, capsys):
    """Lines that other programs append to a log are imported as history, by reconcile or on
    rollback, each exactly once."""
    log = workspace / TASK / "progress" / "a1_progress.jsonl"
    assert switch(capsys, workspace, 3)[0] == 0

    def append(message):
        line = {"timestamp": "2026-01-04T23:00:00", "agent_id": "a1", "message": message}
        with log.open("a") as file:
            file.write(json.dumps(line) + "\n")

    with closing(open_store(load_settings(workspace))) as store:
        append("first")
        build.put(store, build.report(TASK, message="ours"), expected=None)
        append("second")
        for options in (("--dry-run",), ()):
            tokens = ("reconcile", *options, "--json", "--workspace", workspace)
            found = cli(capsys, *tokens)[1]
            assert (found["taken"], found["healed"]) == (2, 0)
        append("third")
        assert switch(capsys, workspace, 2)[0] == 0
        append("fourth")
        cli(capsys, "verify", "--json", "--workspace", workspace)
        found = sorted(e.message for e in store.list_records(Kind.PROGRESS).items)
        assert found == ["first", "fourth", "ours", "second", "third"]
        assert cli(capsys, "verify", "--json", "--workspace", workspace)[0] == 0


def test_a_lost_archive_does_not_prevent_the_rollback(workspace, capsys):
    """Without the archive, templates restore each document exactly, and verify names the loss."""
    assert switch(capsys, workspace, 3)[0] == 0
    before = document(workspace).read_bytes()
    assert switch(capsys, workspace, 4)[0] == 0
    for path in (workspace / ".registry" / "archive").iterdir():
        assert path.stat().st_mode & 0o77 == 0
        path.unlink()
    code, found = cli(capsys, "verify", "--json", "--workspace", workspace)
    assert (code, found["error"]["code"]) == (1, "corrupt_document")
    assert switch(capsys, workspace, 3)[0] == 0
    assert document(workspace).read_bytes() == before
    with closing(open_migration(load_settings(workspace))) as migration:
        assert migration.verify().mismatches == ()
