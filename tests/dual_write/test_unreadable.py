"""Documents that cannot be read are named before a move, and left behind only on request."""

import json
from contextlib import closing
from functools import partial

import pytest

from registry_api import load_settings, open_migration, open_store
from registry_api.errors import PreflightFailed
from registry_api.migration import MigrationPhase
from tests import legacy, processes

ENV = {"REGISTRY_RETIRE_SECONDS": "0.1"}


@pytest.fixture
def workspace(tmp_path):
    for task in ("TASK-1", "TASK-bad"):
        legacy.write_task(tmp_path, task, agents=[{"id": "a", "type": "x", "status": "running"}])
    return tmp_path


def document(workspace):
    return workspace / "TASK-bad" / "AGENT_REGISTRY.json"


def command(workspace, *tokens):
    out = workspace / ".." / f"{workspace.name}-out"
    run = partial(processes.command, out=out, env=ENV)
    process = processes.start(run, *tokens, "--json", "--workspace", workspace)
    process.join()
    return process.exitcode, json.loads(out.read_text())


def lines(text, place, new):
    found = text.splitlines(keepends=True)
    return "".join([*found[:place], new, *found[place:]])


FAMILIES = {
    "git conflict markers at line 4": lambda t: lines(t, 3, "<<<<<<< HEAD\n=======\n>>>>>>> x\n"),
    "the key 'status' appears twice in one object": lambda t: t.replace("{", '{"status": "x",', 1),
    "a text contains a lone surrogate": lambda t: t.replace("look-alike", "\\ud800"),
    "empty": lambda t: "",
    "at byte": lambda t: t[: len(t) // 2],
    "NaN is not a JSON number": lambda t: t.replace('"total_spawned": 0', '"total_spawned": NaN'),
    "a JSON list instead of an object": lambda t: f"[{t}]",
    "no task_id": lambda t: t.replace('"task_id"', '"task"'),
    "names task 'TASK-other'": lambda t: t.replace("TASK-bad", "TASK-other"),
    "UTF-16, not UTF-8, at byte 0": lambda t: t.encode("utf-16"),
    "not UTF-8 at byte": lambda t: t.encode().replace(b"look", b"l\xf6k"),
    "nested deeper than 64 levels": lambda t: t.replace(
        '"agents"', '"deep": ' + "[" * 70 + "]" * 70 + ', "agents"'
    ),
}


def spoil(workspace, family):
    path = document(workspace)
    new = FAMILIES[family](path.read_text())
    path.write_bytes(new if isinstance(new, bytes) else new.encode())
    return path.read_bytes()


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_named_and_the_move_waits(workspace, family):
    """With an unreadable document, plan and switch exit 6, name the file and the fault, and change
    nothing; doctor names it and needs action; once it is repaired, the move goes on."""
    good = document(workspace).read_text()
    bad = spoil(workspace, family)
    for tokens in (("plan", "1"), ("switch", "1"), ("switch", "4")):
        code, found = command(workspace, *tokens)
        assert code == 6, found
        assert str(document(workspace)) in found["error"]["message"]
        assert family in found["error"]["message"]
        assert "--leave-unreadable" in found["error"]["next"]
    code, found = command(workspace, "doctor")
    assert code == 3
    assert any(family in i["what"] and i["next"] for i in found["issues"])
    assert document(workspace).read_bytes() == bad
    document(workspace).write_text(good)
    assert command(workspace, "switch", "1")[0] == 0
    with closing(open_store(load_settings(workspace, env={}))) as store:
        assert store.counts().total_tasks == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_left_behind_when_told(workspace, family):
    """With --leave-unreadable an unreadable document is recorded, named by status in every phase
    there and back, and its bytes stay in place; another one is refused again."""
    bad = spoil(workspace, family)
    path = str(document(workspace))
    assert command(workspace, "plan", "4", "--leave-unreadable")[0] == 0
    for phase in (1, 2, 3, 4, 3, 2, 1, 0):
        code, found = command(workspace, "switch", phase, "--leave-unreadable")
        assert code == 0, found
        assert document(workspace).read_bytes() == bad
        code, found = command(workspace, "status")
        assert [w for w in found["warnings"] if w.startswith(path)]
        assert found["counts"]["tasks"]["total"] == 1
        code, found = command(workspace, "doctor")
        assert not [i for i in found["issues"] if path in i["what"] and i["next"]], found
    assert command(workspace, "switch", 1)[0] == 0  # as recorded
    another = legacy.write_task(workspace, "TASK-bad2") / "AGENT_REGISTRY.json"
    another.write_text("{")
    with (
        closing(open_migration(load_settings(workspace, env={}))) as migration,
        pytest.raises(PreflightFailed, match=r"^1 document.*TASK-bad2"),
    ):
        migration.switch(MigrationPhase(2), actor="test")


@pytest.mark.parametrize("change", [lambda t: "\ufeff" + t, lambda t: t.replace("\n", "\r\n")])
def test_harmless_deviations_are_read(workspace, change):
    """A document with a byte order mark or Windows line ends is read, moved and written."""
    path = document(workspace)
    path.write_bytes(change(path.read_text()).encode())
    for phase in (1, 4, 0):
        code, found = command(workspace, "switch", phase)
        assert code == 0, found
    with closing(open_store(load_settings(workspace, env={}))) as store:
        assert store.counts().total_tasks == 2
        assert store.load("TASK-bad").task.description == "look-alike"
    assert json.loads(path.read_text(encoding="utf-8-sig"))["task_id"] == "TASK-bad"


def test_a_torn_document_that_was_absorbed_stops_no_switch(workspace):
    """A torn document that was absorbed before is rebuilt from its records, and the switch goes on
    without a question."""
    with closing(open_store(load_settings(workspace, env={}))) as store:
        store.counts()
    document(workspace).write_text("{")
    assert command(workspace, "switch", "1")[0] == 0
    assert json.loads(document(workspace).read_text())["task_id"] == "TASK-bad"
