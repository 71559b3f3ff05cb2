"""The move in phases 0 to 2: switches, refusals, failing targets, kills."""

import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from unittest import mock
from zoneinfo import ZoneInfo

import pytest

from backends.admin.cli import main
from backends.dual_write import history
from backends.dual_write import switch as switching
from backends.dual_write.steps import sync
from contract_tests import build
from contract_tests.harness import Harness
from registry_api import Kind, RecordQuery, all_records, load_settings, open_migration, open_store
from registry_api.errors import BackendMismatch, CorruptDocument, SwitchTimedOut
from registry_api.migration import (
    Gate,
    MigrationPhase,
    Mismatch,
    PhaseFile,
    PhaseRecord,
    VerifyReport,
)
from registry_api.opening import resolve
from registry_api.workspace import Process
from tests import legacy, samples
from tests.dual_write.unwrap import dual


def opened(workspace, **env):
    return open_store(load_settings(workspace, env={k.upper(): str(v) for k, v in env.items()}))


def phase_of(workspace):
    record = PhaseFile(workspace / ".registry").current()
    return record.phase, record.epoch


def cli(capsys, *tokens):
    code = main([str(t) for t in tokens])
    out = capsys.readouterr().out
    return code, json.loads(out) if "--json" in tokens else out


def switch(workspace, phase, **options):
    migration = open_migration(load_settings(workspace, env={}, retire_seconds=0))
    try:
        return migration.switch(MigrationPhase(phase), actor="test", **options)
    finally:
        migration.close()


@pytest.fixture
def workspace(tmp_path):
    for n in range(3):
        agents = [{"id": f"a{n}", "type": "x", "status": "running", "progress": 1}]
        legacy.write_task(tmp_path, f"TASK-{n}", agents=agents)
    return tmp_path


def contents(workspace):
    return {
        p: p.read_bytes()
        for p in workspace.rglob("*")
        if p.is_file() and ".registry" not in p.parts
    }


@pytest.mark.parametrize(
    ("name", "records"),
    [
        ("recorded-2025-10", {"tasks": 5, "agents": 27, "progress": 118, "findings": 55}),
        ("server-2026-01", {"tasks": 4, "agents": 29, "reviews": 6, "verdicts": 11, "phases": 10}),
    ],
)
def test_real_registries_move_there_and_back(tmp_path, capsys, name, records):
    """A real registry goes to phase 2 and back without a mismatch, with the same records in both
    stores and every byte as before, except the list of all tasks, whose counters are then
    accurate."""
    workspace = samples.copy_of(name, tmp_path)
    before = contents(workspace)
    for step in ("1", "2"):
        code, found = cli(capsys, "switch", step, "--json", "--workspace", workspace)
        assert (code, found["steps"][0]["verified"]["mismatches"]) == (0, [])
    code, found = cli(capsys, "verify", "--json", "--workspace", workspace)
    assert (code, found["mismatches"]) == (0, [])
    _, found = cli(capsys, "status", "--json", "--workspace", workspace)
    assert found["migration"]["phase"] == 2
    assert found["migration"]["dirty"] == 0
    for store in ("json", "sqlite"):
        assert records.items() <= found["records"][store].items()
    for _ in range(2):
        assert cli(capsys, "switch", "back", "--json", "--workspace", workspace)[0] == 0
    _, found = cli(capsys, "status", "--json", "--workspace", workspace)
    assert found["migration"] | {"verified": None} == {
        "phase": 0,
        "name": "SOURCE_ONLY",
        "epoch": 4,
        "source": "json",
        "target": "sqlite",
        "completed": [],
        "writer_of_record": "json",
        "verified": None,
        "dirty": 0,
        "wish": None,
    }
    _, found = cli(capsys, "history", "--json", "--workspace", workspace)
    assert [s["phase"] for s in found["switches"]] == [1, 2, 1, 0]
    after, listed = contents(workspace), workspace / "registry" / "GLOBAL_REGISTRY.json"
    assert samples.keeps_entries(before.pop(listed), after.pop(listed))
    assert after == before


