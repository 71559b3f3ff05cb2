"""Whose a store is: other registries, copies, lost records, dead switches, idle programs."""

import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from backends.admin.cli import main
from backends.dual_write import role_stamps
from backends.dual_write.steps import sync
from backends.dual_write.steps.base import StepContext
from contract_tests import build
from registry_api import find_capability, load_settings, open_migration, open_store
from registry_api.capabilities import Stamps
from registry_api.errors import BackendMismatch, CorruptDocument, PreflightFailed, RegistryError
from registry_api.migration import (
    MigrationPhase,
    PhaseFile,
    PhaseRecord,
    Switching,
    SwitchJournal,
)
from registry_api.roles import ROLE, Role, RoleStamp
from tests import lmdb_plugin

ENV = {"REGISTRY_RETIRE_SECONDS": "0"}


@pytest.fixture(autouse=True)
def lmdb(tmp_path_factory, monkeypatch):
    """The store ``lmdb`` of the example is installed."""
    pytest.importorskip("lmdb", reason="lmdb is not installed")
    lmdb_plugin.install(tmp_path_factory.mktemp("plugin"), monkeypatch)


@pytest.fixture
def workspace(tmp_path):
    """A registry that was born in SQLite, with one task."""
    root = tmp_path / "workspace"
    root.mkdir()
    with closing(opened(root)) as store:
        build.make(store, "t")
    return root


def opened(workspace, **options):
    env = {k: v for k, v in options.items() if k.startswith("REGISTRY_")}
    rest = {k: v for k, v in options.items() if k not in env}
    return open_store(load_settings(workspace, env=ENV | env), **rest)


def moved(workspace, **env):
    return closing(open_migration(load_settings(workspace, env=ENV | env)))


def switch(workspace, phase, **options):
    with moved(workspace) as migration:
        return migration.switch(MigrationPhase(phase), actor="test", **options)


def add(store, agent):
    return build.put(store, build.agent("t", agent), expected=store.head("t").revision)


def agents(workspace):
    with closing(opened(workspace)) as store:
        return {a.agent_id for a in store.load("t").agents}


def files(folder):
    kept = ("gate", "turnstile", "switch.lock", "phase.lock", "procs")
    return {
        p.relative_to(folder)
        for p in folder.rglob("*")
        if not any(part in kept for part in p.relative_to(folder).parts)
        and not p.name.endswith((".queue", ".turn", "-wal", "-shm"))
    }


@pytest.mark.parametrize("kind", ["dotdot", "linked folder", "link", "hard link"])
def test_the_source_by_another_path_is_no_target(tmp_path, workspace, kind):
    """However its path is written, a target that is the source's file is refused."""
    file = workspace / ".registry" / "registry.sqlite3"
    other = tmp_path / "other"
    path = {
        "dotdot": file.parent / ".." / ".registry" / file.name,
        "linked folder": other / ".registry" / file.name,
        "link": other,
        "hard link": other,
    }[kind]
    if kind == "hard link":
        other.hardlink_to(file)
    elif kind != "dotdot":
        other.symlink_to(workspace if kind == "linked folder" else file)
    with pytest.raises(PreflightFailed, match="is the source"):
        switch(workspace, 1, target=f"sqlite://{path}")


@pytest.mark.parametrize("target", ["dual", "auto", "memory", "json"])
def test_a_refused_target_leaves_nothing(workspace, target):
    """A store that cannot be a target is refused before anything is opened for writing."""
    before = files(workspace)
    with pytest.raises(RegistryError):
        switch(workspace, 1, target=target)
    assert files(workspace) == before
    assert agents(workspace) == set()


def test_a_plan_creates_no_target(workspace, tmp_path):
    """A dry run does not create the target, also of a migration that may write."""
    switch(workspace, 1, target=f"lmdb://{tmp_path / 'new.lmdb'}", dry_run=True)
    assert not (tmp_path / "new.lmdb").exists()


