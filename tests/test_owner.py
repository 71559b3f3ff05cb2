"""Root looks at and works on another user's registry: all of it still belongs to that user."""

import os
from contextlib import closing

import pytest

from backends.admin.cli import main
from contract_tests import build
from registry_api import load_settings, open_store
from tests import legacy

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="root is needed"),
]
OWNER = (65534, 65534)


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("REGISTRY_RETIRE_SECONDS", "0")
    root = tmp_path / "workspace"
    root.mkdir()
    legacy.write_task(root, "TASK-1", agents=[{"id": "a", "type": "x", "status": "running"}])
    (root / "registry").mkdir()
    (root / "registry" / "GLOBAL_REGISTRY.json").write_text('{"tasks": {}, "agents": {}}')
    for path in (root, *root.rglob("*")):
        os.chown(path, *OWNER)
    return root


def others(workspace):
    """What does not belong to the owner."""
    return [
        str(p.relative_to(workspace))
        for p in (workspace, *workspace.rglob("*"))
        if (p.lstat().st_uid, p.lstat().st_gid) != OWNER
    ]


def run(workspace, *tokens):
    return main([*tokens, "--json", "--workspace", str(workspace)])


@pytest.mark.parametrize("verb", ["status", "verify", "doctor", "recover", "reconcile"])
def test_a_look_by_root_leaves_nothing_of_root(workspace, capsys, verb):
    """Each command alone, on a registry that nobody of ours has opened before."""
    run(workspace, verb)
    assert others(workspace) == []


def test_all_that_root_does_belongs_to_the_owner(workspace, capsys):
    """A write, a new task, every phase there and back with a write in each, and what they archive;
    SQLite's own files too.
    """
    for phase in (0, 1, 2, 3, 4, 3, 2, 1, 0):
        assert run(workspace, "switch", str(phase)) == 0
        with closing(open_store(load_settings(workspace))) as store:
            build.put(store, build.report("TASK-1", "a"), build.finding("TASK-1"), expected=None)
            name = f"new-{phase}-{store.counts().total_tasks}"
            build.make(store, name, build.agent(name))
            assert others(workspace) == []
        assert run(workspace, "doctor") in {0, 3}
        assert others(workspace) == []


def test_an_empty_workspace_of_another_user(tmp_path):
    """SQLite, begun by root for somebody else."""
    os.chown(tmp_path, *OWNER)
    with closing(open_store(load_settings(tmp_path))) as store:
        build.make(store, "t", build.agent("t"), build.report("t"))
        assert others(tmp_path) == []
    assert others(tmp_path) == []