def test_writes_go_to_both_and_reads_come_from_the_target(workspace):
    """Phase 1 replicates writes; phase 2 reads SQLite at JSON's revision, with foreign edits."""
    store = opened(workspace)
    switch(workspace, 1)
    build.put(store, build.report("TASK-0", "a0", progress=50), expected=None)
    switch(workspace, 2)
    assert store.load("TASK-0").agents[0].progress == 50
    path = workspace / "TASK-0" / "AGENT_REGISTRY.json"
    legacy.edit(path, legacy.add_agent("theirs"))
    assert [a.agent_id for a in store.load("TASK-0").agents] == ["a0", "theirs"]
    assert store.counts().total_agents == 4
    assert dual(store).followed["fallbacks"] == 0
    legacy.edit(path, legacy.add_agent("more"))
    assert len(list(all_records(store, Kind.AGENT, RecordQuery(task_id="TASK-0")))) == 3


def test_a_running_store_follows_every_switch(workspace):
    """An open store writes and reads through phases 1, 2, 1, 0, 1 with one feed and no restart."""
    store = opened(workspace)
    first = store.changes()
    for n, phase in enumerate((1, 2, 1, 0, 1)):
        switch(workspace, phase)
        build.put(store, build.report("TASK-1", "a1", progress=n), expected=None)
        assert store.load("TASK-1").agents[0].progress == n
    rest = store.changes(first[-1].cursor)
    assert [c.revision for c in rest if c.changeset.task_id == "TASK-1"] == [2, 3, 4, 5, 6]
    assert not open_migration(load_settings(workspace, env={})).verify().mismatches


def test_naming_one_store_of_a_move_is_refused(workspace):
    """After the switch to phase 2, naming one store of the move is refused with the reason, so that
    no process writes outside the gate."""
    assert opened(workspace, registry_backend="json").counts().total_tasks == 3
    switch(workspace, 2)
    for name in ("json", "sqlite", "memory"):
        with pytest.raises(BackendMismatch, match="phase 2"):
            opened(workspace, registry_backend=name)
    assert opened(workspace).counts().total_tasks == 3


def test_a_store_that_would_start_empty_is_refused(workspace, tmp_path):
    """No second registry can begin next to an existing one, whatever backend is named."""
    for name in ("sqlite", "memory", f"sqlite://{tmp_path}/other.sqlite3"):
        with pytest.raises(BackendMismatch):
            opened(workspace, registry_backend=name)


def test_a_target_phase_alone_switches_nothing(workspace, caplog):
    """With phase 2 recorded and REGISTRY_PHASE=1 a store warns once and stays in phase 2."""
    switch(workspace, 2)
    with caplog.at_level(logging.WARNING):
        store = opened(workspace, registry_phase=1)
    assert [r.getMessage() for r in caplog.records].count(caplog.records[0].getMessage()) == 1
    assert "REGISTRY_PHASE=1 is only a target" in caplog.text
    assert dual(store).record().phase == 2


def test_auto_switch_acts_on_a_target_phase_once(workspace):
    """Auto-switch steps forward by itself, and never undoes a later switch by an operator."""
    target_phase = {"registry_phase": 2, "registry_auto_switch": 1}
    assert dual(opened(workspace, **target_phase)).record().phase == 2
    assert dual(opened(workspace, **target_phase)).record().epoch == 2
    switch(workspace, 1)
    assert dual(opened(workspace, **target_phase)).record().phase == 1


def test_an_empty_workspace_starts_in_its_target_phase(tmp_path):
    """An empty workspace without a recorded phase records its target phase at once."""
    store = opened(tmp_path, registry_phase=1)
    build.make(store, "t")
    assert dual(store).record().phase == 1
    assert (tmp_path / "t" / "AGENT_REGISTRY.json").exists()
    assert not open_migration(load_settings(tmp_path, env={})).verify().mismatches


