"""Root runs commands on another user's registry: every file still belongs to that user."""

import ast
import io
import json
import os
import tempfile
from contextlib import closing, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from backends.admin.cli import main
from contract_tests import build
from registry_api import load_settings, open_store
from registry_api.errors import NotPermitted
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
    give_away(root)
    return root


def give_away(root):
    """Make the owner the owner of every file."""
    for path in (root, *root.rglob("*")):
        os.chown(path, *OWNER)


@pytest.fixture
def reachable():
    """A workspace with a task, in folders that every user may pass: not below pytest's own folder,
    which every test run of the same user makes private again."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        root = Path(folder) / "workspace"
        legacy.write_task(root, "TASK-1", agents=[{"id": "a", "type": "x", "status": "running"}])
        yield root


def others(workspace):
    """Return the files that do not belong to the owner."""
    return [
        str(p.relative_to(workspace))
        for p in (workspace, *workspace.rglob("*"))
        if (p.lstat().st_uid, p.lstat().st_gid) != OWNER
    ]


def run(workspace, *tokens):
    return main([*tokens, "--json", "--workspace", str(workspace)])


@pytest.mark.parametrize("verb", ["status", "verify", "doctor", "recover", "reconcile"])
def test_a_look_by_root_leaves_nothing_of_root(workspace, capsys, verb):
    """Each reading command that root runs leaves no file of root, on a registry that this library
    has not opened before."""
    run(workspace, verb)
    assert others(workspace) == []


def test_all_that_root_does_belongs_to_the_owner(workspace, capsys):
    """Everything that root creates belongs to the owner: a write and a new task in every phase
    there and back, the archive, and SQLite's own files."""
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
    """A SQLite registry that root creates in another user's workspace belongs to that user."""
    os.chown(tmp_path, *OWNER)
    with closing(open_store(load_settings(tmp_path))) as store:
        build.make(store, "t", build.agent("t"), build.report("t"))
        assert others(tmp_path) == []
    assert others(tmp_path) == []


ANOTHER = 12345
COMMANDS = [
    ("status",),
    ("verify",),
    ("doctor",),
    ("switch", "1"),
    ("switch", "back"),
    ("plan", "2"),
    ("recover",),
    ("reconcile",),
    ("diff", "TASK-1"),
    ("history",),
    ("metrics",),
    ("watch", "--count", "1"),
]


def as_user(uid, gid, work):
    """Run a function in a child process as another user; return its result."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            os.write(writing, repr(work()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:  # noqa: PTH123  (a descriptor)
        found = file.read().decode()
    os.waitpid(child, 0)
    return ast.literal_eval(found)


def said(workspace, tokens):
    """Run a command; return its exit code and its output."""
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        code = run(workspace, *tokens)
    return code, out.getvalue()


def contents(workspace):
    found = [p for p in workspace.rglob("*") if p.is_file() and not p.is_symlink()]
    return {str(p): (p.read_bytes(), p.stat().st_mode) for p in found if "procs" not in p.parts}


@pytest.mark.parametrize("group", [False, True], ids=["without", "with the group's right"])
@pytest.mark.parametrize("phase", [0, 2, 3, 4])
def test_another_user_is_refused_and_told_whom_to_ask(reachable, monkeypatch, phase, group):
    """Every command of another user is refused with a typed error that names the owner and the
    command to run as the owner; nothing is changed or created."""
    monkeypatch.setenv("REGISTRY_RETIRE_SECONDS", "0")
    root = reachable
    said(root, ("switch", str(phase)))
    for tokens in COMMANDS:  # everything imported: the child may not read our files
        said(root, tokens[:1] if tokens[0] != "diff" else tokens)
    said(root, ("switch", str(phase)))
    give_away(root)
    if group:
        for path in (root, root / ".registry", *(root / ".registry").rglob("*")):
            if path.is_dir():
                path.chmod(0o770)
    before = contents(root)
    for tokens in COMMANDS:
        gid = OWNER[1] if group else ANOTHER
        code, text = as_user(ANOTHER, gid, lambda tokens=tokens: said(root, tokens))
        if tokens[0] in {"doctor", "metrics", "watch"} and group and "error" not in text:
            continue  # it shows the parts that the user may read
        error = json.loads(text)["error"]
        assert (code, error["code"]) == (1, "not_permitted"), (tokens, text)
        owner = "nobody"
        assert f"belongs to {owner}" in error["message"]
        assert error["next"].startswith(f"sudo -u {owner} registry-backend {tokens[0]}")
    assert contents(root) == before
    assert others(root) == []


@pytest.mark.parametrize("phase", [0, 2, 3])
def test_another_users_calls_are_refused(reachable, phase):
    """open_store refuses another user with one typed error that names the owner."""
    root = reachable
    said(root, ("switch", str(phase)))
    give_away(root)
    settings = load_settings(root)
    open_store(settings).close()

    def work():
        try:
            open_store(settings)
        except NotPermitted as error:
            return error.code, error.fields["owner"]

    assert as_user(ANOTHER, ANOTHER, work) == ("not_permitted", "nobody")
