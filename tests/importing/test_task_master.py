"""A file of task-master is imported: tasks of every tag, their subtasks as phases."""

import json
from contextlib import closing

import pytest

from backends.admin.cli import main
from registry_api import PhaseStatus, TaskStatus, load_settings, open_store
from registry_api.records import json_text

TASKS = [
    {
        "id": 1,
        "title": "Set up the project",
        "description": "A skeleton",
        "status": "done",
        "dependencies": [],
        "priority": "high",
        "details": "Use the template",
        "testStrategy": "it builds",
        "subtasks": [
            {"id": 1, "title": "Folders", "status": "done", "dependencies": []},
            {"id": 2, "title": "CI", "status": "done", "dependencies": [1]},
        ],
    },
    {
        "id": 2,
        "title": "Log in",
        "status": "in-progress",
        "priority": "medium",
        "dependencies": [1],
        "subtasks": [
            {"id": 1, "title": "Form", "status": "review"},
            {"id": 2, "title": "Session", "status": "pending"},
        ],
    },
    {"id": 3, "title": "Never", "status": "cancelled", "subtasks": []},
    {"id": 4, "title": "Odd", "status": "sideways"},
]


def imported(capsys, place, workspace):
    workspace.mkdir(exist_ok=True)
    code = main(["import", str(place), "--workspace", str(workspace), "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("shape", ["tags", "one list"])
def test_tasks_and_subtasks(tmp_path, capsys, shape):
    """In a project's folder; statuses are derived, and what has no place is kept."""
    folder = tmp_path / "project" / ".taskmaster" / "tasks"
    folder.mkdir(parents=True)
    value = {"tasks": TASKS}
    if shape == "tags":
        value = {"master": {"tasks": TASKS, "metadata": {}}, "next": {"tasks": TASKS[:1]}}
    (folder / "tasks.json").write_text(json.dumps(value))
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    code, found = imported(capsys, tmp_path / "project", workspace)
    assert (code, found["reader"]) == (0, "task-master")
    assert len(found["tasks"]) == (5 if shape == "tags" else 4)
    with closing(open_store(load_settings(workspace, env={}))) as store:
        status = {t.task_id: t.status for t in store.list_tasks().items}
        login = store.load("master-2")
        setup = store.load("master-1")
    assert status["master-1"] is TaskStatus.COMPLETED
    assert status["master-2"] is TaskStatus.ACTIVE
    assert status["master-3"] is TaskStatus.CANCELLED
    assert [p.status for p in login.phases] == [PhaseStatus.IN_REVIEW, PhaseStatus.PENDING]
    kept = json_text.parse(setup.task.extra.encode())["task_master"]
    assert (kept["details"], kept["dependencies"]) == ("Use the template", [])
    odd = next(t for t in found["tasks"] if t["task_id"] == "master-4")
    assert odd["notes"] == ["phase 0 has the unknown status 'sideways', read as PENDING"]
    code, found = imported(capsys, tmp_path / "project", workspace)
    assert code == 0
    assert all(not t["put"] and not t["changes"] for t in found["tasks"])


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"a": 1}', '{"tasks": 3}', '{"tasks": [1, null, "x"]}', "\x00"],
)
def test_other_json_is_not_taken(tmp_path, capsys, text):
    """A file of another shape is refused, or has no tasks; nothing ends with a traceback."""
    path = tmp_path / "tasks.json"
    path.write_text(text)
    code, found = imported(capsys, path, tmp_path / "workspace")
    assert code == 2 or found["tasks"] == []


@pytest.mark.parametrize("tag", ["a/b", "../..", "x" * 300, "ä", "", "a b"])
def test_any_tag_gives_an_id(tmp_path, capsys, tag):
    """What is no id of a registry is replaced, and told."""
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps({tag: {"tasks": TASKS[:2]}}))
    code, found = imported(capsys, path, tmp_path / "workspace")
    assert code == 0
    assert len({t["task_id"] for t in found["tasks"]}) == 2


def test_an_id_that_occurs_twice_is_told(tmp_path, capsys):
    """The first one is taken; the second import takes nothing, and a touched file neither."""
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps({"tasks": [TASKS[0], TASKS[0] | {"title": "Other"}]}))
    workspace = tmp_path / "workspace"
    code, found = imported(capsys, path, workspace)
    assert code == 1
    assert found["tasks"][1]["error"] == "the place has two tasks with this id"
    path.touch()
    code, found = imported(capsys, path, workspace)
    assert not found["tasks"][0]["put"] + len(found["tasks"][0]["changes"])