def test_the_legacy_systems_database_stops_a_switch(workspace, capsys):
    """With the legacy system's database present, a switch exits 6 until the operator says that the
    JSON is the newest state; that is then recorded."""
    path = workspace / "registry" / "state.sqlite3"
    path.parent.mkdir()
    path.write_bytes(b"x")
    code, found = cli(capsys, "switch", "1", "--json", "--workspace", workspace)
    assert (code, found["error"]["code"]) == (6, "preflight")
    assert "--json-is-truth" in found["error"]["next"]
    tokens = ("switch", "1", "--json-is-truth", "--json", "--workspace", workspace)
    assert cli(capsys, *tokens)[0] == 0
    assert cli(capsys, "switch", "2", "--json", "--workspace", workspace)[0] == 0


def test_processes_with_different_target_phases_do_not_flap(workspace, caplog):
    """Auto-switch waits while a live process has another target phase, and then switches."""
    (workspace / ".registry").mkdir(mode=0o700)
    other = Process(workspace / ".registry", target_phase=1)
    target_phase = {"registry_phase": 2, "registry_auto_switch": 1}
    assert dual(opened(workspace, **target_phase)).record().phase == 0
    assert f"process {os.getpid()} has the target phase 1" in caplog.text
    other.close()
    assert dual(opened(workspace, **target_phase)).record().phase == 2


def test_two_switches_at_once(workspace, capsys):
    """The second of two concurrent switches exits 4 and changes nothing."""
    from filelock import FileLock

    opened(workspace)
    with FileLock(workspace / ".registry" / "switch.lock"):
        code, found = cli(capsys, "switch", "1", "--json", "--workspace", workspace)
    assert (code, found["error"]["code"]) == (4, "busy")
    assert phase_of(workspace) == (0, 0)


def test_a_switch_without_a_phase_walks_to_the_target_phase(workspace, capsys, monkeypatch):
    """A switch without a phase walks to REGISTRY_PHASE; without REGISTRY_PHASE it is a usage error
    with the next command."""
    code, found = cli(capsys, "switch", "--json", "--workspace", workspace)
    assert (code, found["error"]["code"]) == (2, "usage")
    monkeypatch.setenv("REGISTRY_PHASE", "2")
    code, found = cli(capsys, "switch", "--json", "--workspace", workspace)
    assert (code, [s["to"] for s in found["steps"]]) == (0, [1, 2])


def test_the_summary_names_the_next_command(workspace, capsys, monkeypatch):
    """Status names the next command that fits the current state of the move."""
    monkeypatch.setenv("REGISTRY_RETIRE_SECONDS", "0")

    def following():
        return cli(capsys, "status", "--json", "--workspace", workspace)[1]["next"]

    assert following() == "registry-backend plan 1"
    switch(workspace, 1)
    assert following() == "registry-backend plan next"
    monkeypatch.setenv("REGISTRY_PHASE", "0")
    assert following() == "registry-backend plan 0"
    monkeypatch.delenv("REGISTRY_PHASE")
    switch(workspace, 2)
    assert following() == "registry-backend plan next"
    legacy.edit(workspace / "TASK-0" / "AGENT_REGISTRY.json", legacy.add_agent("theirs"))
    assert following() == "registry-backend reconcile"
    switch(workspace, 4)
    assert following() == "registry-backend verify"
    (workspace / ".registry" / "switch.json").write_text("{}")
    assert following() == "registry-backend recover"
    assert "Next: registry-backend recover" in cli(capsys, "--workspace", workspace)[1]