def test_a_store_inside_another_workspace_is_refused(tmp_path, workspace):
    """Another workspace's own store is neither target nor source of a move."""
    other, inside = tmp_path / "other", workspace / ".registry" / "registry.sqlite3"
    other.mkdir()
    with closing(opened(other, REGISTRY_BACKEND=f"lmdb://{tmp_path / 'own.lmdb'}")) as store:
        build.make(store, "theirs")
    with pytest.raises((BackendMismatch, PreflightFailed)):
        switch(other, 1, target=f"sqlite://{inside}")
    third = tmp_path / "third"
    third.mkdir()
    with (
        moved(third, REGISTRY_BACKEND=f"sqlite://{inside}") as migration,
        pytest.raises(BackendMismatch, match="is inside the registry in"),
    ):
        migration.switch(MigrationPhase(1), actor="test", target="lmdb")
    assert agents(workspace) == set()


@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_two_registries_begin_a_move_to_one_target(tmp_path, workspace, monkeypatch, moment):
    """Of two that stamp one new target at the same moment one moves; the other is refused and
    stays in phase 0. The stamp of the other comes just before ours, or at either end of the fill.
    """
    other, place = tmp_path / "other", f"sqlite://{tmp_path / 'shared.sqlite3'}"
    other.mkdir()
    with closing(opened(other)) as store:
        build.make(store, "theirs")
    with closing(opened(tmp_path, REGISTRY_BACKEND=place, gated=False)):
        pass  # both look at it while it is there, and nobody's
    theirs = role_stamps.Roles(other).stamp(
        PhaseRecord(phase=MigrationPhase(0), move="theirs"), Role.REPLICA, writer="sqlite"
    )

    def taken(real):
        def then(*args, **options):
            find_capability(target, Stamps).write_stamp(ROLE, theirs.dump())
            return real(*args, **options)

        return then

    where = {
        "before": (StepContext, "settle_roles"),
        "during": (sync, "verify_tasks"),
        "after": (sync, "narrow"),
    }
    with closing(opened(tmp_path, REGISTRY_BACKEND=place, gated=False)) as target:
        owner, name = where[moment]
        monkeypatch.setattr(owner, name, taken(getattr(owner, name)))
        with pytest.raises(BackendMismatch, match="belongs to the registry in"):
            switch(workspace, 1, target=place)
        assert RoleStamp.load(find_capability(target, Stamps).read_stamp(ROLE)) == theirs
    assert PhaseFile(workspace / ".registry").read() is None
    with closing(opened(workspace)) as store:
        add(store, "a")
    assert agents(workspace) == {"a"}


def test_a_copy_with_a_relative_target_is_refused(tmp_path, workspace):
    """A target outside the workspace by a relative path belongs to the original only."""
    switch(workspace, 3, target="sqlite://../shared.sqlite3")
    shutil.copytree(workspace, tmp_path / "copy")
    with pytest.raises(BackendMismatch, match="is a copy of"):
        opened(tmp_path / "copy")
    with closing(opened(workspace)) as store:
        add(store, "a")


def test_a_target_of_version_0_1_stays_its_owners(tmp_path, workspace):
    """A store without a role stamp that holds tasks is nobody else's target."""
    theirs, place = tmp_path / "theirs", f"sqlite://{tmp_path / 'theirs.sqlite3'}"
    theirs.mkdir()
    with closing(opened(theirs, REGISTRY_BACKEND=place, gated=False)) as store:
        build.make(store, "theirs")
        find_capability(store, Stamps).write_stamp("epoch", "3")
    with pytest.raises(BackendMismatch, match="is not empty"):
        switch(workspace, 1, target=place)


def test_a_program_with_another_store_does_not_follow(tmp_path, workspace):
    """A program that uses another store in the workspace is refused when a move begins there,
    instead of being led to the other registry."""
    place = f"lmdb://{tmp_path / 'own.lmdb'}"
    with closing(opened(tmp_path, REGISTRY_BACKEND=place, gated=False)) as store:
        build.make(store, "mine")
    with closing(opened(workspace, REGISTRY_BACKEND=place)) as store:
        assert store.head("mine").revision == 1
        switch(workspace, 1, target=f"sqlite://{tmp_path / 'new.sqlite3'}")
        for _ in range(2):
            with pytest.raises(BackendMismatch, match="workspace of its own"):
                store.head("mine")


