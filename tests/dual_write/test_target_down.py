"""A target of another distribution that is down or hangs: callers and the rollback go on."""

import json
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from backends.admin.cli import main
from backends.dual_write import best_effort
from contract_tests import build
from registry_api import load_settings, open_store
from tests import legacy
from tests.registry_api.test_plugins import install

# A SQLite file with an engine that is down while a file ``down`` exists (each call takes a while to
# fail), and that hangs while ``hang`` exists.
FAULTY = """
import time
from dataclasses import replace
from pathlib import Path
from registry_api import hookimpl

class FaultyError(Exception):
    pass

class Faulty:
    def __init__(self, inner, path):
        self.__dict__.update(inner=inner, path=path)
        self.info = replace(inner.info, name="faulty")
    def __getattr__(self, name):
        found = getattr(self.inner, name)
        def call(*args, **named):
            fail(self.path)
            return found(*args, **named)
        return call

def fail(path):
    with path.with_name("calls").open("a") as calls:
        calls.write("x")
    if path.with_name("down").exists():
        time.sleep(0.05)
        raise FaultyError("connection refused")
    while path.with_name("hang").exists():
        time.sleep(0.02)

def opened(context):
    from backends.sql.plugin import _open_sqlite as _open
    path = Path(context.location)
    fail(path)
    return Faulty(_open(context), path)

@hookimpl
def registry_register_stores(register):
    register("faulty", opened)
"""


@pytest.fixture
def move(tmp_path, monkeypatch, capsys):
    """Give the workspace, the target's folder, the command, and how to break and repair the target.

    Only a target that fails is given 0.3 s to answer: on a slow host a healthy one takes longer.
    """
    site, engine, workspace = tmp_path / "site", tmp_path / "engine", tmp_path / "workspace"
    for folder in (site, engine):
        folder.mkdir()
    install(site, "faulty-store", FAULTY)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("REGISTRY_TARGET", f"faulty://{engine}/registry.sqlite3")
    legacy.write_task(workspace, "TASK-1", agents=[{"id": "a", "type": "x", "status": "running"}])

    def command(*tokens):
        code = main([*tokens, "--json", "--workspace", str(workspace)])
        return code, json.loads(capsys.readouterr().out)

    patience = best_effort.ANSWER

    def fail(fault):
        monkeypatch.setattr(best_effort, "ANSWER", 0.3)
        (engine / fault).write_text("")

    def repair(fault):
        (engine / fault).unlink(missing_ok=True)
        monkeypatch.setattr(best_effort, "ANSWER", patience)

    yield workspace, engine, command, fail, repair
    for fault in ("down", "hang"):
        repair(fault)
    sys.modules.pop("faulty_store", None)


@pytest.mark.parametrize("fault", ["down", "hang"])
@pytest.mark.parametrize("phase", [1, 2])
def test_callers_go_on_and_do_not_try_it_each_time(move, fault, phase):
    """While the target is down, the source answers writes and reads, the store closes, and after
    one failure the target is not tried for a while; once fixed, it is brought up to date."""
    workspace, engine, command, fail, repair = move
    assert command("switch", str(phase))[0] == 0
    with closing(open_store(load_settings(workspace))) as store:
        build.put(store, build.report("TASK-1", "a"), expected=None)
        fail(fault)
        (engine / "calls").unlink()
        since = time.monotonic()
        for _ in range(20):
            build.put(store, build.report("TASK-1", "a"), expected=None)
            assert store.load("TASK-1").agents
        # A failure takes at least 0.05 s, so a slow host tries again after at least 0.5 s.
        tries = 5 + (time.monotonic() - since) / 0.5
        assert (engine / "calls").stat().st_size <= tries
    repair(fault)
    assert command("reconcile")[0] == 0
    code, found = command("verify")
    assert (code, found["mismatches"], found["records"]) == (0, [], 2 + 21)


@pytest.mark.parametrize("fault", ["down", "hang"])
@pytest.mark.parametrize("phase", [1, 2])
def test_status_and_rollback_need_no_target(move, fault, phase):
    _, _, command, fail, _ = move
    assert command("switch", str(phase))[0] == 0
    fail(fault)
    code, found = command("status")
    assert code == 0
    assert found["migration"]["phase"] == phase
    code, found = command("doctor")
    assert code == 3
    assert any("faulty" in i["what"] for i in found["issues"])
    code, found = command("switch", "0")
    assert (code, [s["to"] for s in found["steps"]]) == (0, list(range(phase - 1, -1, -1)))


@pytest.mark.parametrize("fault", ["down", "hang"])
def test_plan_says_that_it_cannot_be_reached(move, fault):
    """plan says that the target cannot be reached and makes nothing; the switch exits 6."""
    workspace, _, command, fail, repair = move
    fail(fault)
    before = sorted(workspace.rglob("*"))
    code, found = command("plan", "1")
    assert code == 0
    assert "cannot be reached" in found["notes"][0]
    assert sorted(workspace.rglob("*")) == before
    code, found = command("switch", "1")
    assert (code, found["error"]["code"]) == (6, "preflight")
    assert "cannot be reached" in found["error"]["message"]
    repair(fault)
    assert command("switch", "1")[0] == 0
    assert command("plan", "2")[1]["notes"] == []


@pytest.mark.parametrize("tokens", [["verify"], ["reconcile"], ["diff", "TASK-1"]])
def test_a_command_gives_up_a_target_that_hangs(move, monkeypatch, tokens):
    """It ends with an error that names the store, and a rollback needs no target afterwards."""
    workspace, _, command, fail, _ = move
    assert command("switch", "1")[0] == 0
    with closing(open_store(load_settings(workspace))) as store:
        fail("hang")
        build.put(store, build.report("TASK-1", "a"), expected=None)
    monkeypatch.setattr(best_effort, "COMMAND_ANSWER", 0.3)
    code, found = command(*tokens)
    assert (code, "'faulty' has not answered within 0.3 s" in str(found)) == (1, True)
    assert command("switch", "0")[0] == 0


@pytest.mark.parametrize("page", ["operating.md", "writing-a-backend.md"])
def test_the_back_off_is_documented(page):
    """The docs state the back-off with the figures of the code."""
    text = (Path(__file__).parents[2] / "docs" / page).read_text()
    assert f"{best_effort._DOWN:g} s" in " ".join(text.split())
    assert f"{best_effort.ANSWER:g} s" in text
    assert best_effort._PER_FAILURE == 10
    assert "ten times as long as" in " ".join(text.split())