def test_a_difference_stops_a_switch_and_is_named(workspace, capsys):
    """On a difference verify exits 3 with a JSON pointer and both values; switch exits 3."""
    switch(workspace, 1)
    import sqlite3

    path = workspace / ".registry" / "registry.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE agents SET progress = 77 WHERE agent_id = 'a1'")
    connection.close()
    code, found = cli(capsys, "verify", "--json", "--workspace", workspace)
    assert code == 3
    assert found["mismatches"] == [
        {"task_id": "TASK-1", "pointer": "/agents/a1/progress", "source": 1, "target": 77}
    ]
    assert cli(capsys, "diff", "TASK-1", "--json", "--workspace", workspace)[0] == 3
    assert cli(capsys, "diff", "TASK-0", "--json", "--workspace", workspace)[0] == 0
    code, found = cli(capsys, "switch", "2", "--json", "--workspace", workspace)
    assert (code, found["error"]["code"]) == (3, "mismatch")
    _, found = cli(capsys, "status", "--json", "--workspace", workspace)
    assert found["migration"]["phase"] == 1


@pytest.fixture
def live_in(monkeypatch):
    """Return a function that moves this process to a time zone."""

    def move(zone):
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    yield move
    monkeypatch.undo()
    time.tzset()


def test_the_zone_is_recorded_when_a_registry_is_first_written_to(workspace, live_in):
    """The first zone is recorded and stays, whichever process opens the registry later, so that the
    times of legacy programs always mean the same moment."""
    live_in("Asia/Tokyo")
    opened(workspace).close()
    live_in("UTC")
    opened(workspace, registry_legacy_tz="Europe/Berlin").close()
    assert PhaseFile(workspace / ".registry").current().zone == "Asia/Tokyo"
    document = json.loads((workspace / "TASK-0" / "AGENT_REGISTRY.json").read_text())
    naive = datetime.fromisoformat(document["created_at"])
    told = opened(workspace).load("TASK-0").task.created_at
    assert told == naive.replace(tzinfo=ZoneInfo("Asia/Tokyo"))
    switch(workspace, 1)
    assert PhaseFile(workspace / ".registry").current().zone == "Asia/Tokyo"


def test_a_switch_records_the_zone_where_none_is(workspace, live_in):
    """A switch adds the zone to a record that has none."""
    control = PhaseFile(workspace / ".registry")
    control.advance(0, PhaseRecord(epoch=1))
    live_in("Asia/Tokyo")
    switch(workspace, 1)
    assert control.current().zone == "Asia/Tokyo"


def test_the_target_of_a_move_is_recorded(workspace, tmp_path, caplog):
    """REGISTRY_TARGET may name another file; a recorded target wins, and a warning says so."""
    elsewhere = tmp_path / "elsewhere.sqlite3"
    opened(workspace, registry_target=f"sqlite://{elsewhere}").close()
    migration = open_migration(
        load_settings(workspace, env={"REGISTRY_TARGET": f"sqlite://{elsewhere}"})
    )
    with closing(migration):
        migration.switch(MigrationPhase(1), actor="test")
    assert elsewhere.exists()
    store = opened(workspace, registry_target="memory")
    assert "REGISTRY_TARGET=memory is not used" in caplog.text
    build.put(store, build.finding("TASK-1"), expected=None)
    assert not (workspace / ".registry" / "registry.sqlite3").exists()


def test_reading_commands_leave_no_trace(workspace, capsys):
    """status, verify and diff write nothing in a workspace that this library has not adopted."""
    before = contents(workspace)
    for tokens in (("status",), ("verify",), ("diff", "TASK-1")):
        assert cli(capsys, *tokens, "--json", "--workspace", workspace)[0] == 0
    assert contents(workspace) == before
    assert not (workspace / ".registry").exists()


def test_a_plan_changes_nothing(workspace, capsys):
    """plan names the steps and changes no file."""
    code, found = cli(capsys, "plan", "2", "--json", "--workspace", workspace)
    assert code == 0
    assert [(s["from"], s["to"]) for s in found["steps"]] == [(0, 1), (1, 2)]
    assert not (workspace / ".registry").exists()
    switch(workspace, 2)
    before = {p: p.stat().st_mtime_ns for p in workspace.rglob("*")}
    code, found = cli(capsys, "plan", "0", "--json", "--workspace", workspace)
    assert [(s["from"], s["to"]) for s in found["steps"]] == [(2, 1), (1, 0)]
    assert {p: p.stat().st_mtime_ns for p in workspace.rglob("*")} == before


