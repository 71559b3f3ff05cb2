"""Two clones whose ``.registry`` was committed, each with a task of its own, merged by git."""

import json
import shutil
import subprocess
from contextlib import closing

import pytest

from backends.admin.cli import main
from contract_tests import build
from registry_api import Kind, RecordQuery, load_settings, open_store
from tests import legacy


def opened(workspace):
    return closing(open_store(load_settings(workspace, env={})))


@pytest.fixture
def merged(tmp_path):
    """The folder as ``git merge`` leaves it: the files of both clones, and the counter of one."""
    root = tmp_path / "one"
    legacy.write_task(root, "TASK-0", agents=[{"id": "a", "type": "x", "status": "running"}])
    with opened(root) as store:
        store.counts()
    two = tmp_path / "two"
    shutil.copytree(root, two)
    for clone, task in ((root, "TASK-1"), (two, "TASK-2")):
        with opened(clone) as store:
            build.make(store, task, build.agent(task))
            for n in range(3):
                build.put(store, build.report(task, message=f"{task} {n}"), expected=None)
    shutil.copytree(two / "TASK-2", root / "TASK-2")
    for path in (two / ".registry" / "json").glob("TASK-2.*"):
        shutil.copy2(path, root / ".registry" / "json" / path.name)
    return root


def test_it_is_named_and_the_command_that_is_named_works(merged, capsys):
    assert main(["plan", "1", "--json", "--workspace", str(merged)]) == 6
    error = json.loads(capsys.readouterr().out)["error"]
    assert "TASK-1.journal and " in error["message"]
    assert main(["switch", "1", "--workspace", str(merged)]) == 6
    capsys.readouterr()
    assert main(["doctor", "--json", "--workspace", str(merged)]) == 3
    issues = json.loads(capsys.readouterr().out)["issues"]
    (found,) = [i for i in issues if "merged" in i["what"] and i["next"]]
    command = found["next"].partition("then ")[2].partition(":")[0]
    assert command.startswith("mv ")
    subprocess.run(command.split(), check=True)
    for phase in (1, 2, 3, 4, 0):
        assert main(["switch", str(phase), "--workspace", str(merged)]) == 0
    with opened(merged) as store:
        assert store.counts().total_tasks == 3
        for task in ("TASK-1", "TASK-2"):
            query = RecordQuery(task_id=task)
            records = store.list_records(Kind.PROGRESS, query, limit=10).items
            assert {r.message for r in records} == {f"{task} {n}" for n in range(3)}