@pytest.mark.parametrize("ended", [False, True])
def test_a_lost_record_starts_no_new_registry(workspace, ended):
    """Without phase.json, in phase 4 or after the move, opening is refused."""
    switch(workspace, 4, target="lmdb")
    if ended:
        with moved(workspace) as migration:
            migration.complete(actor="test")
    (workspace / ".registry" / "phase.json").unlink()
    with pytest.raises(BackendMismatch, match=r"history\.jsonl"):
        opened(workspace)
    assert not (workspace / ".registry" / "registry.sqlite3").exists()


def test_a_switch_killed_behind_the_fence_needs_no_target(workspace, tmp_path):
    """A switch to 3 that died behind its fence is undone although the target is lost; steps back
    work."""
    target = tmp_path / "there" / "x.lmdb"
    switch(workspace, 2, target=f"lmdb://{target}")
    record = PhaseFile(workspace / ".registry").read()
    with closing(opened(workspace, REGISTRY_BACKEND="auto", read_only=True)):
        pass
    with moved(workspace) as migration:
        source = migration._session.store.source
        source.fence(RoleStamp(role=Role.FENCED, epoch=record.epoch), {})
    under_way = Switching(
        before=MigrationPhase(2), after=MigrationPhase(3), epoch=record.epoch, inside=True
    )
    SwitchJournal(workspace / ".registry").write(under_way)
    shutil.rmtree(target.parent)
    target.parent.write_text("not a folder")
    with closing(opened(workspace)) as store:
        add(store, "a")
    switch(workspace, 0)
    assert agents(workspace) == {"a"}


HOLDING = """
import sys
from contextlib import closing
from registry_api import load_settings, open_store
from contract_tests import build
settings = load_settings(sys.argv[1], env={})
with closing(open_store(settings, gated=sys.argv[2] == "gated")) as store:
    store.head("t")
    print("open", flush=True)
    sys.stdin.readline()
    try:
        build.put(store, build.agent("t", "late"), expected=store.head("t").revision)
        print("written", flush=True)
    except Exception as error:
        print(type(error).__name__, flush=True)
"""


@pytest.mark.parametrize(("how", "said"), [("gated", "written"), ("around", "BackendMismatch")])
def test_an_idle_program_does_not_hold_up_the_end_of_a_move(workspace, how, said):
    """A program that has the SQLite file open for hours, idle, keeps no move from being completed.
    Then it follows the move, or is refused if it opened the file around the gate."""
    command = [sys.executable, "-c", HOLDING, str(workspace), how]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as idle:
        assert idle.stdout.readline() == "open\n"
        report = switch(workspace, 4, target="lmdb")
        assert not any("pending" in note for note in report.notes)
        with moved(workspace) as migration:
            migration.complete(actor="test")
        idle.stdin.write("go\n")
        idle.stdin.flush()
        assert idle.stdout.readline() == f"{said}\n"
    assert agents(workspace) == ({"late"} if how == "gated" else set())


@pytest.mark.parametrize("phase", [2, 3, 4])
@pytest.mark.parametrize("stamp", ["replica", "damaged"])
def test_recover_settles_the_roles(workspace, phase, stamp, capsys):
    """A writer of record whose stamp says otherwise, since switch.json was lost or a backup was
    restored, or whose stamp is damaged, refuses writes; after ``recover`` it accepts them."""
    switch(workspace, phase, target="lmdb")
    with moved(workspace) as migration:
        store = migration._session.store
        writer = store.stores.get(store.record().writer, store.record())
        text = RoleStamp(role=Role.REPLICA, writer="x").dump() if stamp == "replica" else "{"
        writer.write_stamp(ROLE, text)
    with pytest.raises((BackendMismatch, CorruptDocument)), closing(opened(workspace)) as store:
        add(store, "a")
    assert main(["recover", "--workspace", str(workspace)]) == 0
    with closing(opened(workspace)) as store:
        add(store, "b")
    assert agents(workspace) == {"b"}
    capsys.readouterr()