def test_a_lost_record_is_noticed(workspace):
    """A missing phase.json while the target knows of a move is an error, never phase 0."""
    switch(workspace, 1)
    (workspace / ".registry" / "phase.json").unlink()
    with pytest.raises(BackendMismatch, match="history"):
        opened(workspace)


@pytest.mark.parametrize("phase", [1, 3])
def test_a_first_switch_while_a_program_opens_the_registry(workspace, monkeypatch, phase):
    """A program that found no record, and then what the first switch has made meanwhile, opens the
    move; once, it was told that the record is missing."""
    real, done = resolve.has_legacy_registry, []

    def then(path):
        found = real(path)
        if not done:
            done.append(1)
            switch(workspace, phase)
        return found

    monkeypatch.setattr(resolve, "has_legacy_registry", then)
    with closing(opened(workspace)) as store:
        build.put(store, build.agent("TASK-1", "opened"), expected=store.head("TASK-1").revision)
        assert store.load("TASK-1").agent("opened") is not None
    assert phase_of(workspace)[0] == phase


def test_a_writer_that_never_pauses_does_not_keep_a_switch_waiting(workspace):
    """A switch succeeds while two processes write without a pause: back-fill copies each task up to
    the revision that it had at the start."""
    harness = Harness("auto", workspace)
    writers = [
        harness.spawn("contract_tests.runner.worker", "report", "TASK-0", "busy") for _ in range(2)
    ]
    try:
        for writer in writers:
            writer.stdout.readline()
        for phase in (1, 2, 1, 0):
            assert switch(workspace, phase).steps
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()
    switch(workspace, 2)
    migration = open_migration(load_settings(workspace, env={}))
    assert migration.verify().mismatches == ()
    migration.close()


def test_verify_never_undoes_a_switch(workspace, monkeypatch):
    """A verification that ends after a switch leaves the switch's record in place."""
    switch(workspace, 1)
    slow = open_migration(load_settings(workspace, env={}))
    original = slow._session.control.note

    def late(**fields):
        switch(workspace, 2)
        original(**fields)

    monkeypatch.setattr(slow._session.control, "note", late)
    assert slow.verify().mismatches == ()
    slow.close()
    assert dual(opened(workspace)).record().phase == 2


DYING = """
import os, signal, sys
from registry_api import *
from registry_api.migration import PhaseFile
from registry_api.migration import MigrationPhase
PhaseFile.advance = lambda *a: os.kill(os.getpid(), signal.SIGKILL)
open_migration(load_settings(sys.argv[1], env={})).switch(MigrationPhase(1), actor="dying")
"""


