"""A move between two stores that keep role stamps, killed at every call that writes."""

from contextlib import closing

import pytest

from contract_tests import build
from registry_api import load_settings, open_migration, open_store
from registry_api.migration import MigrationPhase, PhaseFile
from registry_api.roles import ROLE, Role, RoleStamp
from tests import lmdb_plugin, strace
from tests.dual_write.unwrap import dual
from tests.proof import PROVING

COMMAND = """
import os, sys
os.environ["REGISTRY_RETIRE_SECONDS"] = "0"
from backends.admin.cli import main
sys.exit(main([*sys.argv[2].split(), "--workspace", sys.argv[1]]))
"""
CALLS = strace.WRITES + ",fdatasync,msync,link"
ENV = {"REGISTRY_RETIRE_SECONDS": "0"}
PARTS = 4  # run in parallel; every second one without `make proof`


@pytest.fixture(autouse=True)
def lmdb(tmp_path_factory, monkeypatch):
    pytest.importorskip("lmdb", reason="lmdb is not installed")
    lmdb_plugin.install(tmp_path_factory.mktemp("plugin"), monkeypatch)


def opened(workspace, **env):
    return open_store(load_settings(workspace, env=ENV | env))


def moved(workspace):
    return closing(open_migration(load_settings(workspace, env=ENV)))


def prepared(workspace, source, target, phase):
    """Make a task with reports in the writer of record, and go to a phase."""
    workspace.mkdir()
    with closing(opened(workspace, REGISTRY_BACKEND=source)) as store:
        build.make(store, "t", build.agent("t"))
        with closing(
            open_migration(load_settings(workspace, env=ENV | {"REGISTRY_BACKEND": source}))
        ) as migration:
            migration.switch(MigrationPhase(phase), actor="test", target=target)
        build.put(store, build.report("t", progress=42), expected=None)


def is_whole(workspace):
    """Assert that the record is there, that one can write, and that each store has its role; return
    the number of moves completed, and the phase."""
    with closing(opened(workspace)) as store:
        revision = build.put(store, build.report("t", progress=43), expected=None).revision
        assert store.load("t").revision == revision
        assert [c.revision for c in store.changes()] == list(range(1, revision + 1))
        record = dual(store).record()
        roles = []
        for place in filter(None, (record.source, record.target)):
            if record.phase == 4 and place == record.source:
                continue
            stamp = RoleStamp.load(dual(store).stores.get(place, record).read_stamp(ROLE))
            roles.append(stamp and stamp.role)
    expected = {0: [Role.WRITER], 2: [Role.WRITER, Role.REPLICA], 3: [Role.FENCED, Role.WRITER]}
    assert roles == expected.get(record.phase, [Role.WRITER])
    assert not (workspace / ".registry" / "switch.json").exists()
    with moved(workspace) as migration:
        migration.recover()
        assert migration.verify().mismatches == ()
    return len(record.completed), int(record.phase)


@pytest.mark.parametrize("part", range(0, PARTS, 1 if PROVING else 2))
@pytest.mark.parametrize("pair", [("sqlite", "lmdb"), ("lmdb", "sqlite")], ids="-".join)
@pytest.mark.parametrize(
    ("before", "command", "ends"),
    [
        (2, "switch 3", {(0, 2), (0, 3)}),
        (3, "switch 2", {(0, 3), (0, 2)}),
        (3, "switch 4", {(0, 3), (0, 4)}),
        (4, "switch 3", {(0, 4), (0, 3)}),
        (4, "complete", {(0, 4), (1, 0)}),
    ],
)
def test_killed_at_every_write(tmp_path, pair, before, command, ends, part):  # noqa: PLR0917  (its parameters)
    """After kill -9 of the command at its n-th call, the next process finds every acknowledged
    write in one of the two phases, the roles are those of the phase record, and one can write."""
    strace.need()
    found = set()
    for nth in range(1 + part, 1000, PARTS):
        workspace = tmp_path / str(nth)
        prepared(workspace, *pair, before)
        done = strace.run(
            COMMAND, workspace, command, calls=CALLS, inject=f"signal=KILL:when={nth}"
        )
        found.add(is_whole(workspace))
        if done.returncode == 0:
            break
    assert done.returncode == 0
    assert nth > 5
    assert found <= ends
    assert PhaseFile(workspace / ".registry").read() is not None
