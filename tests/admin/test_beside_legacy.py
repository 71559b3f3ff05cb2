"""The legacy orchestrator on the same machine: its database, its packages of the same names."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from tests import legacy


@pytest.fixture
def workspace(tmp_path):
    root = tmp_path / "workspace"
    legacy.write_task(root, "TASK-1", agents=[{"id": "a", "type": "x", "status": "running"}])
    (root / "registry").mkdir()
    with closing(sqlite3.connect(root / "registry" / "state.sqlite3")) as database:
        database.execute("CREATE TABLE tasks (task_id TEXT)")
        database.execute("CREATE TABLE agents (agent_id TEXT)")
        database.executemany("INSERT INTO agents VALUES (?)", [("a",), ("b",), ("c",)])
        database.commit()
    return root


def run(workspace, *tokens, **env):
    done = subprocess.run(
        [sys.executable, "-m", "backends.admin", *tokens, "--workspace", str(workspace)],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_its_database_is_named_with_what_it_counts(workspace):
    """Status and doctor name it until a switch with --json-is-truth was made."""
    said = "state.sqlite3: the legacy system's own database, written 20"
    for tokens in (["status"], ["status", "--json"], ["doctor"]):
        code, text = run(workspace, *tokens)
        assert said in text
        assert "0 tasks, 3 agents" in text
        assert code == (3 if tokens == ["doctor"] else 0)
    assert run(workspace, "switch", "1")[0] == 6
    assert run(workspace, "switch", "1", "--json-is-truth")[0] == 0
    for tokens in (["status"], ["doctor"]):
        code, text = run(workspace, *tokens)
        assert (code, said in text) == (0, False)
    (workspace / "registry" / "state.sqlite3").write_bytes(b"no database")
    assert run(workspace, "status", "--json")[0] == 0


def test_a_database_that_cannot_be_read_is_named_too(workspace):
    (workspace / "registry" / "state.sqlite3").write_bytes(b"no database at all" * 100)
    code, text = run(workspace, "status")
    assert code == 0
    assert "not readable" in text


def test_its_packages_may_come_first(workspace, tmp_path):
    """With the legacy program's folder first on the path its packages are imported; the registry
    still works, since it needs neither; doctor names the folder."""
    older = tmp_path / "older"
    for name in ("orchestrator", "dashboard"):
        (older / name).mkdir(parents=True)
        (older / name / "__init__.py").write_text("OLDER = True\n")
    code = (
        "import sys, orchestrator, dashboard; from registry_api import load_settings, open_store;"
        "s = open_store(load_settings(sys.argv[1], env={}));"
        "print(orchestrator.OLDER, dashboard.OLDER, s.counts().total_tasks)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(workspace)],
        env={**os.environ, "PYTHONPATH": str(older)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["True", "True", "1"]
    found = run(workspace, "doctor", "--json", PYTHONPATH=str(older))[1].splitlines()[-1]
    named = [i for i in json.loads(found)["issues"] if i["check"] == "paths"]
    assert [i["what"].split()[2] for i in named] == ["orchestrator", "dashboard"]
    assert all(str(older) in i["what"] for i in named)