def test_a_first_switch_killed_before_its_commit_can_be_repeated(workspace):
    """After a first switch is killed before its commit, phase 0 goes on and it can be repeated."""
    done = subprocess.run([sys.executable, "-c", DYING, str(workspace)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (workspace / ".registry" / "switch.json").exists()
    store = opened(workspace)
    assert not (workspace / ".registry" / "switch.json").exists()
    assert dual(store).record().phase == 0
    build.put(store, build.report("TASK-0", "a0", progress=5), expected=None)
    report = switch(workspace, 1)
    assert len(report.steps) == 1
    assert store.load("TASK-0").agents[0].progress == 5


def test_a_sqlite_registry_is_never_hidden(tmp_path):
    """A legacy folder next to a SQLite registry, or naming another backend, is refused."""
    store = opened(tmp_path)
    build.make(store, "t")
    for name in ("dual", "json"):
        with pytest.raises(BackendMismatch):
            opened(tmp_path, registry_backend=name)
    legacy.write_task(tmp_path, "TASK-B")
    with pytest.raises(BackendMismatch, match="which one is in use"):
        opened(tmp_path)
    assert opened(tmp_path, registry_backend="sqlite").counts().total_tasks == 1


def test_a_phase_of_a_newer_version_stops_every_write(workspace):
    """A phase that this version does not know stops every read and write and changes nothing."""
    store = opened(workspace)
    switch(workspace, 1)
    path = workspace / ".registry" / "phase.json"
    path.write_text(path.read_text().replace('"phase": 1', '"phase": 5'))
    before = contents(workspace)
    for call in (
        lambda: build.put(store, build.finding("TASK-0"), expected=None),
        lambda: store.load("TASK-0"),
        store.changes,
        lambda: opened(workspace),
    ):
        with pytest.raises(CorruptDocument):
            call()
    assert contents(workspace) == before


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"phase": 9}', '{"phase": 1, "epoch": "x"}', '{"phase":1,"target":5}']
)
def test_a_damaged_record_is_named(workspace, capsys, text):
    """In every command a phase.json that cannot be read is an error that names the file."""
    switch(workspace, 1)
    (workspace / ".registry" / "phase.json").write_text(text)
    for verb in ("status", "verify", "history"):
        code, found = cli(capsys, verb, "--json", "--workspace", workspace)
        assert (code, found["error"]["code"]) == (1, "corrupt_document")
        assert "phase.json" in found["error"]["message"]


def test_a_record_lost_under_a_running_store_is_noticed(workspace):
    """A store that has seen a move never falls back to phase 0."""
    store = opened(workspace)
    switch(workspace, 2)
    store.load("TASK-0")
    (workspace / ".registry" / "phase.json").unlink()
    with pytest.raises(BackendMismatch):
        build.put(store, build.finding("TASK-0"), expected=None)
    with pytest.raises(BackendMismatch):
        open_migration(load_settings(workspace, env={}))


def test_rollback_works_with_a_broken_target(workspace, capsys):
    """With SQLite unreadable, status says so, reads and writes go on, and switch back works."""
    switch(workspace, 2)
    path = workspace / ".registry" / "registry.sqlite3"
    for name in ("", "-wal", "-shm"):
        path.with_name(path.name + name).unlink(missing_ok=True)
    path.write_bytes(b"garbage" * 100)
    store = opened(workspace)
    build.put(store, build.report("TASK-0", "a0", progress=9), expected=None)
    assert store.load("TASK-0").agents[0].progress == 9
    assert store.counts().total_tasks == 3
    code, found = cli(capsys, "status", "--json", "--workspace", workspace)
    assert (code, found["migration"]["dirty"]) == (0, None)
    for _ in range(2):
        assert cli(capsys, "switch", "back", "--json", "--workspace", workspace)[0] == 0
    assert dual(opened(workspace)).record().phase == 0


def test_the_target_catches_up_after_a_lost_journal_folder(workspace):
    """A source without its journal folder starts a new feed, and the target converges to it."""
    import shutil

    store = opened(workspace)
    switch(workspace, 2)
    for n in range(5):
        build.put(store, build.report("TASK-0", "a0", progress=n), expected=None)
    store.close()
    shutil.rmtree(workspace / ".registry" / "json")
    shutil.rmtree(workspace / ".registry" / "intents")
    store = opened(workspace)
    build.put(store, build.report("TASK-0", "a0", progress=50), expected=None)
    migration = open_migration(load_settings(workspace, env={}))
    migration.reconcile()
    assert migration.verify().mismatches == ()
    assert migration.status().dirty == 0
    migration.close()


