"""The steps to phases 3 and 4 and back, killed at every call that writes; then recovery."""

import json
import stat
from contextlib import closing

import pytest

from contract_tests import build
from registry_api import load_settings, open_migration, open_store
from registry_api.migration import MigrationPhase, PhaseFile
from tests import legacy, strace

SWITCH = """
import os, sys
os.environ["REGISTRY_RETIRE_SECONDS"] = "0"
from backends.admin.cli import main
sys.exit(main(["switch", sys.argv[2], "--workspace", sys.argv[1]]))
"""
# Including chmod, which freezes and thaws.
CALLS = strace.WRITES + ",fchmod,chmod,fchmodat"
TASK = "TASK-0"
PARTS = 4  # run in parallel
ENV = {"REGISTRY_RETIRE_SECONDS": "0"}


def opened(workspace):
    return open_store(load_settings(workspace, env=ENV))


def switch(workspace, phase):
    with closing(open_migration(load_settings(workspace, env=ENV))) as migration:
        migration.switch(MigrationPhase(phase), actor="test")


def document(workspace):
    return workspace / TASK / "AGENT_REGISTRY.json"


def prepared(workspace, phase):
    """Make a task with a legacy agent, one of ours, and a report in the writer of record only."""
    agents = [{"id": "a1", "type": "x", "status": "running", "progress": 1}]
    legacy.write_task(workspace, TASK, agents=agents)
    switch(workspace, phase)
    with closing(opened(workspace)) as store:
        build.put(store, build.agent(TASK, "ours"), expected=1)
        build.put(store, build.report(TASK, "ours", progress=42), expected=None)


def is_whole(workspace):
    """Assert that every record is there in the current phase, and that the document is writable
    exactly before phase 3; return the phase."""
    with closing(opened(workspace)) as store:
        build.put(store, build.report(TASK, "a1", progress=43), expected=None)
        found = {a.agent_id: a.progress for a in store.load(TASK).agents}
        assert found == {"a1": 43, "ours": 42}
    phase = PhaseFile(workspace / ".registry").current().phase
    if phase < 4:
        mode = document(workspace).stat().st_mode
        assert bool(mode & stat.S_IWUSR) is (phase < 3)
    assert not (workspace / ".registry" / "switch.json").exists()
    with closing(open_migration(load_settings(workspace, env=ENV))) as migration:
        migration.recover()
        assert document(workspace).exists() is (phase < 4)
        assert migration.verify().mismatches == ()
    return phase


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 2), (3, 4), (4, 3)])
def test_killed_at_every_write(tmp_path, before, after, part):
    """After kill -9 of a switch at its n-th call, the next process finds every acknowledged write
    in one of the two phases, nothing half frozen, and can switch."""
    strace.need()
    ends = set()
    for nth in range(1 + part, 1000, PARTS):
        workspace = tmp_path / str(nth)
        prepared(workspace, before)
        done = strace.run(SWITCH, workspace, after, calls=CALLS, inject=f"signal=KILL:when={nth}")
        ends.add(is_whole(workspace))
        switch(workspace, 0)
        assert {a["id"] for a in json.loads(document(workspace).read_bytes())["agents"]} == {
            "a1",
            "ours",
        }
        if done.returncode == 0:
            break
    assert done.returncode == 0
    assert nth > 10
    assert ends == {before, after}