def test_one_migration_makes_several_moves(workspace, tmp_path):
    """An open Migration moves to one target, back, to another one, and on to a third."""
    first, second = (f"lmdb://{tmp_path / name}" for name in ("a.lmdb", "b.lmdb"))
    with moved(workspace) as migration, closing(opened(workspace)) as store:
        for phase, target in ((1, first), (0, None), (3, second), (2, None), (4, None)):
            migration.switch(MigrationPhase(phase), actor="test", target=target)
            add(store, f"a{phase}")
        migration.switch(MigrationPhase(0), actor="test")
        migration.switch(MigrationPhase(4), actor="test")  # filled again, from the source put back
        migration.complete(actor="test")
        migration.switch(MigrationPhase(4), actor="test", target="sqlite")
        add(store, "last")
        migration.complete(actor="test")
    assert agents(workspace) == {"a1", "a0", "a3", "a2", "a4", "last"}


def test_an_idle_program_goes_on_after_its_file_was_replaced(workspace):
    """A program that does nothing from phase 0 to the end of two moves uses the new file then."""
    with closing(opened(workspace)) as idle, closing(opened(workspace)) as busy:
        assert idle.head("t").revision == 1
        for target in ("lmdb", "sqlite"):
            switch(workspace, 4, target=target)
            add(busy, target)  # else it would hold the removed file open, as the idle one does
            with moved(workspace) as migration:
                migration.complete(actor="test")
        add(busy, "late")
        assert idle.head("t").revision == 4
        add(idle, "idle")
    assert agents(workspace) == {"lmdb", "sqlite", "late", "idle"}


def test_the_way_back_while_a_removed_file_is_open(workspace):
    """With the removed file still open elsewhere, the step 4 to 3 succeeds, and later steps too."""
    switch(workspace, 3, target="lmdb")
    held = os.open(workspace / ".registry" / "registry.sqlite3", os.O_RDONLY)
    try:
        switch(workspace, 4)
        for phase in (3, 2, 4, 3, 2):
            switch(workspace, phase)
            with closing(opened(workspace)) as store:
                add(store, f"{phase}-{store.head('t').revision}")
    finally:
        os.close(held)
    assert len(agents(workspace)) == 5


def test_diff_in_phase_4_opens_no_removed_source(workspace, capsys):
    switch(workspace, 4, target="lmdb")
    assert main(["diff", "t", "--workspace", str(workspace)]) == 0
    assert not (workspace / ".registry" / "registry.sqlite3").exists()
    capsys.readouterr()


def test_no_descriptor_is_left_open(workspace):
    """Opening, reporting and closing leaves no file open, in a log neither."""

    def report():
        with closing(opened(workspace)) as store:
            build.put(store, build.report("t"), expected=None)

    report()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        report()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_the_status_of_a_registry_that_no_move_touched(workspace, capsys):
    assert main(["status", "--workspace", str(workspace)]) == 0
    assert "Store      sqlite, no move\n" in capsys.readouterr().out
    switch(workspace, 4, target="lmdb")
    assert main(["complete", "--workspace", str(workspace)]) == 0
    capsys.readouterr()
    assert main(["status", "--workspace", str(workspace)]) == 0
    assert "lmdb, no move; the last move, sqlite -> lmdb, is complete" in capsys.readouterr().out
    assert main(["history", "--workspace", str(workspace)]) == 0
    assert capsys.readouterr().out.endswith("move complete: lmdb is the store\n")


def test_a_setting_that_forbids_restarts_is_told(tmp_path):
    """With REGISTRY_BACKEND=sqlite, plan and the first switch say that a program cannot be started
    with it during the move; that is so. A step back, and a workspace without it, are silent.
    """
    plain = load_settings(tmp_path, env={})
    named = load_settings(tmp_path, env={"REGISTRY_BACKEND": "sqlite"})
    target = f"sqlite://{tmp_path / 'b.sqlite3'}"
    with closing(open_store(named)) as store:
        build.make(store, "t")
    for env, told in ((named, 1), (plain, 0)):
        with closing(open_migration(env)) as migration:
            for dry_run in (True, False):
                report = migration.switch(
                    MigrationPhase(1), actor="test", target=target, dry_run=dry_run
                )
                assert len([n for n in report.notes if "REGISTRY_BACKEND=sqlite" in n]) == told
            with pytest.raises(BackendMismatch):
                open_store(named)
            assert migration.switch(MigrationPhase(0), actor="test").notes == ()
    open_store(named).close()