def test_a_task_only_in_the_target_is_a_difference(workspace):
    """verify names a task that only the target has, and lists in phase 2 do not serve it."""
    import shutil

    switch(workspace, 2)
    shutil.rmtree(workspace / "TASK-2")
    for path in (workspace / ".registry" / "json").glob("TASK-2*"):
        path.unlink()
    assert len(opened(workspace).list_tasks().items) == 2
    migration = open_migration(load_settings(workspace, env={}))
    assert [m.task_id for m in migration.verify().mismatches] == ["TASK-2"]
    migration.close()


def test_threads_leave_no_descriptors(workspace):
    """The gate descriptors of a thread are closed when the thread ends."""
    import gc

    store = opened(workspace)
    store.load("TASK-0")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(50):
        thread = threading.Thread(target=store.head, args=("TASK-0",))
        thread.start()
        thread.join()
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 4


@contextmanager
def locked_as_the_gate_closes(document):
    """A legacy program that locks a document when a switch is about to close the gate, adds an
    agent to it, and keeps it locked."""
    original = switching._commit_closed
    with document.open("r+") as file:

        def closing(*args):
            fcntl.flock(file, fcntl.LOCK_EX)
            registry = json.load(file)
            legacy.add_agent("theirs")(registry)
            file.seek(0)
            file.write(json.dumps(registry, indent=2))
            file.truncate()
            file.flush()
            return original(*args)

        with mock.patch.object(switching, "_commit_closed", closing):
            yield


def test_a_document_locked_while_the_gate_is_held_holds_nobody_up(workspace, monkeypatch):
    """While a document that is to be frozen stays locked, the gate opens again and again, so that
    other callers get in."""
    store = opened(workspace, registry_lock_timeout=5)
    store.counts()
    switch(workspace, 2)
    migration = open_migration(load_settings(workspace, env={}))
    original, closed = switching._try_closed, threading.Event()

    def behind(*args, **more):
        closed.set()
        return original(*args, **more)

    monkeypatch.setattr(switching, "_try_closed", behind)
    options = {"actor": "test", "timeout": 60.0}
    mover = threading.Thread(target=migration.switch, args=(MigrationPhase(3),), kwargs=options)
    with locked_as_the_gate_closes(workspace / "TASK-0" / "AGENT_REGISTRY.json"):
        mover.start()
        for _ in range(5):
            closed.clear()
            assert closed.wait(60)
            assert store.head("TASK-1").revision == 1
        assert mover.is_alive()
        assert dual(store).record().phase == 2
    mover.join()
    migration.close()
    assert dual(store).record().phase == 3


def test_a_document_that_stays_locked_stops_the_cut_over(workspace):
    """A switch that cannot lock a document gives up at its deadline and changes nothing."""
    switch(workspace, 2)
    migration = open_migration(load_settings(workspace, env={}))
    document = workspace / "TASK-0" / "AGENT_REGISTRY.json"
    with locked_as_the_gate_closes(document), pytest.raises(SwitchTimedOut):
        migration.switch(MigrationPhase(3), actor="test", timeout=0.3)
    assert migration.status().record.phase == 2
    migration.close()
    assert os.access(document, os.W_OK)


@pytest.mark.parametrize("to", [1, 2])
def test_an_early_switch_does_not_wait_for_legacy_programs(workspace, to):
    """Before the cut-over a switch does not wait for a document that a legacy program keeps locked:
    the next reader absorbs the edit, and the target catches up."""
    switch(workspace, to - 1)
    store = opened(workspace)
    revision = store.head("TASK-0").revision
    migration = open_migration(load_settings(workspace, env={}))
    with locked_as_the_gate_closes(workspace / "TASK-0" / "AGENT_REGISTRY.json"):
        migration.switch(MigrationPhase(to), actor="test", timeout=0.3)
        assert dual(store).record().phase == to
    assert "theirs" in {a.agent_id for a in store.load("TASK-0").agents}
    assert store.head("TASK-0").revision > revision
    assert migration.verify().mismatches == ()
    migration.close()


def test_a_gap_in_the_target_is_caught_up_not_hidden(workspace):
    """A write that the target missed is replayed before the next one is applied (CE1)."""
    store = opened(workspace)
    switch(workspace, 1)
    target = dual(store).replicator().target
    build.put(store, build.report("TASK-0", "a0", progress=1), expected=None)
    original, target.apply = target.apply, _failing
    build.put(store, build.report("TASK-0", "a0", progress=2), expected=None)
    assert dual(store).followed["lagging"] == 1
    target.apply = original
    legacy.edit(workspace / "TASK-0" / "AGENT_REGISTRY.json", legacy.add_agent("theirs"))
    build.put(store, build.report("TASK-0", "a0", progress=3), expected=None)
    assert target.load("TASK-0") == dual(store).source.load("TASK-0")
    assert [c.revision for c in target.changes(task_id="TASK-0")] == [1, 2, 3, 4, 5]


def _failing(change):
    from registry_api.errors import Unavailable

    raise Unavailable("down")


def test_a_stuck_target_never_fails_or_stalls_a_caller(workspace):
    """While another connection holds SQLite's write lock, writes succeed in time and reads fall
    back; then the target catches up."""
    import sqlite3

    store = opened(workspace, durable=False)
    switch(workspace, 2)
    other = sqlite3.connect(workspace / ".registry" / "registry.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    longest = 0.0
    for n in range(3):
        start = time.monotonic()
        build.put(store, build.report("TASK-0", "a0", progress=10 + n), expected=None)
        assert store.load("TASK-0").agents[0].progress == 10 + n
        longest = max(longest, time.monotonic() - start)
    other.execute("ROLLBACK")
    other.close()
    assert longest < 2
    assert dual(store).followed["fallbacks"] == 3
    assert store.load("TASK-0").agents[0].progress == 12
    assert dual(store).followed["fallbacks"] == 3
    assert not open_migration(load_settings(workspace, env={})).verify().mismatches


def test_a_task_that_kept_changing_is_not_compared_whole_under_the_gate(workspace, monkeypatch):
    """A task that kept changing is compared under the gate from its last position only: its feed
    may have 100,000 lines, and callers wait for the gate."""
    closed, held_up = [], []
    behind, compare = switching._try_closed, sync.compare_tail

    def settling(*args, **more):
        closed.append(True)
        return behind(*args, **more)

    def comparing(replicator, task_id, since):
        if closed:
            held_up.append((task_id, since.revision))
        return compare(replicator, task_id, since)

    def never_still(replicator, task_ids, *, progress=None):
        return VerifyReport(tasks=len(task_ids), in_flight=tuple(task_ids))

    monkeypatch.setattr(sync, "verify_tasks", never_still)
    monkeypatch.setattr(switching, "_try_closed", settling)
    monkeypatch.setattr(sync, "compare_tail", comparing)
    switch(workspace, 1)
    assert (closed, held_up) == ([True], [])


def test_kept_differences_are_for_the_owner_alone(tmp_path):
    """Only the owner can read the kept differences, which contain record values such as prompts."""
    path = tmp_path / "mismatches.jsonl"
    history.keep_mismatches(path, [Mismatch(task_id="t", pointer="/x", source=1, target=2)])
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("verb", [("verify",), ("diff", "TASK-0"), ("reconcile",), ("status",)])
def test_no_command_reads_while_the_gate_is_closed(workspace, capsys, monkeypatch, verb):
    """Commands that absorb edits of legacy programs exit 4 while a switch holds the gate."""
    switch(workspace, 1)
    monkeypatch.setenv("REGISTRY_LOCK_TIMEOUT", "0.2")
    gate = Gate(workspace / ".registry", timeout=1.0)
    with gate.closed(timeout=1.0):
        code, found = cli(capsys, *verb, "--json", "--workspace", workspace)
    gate.close()
    assert (code, found["error"]["code"]) == (4, "busy")
    assert cli(capsys, *verb, "--json", "--workspace", workspace)[0] == 0
