"""Interrupted writes of a document: by a kill in the middle, a failed sync, or a switch in between.

What is acknowledged afterwards is on the disk, writes of legacy programs are kept, and the same
changeset sent again is one change.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import uuid
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from contract_tests import build
from registry_api import AgentStatus, Put, load_settings, new_changeset, open_migration, open_store
from registry_api.errors import OutcomeUnknown, SwitchTimedOut
from registry_api.migration import MigrationPhase
from tests import legacy

TASK = "TASK-1"
CHANGESET = "019b8b6a-0000-7000-8000-000000000009"
AGENTS = [
    {"id": f"a{n:02}", "type": "x", "status": "running", "note": "old", "pad": "x" * 300}
    for n in range(40)
]
# The writer is killed in a call on the document after its first bytes, up to the end of a page.
WRITER = """
import os, signal, sys, uuid
from dataclasses import replace
from contract_tests import build
from registry_api import *
workspace, where, ids = sys.argv[1], sys.argv[2], sys.argv[3:]
pwrite, fsync = os.pwrite, os.fsync

def is_document(fd):
    return os.readlink(f"/proc/self/fd/{fd}").endswith("AGENT_REGISTRY.json")

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def killed_in_pwrite(fd, data, offset):
    if is_document(fd) and data[:1] != b" ":
        done = 4096 - offset % 4096
        assert done < len(data)
        pwrite(fd, data[:done], offset)
        die()
    return pwrite(fd, data, offset)

def killed_in_fsync(fd):
    die() if is_document(fd) else fsync(fd)

store = open_store(load_settings(workspace, env={}))
if where in {"create", "created"}:
    from backends.json_files.task import commit, task_files
    if where == "create":
        task_files.TaskFiles.make_folders = lambda self: die()
    else:  # the document exists and is empty
        commit.write_in_place = lambda *_, **__: die()
    store.commit(replace(build.creating("NEW"), id=uuid.UUID(ids[0]), at=build.T0))
store.load("TASK-1")
if where == "pwrite":
    os.pwrite = killed_in_pwrite
else:
    os.fsync = killed_in_fsync
from tests.json_files.test_cut_off import noted
store.commit(noted(store, ids[0]))
"""


def noted(store, changeset_id):
    """Return a changeset that changes an agent at the document's start and one at its end."""
    snapshot = store.load(TASK)
    ops = [
        Put(replace(agent, extra=agent.extra.replace('"old"', '"new"')))
        for agent in snapshot.agents
        if agent.agent_id in {"a01", "a39"}
    ]
    # A text of another length: the text after it moves.
    ops[0] = Put(replace(ops[0].record, extra=ops[0].record.extra.replace("}", ',"more":1}')))
    return new_changeset(
        TASK,
        ops,
        expected=snapshot.revision,
        at=build.T0,
        actor="test",
        changeset_id=uuid.UUID(changeset_id),
    )


@pytest.fixture
def workspace(tmp_path):
    """A workspace with one task, whose document was last written by us."""
    legacy.write_task(tmp_path, TASK, agents=AGENTS)
    with opened(tmp_path) as store:
        build.put(store, build.agent(TASK, "ours"), expected=store.head(TASK).revision)
    return tmp_path


def opened(workspace):
    return closing(open_store(load_settings(workspace, env={})))


def document(workspace):
    return workspace / TASK / "AGENT_REGISTRY.json"


def killed(workspace, where):
    """Run a writer that is killed at ``where``; return the changeset that it began to commit."""
    with opened(workspace) as store:
        changeset = noted(store, CHANGESET)
    command = [sys.executable, "-c", WRITER, str(workspace), where, CHANGESET]
    assert subprocess.run(command, check=False).returncode == -9
    return changeset


def switch(workspace, phase):
    settings = load_settings(workspace, env={}, retire_seconds=0)
    with closing(open_migration(settings)) as migration:
        migration.switch(MigrationPhase(phase), actor="test")


def is_document(fd):
    return Path(f"/proc/self/fd/{fd}").readlink().name == "AGENT_REGISTRY.json"


def watched(monkeypatch):
    """Record the calls that write or sync a document; return the list."""
    calls, pwrite, fsync = [], os.pwrite, os.fsync

    def noted_pwrite(fd, data, offset):
        if is_document(fd) and data:
            calls.append("write")
        return pwrite(fd, data, offset)

    def noted_fsync(fd):
        if is_document(fd):
            calls.append("sync")
        fsync(fd)

    monkeypatch.setattr(os, "pwrite", noted_pwrite)
    monkeypatch.setattr(os, "fsync", noted_fsync)
    return calls


def notes(store):
    return {a.agent_id: json.loads(a.extra).get("note") for a in store.load(TASK).agents}


def actors(store):
    return [c.changeset.actor for c in store.changes(task_id=TASK)][1:]


@pytest.mark.parametrize("where", ["pwrite", "fsync"])
def test_what_was_cut_off_is_synced_before_it_is_acknowledged(workspace, monkeypatch, where):
    """A complete write may be only in memory: the retry writes it again and syncs it."""
    changeset = killed(workspace, where)
    with opened(workspace) as store:
        calls = watched(monkeypatch)
        assert store.commit(changeset).replayed
        assert calls[:2] == ["write", "sync"]
        found = notes(store)
        assert (found["a01"], found["a20"], found["a39"]) == ("new", "old", "new")
        assert actors(store) == ["test", "test"]
    assert not list((workspace / ".registry").glob("quarantine/*"))


def test_a_failed_sync_is_not_taken_for_a_clean_page(workspace, monkeypatch):
    """After EIO the kernel may count the page as written, so the retry writes it again."""
    with opened(workspace) as store:
        store.load(TASK)
        changeset, fsync = noted(store, CHANGESET), os.fsync

        def failing(fd):
            if is_document(fd):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            fsync(fd)

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", failing)
            with pytest.raises(OutcomeUnknown):
                store.commit(changeset)
        calls = watched(monkeypatch)
        assert store.commit(changeset).replayed
        assert calls[:2] == ["write", "sync"]


def test_a_legacy_text_is_synced_before_ours_goes_over_it(workspace, monkeypatch):
    """Otherwise a power loss could mix three texts, of which we know only two; our own text is
    synced.
    """
    with opened(workspace) as store:
        calls = watched(monkeypatch)
        build.put(store, build.agent(TASK, "first"), expected=store.head(TASK).revision)
        assert calls[0] == "write"
        legacy.edit(document(workspace), legacy.add_agent("theirs"))
        store.load(TASK)
        calls.clear()
        build.put(store, build.agent(TASK, "second"), expected=store.head(TASK).revision)
        assert calls[0] == "sync"
        assert calls.count("sync") == 2


def test_a_legacy_text_that_is_merged_is_synced_before(workspace, monkeypatch):
    """A stale legacy document lacks an acknowledged change: our write replaces it with both
    changes.
    """
    stale = json.loads(document(workspace).read_text())
    with opened(workspace) as store:
        build.put(store, build.agent(TASK, "first"), expected=store.head(TASK).revision)
        legacy.add_agent("theirs")(stale)
        document(workspace).write_text(json.dumps(stale, indent=2))
        calls = watched(monkeypatch)
        assert {"first", "theirs"} <= {a.agent_id for a in store.load(TASK).agents}
        assert calls[:2] == ["sync", "write"]
    written = json.loads(document(workspace).read_text())
    assert {"first", "theirs"} <= {a["id"] for a in written["agents"]}


def test_a_legacy_edit_over_a_write_that_was_cut_off_stands(tmp_path):
    """Our write is complete but not acknowledged; a legacy program sets one of our fields back."""
    agents = [{"id": f"a{n}", "type": "x", "status": "running"} for n in range(3)]
    legacy.write_task(tmp_path, TASK, agents=agents)
    code = (
        "import os, signal, sys; from registry_api import *; from contract_tests import build\n"
        "from backends.json_files.journal.writer import JournalWriter\n"
        "store = open_store(load_settings(sys.argv[1], env={})); store.load('TASK-1')\n"
        "JournalWriter.append = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "build.put(store, *(build.agent('TASK-1', f'a{n}', status=AgentStatus.BLOCKED)"
        " for n in (0, 2)), expected=1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -9
    path = document(tmp_path)

    def back(registry):
        registry["agents"][2]["status"] = "running"

    legacy.edit(path, back)
    with opened(tmp_path) as store:
        found = {a.agent_id: a.status for a in store.load(TASK).agents}
        assert found["a0"] == AgentStatus.BLOCKED
        assert found["a2"] == AgentStatus.RUNNING
    assert json.loads(path.read_text())["agents"][2]["status"] == "running"


@pytest.mark.parametrize(("before", "after"), [(0, 1), (1, 2), (2, 1), (1, 0), (2, 3)])
@pytest.mark.parametrize("where", ["pwrite", "fsync", "create", "created"])
def test_a_switch_settles_what_was_cut_off(workspace, before, after, where):
    """A switch in either direction settles an interrupted write while it holds the gate, since
    nobody could recognise it afterwards. It becomes one change, of ours.
    """
    switch(workspace, before)
    changeset = killed(workspace, where)
    switch(workspace, after)
    if where.startswith("create"):
        changeset = build.creating("NEW")
        changeset = replace(changeset, id=uuid.UUID(CHANGESET), at=build.T0)
    with opened(workspace) as store:
        commit = store.commit(changeset)
        task_id = changeset.task_id
        again = [c for c in store.changes(task_id=task_id) if c.changeset.id == changeset.id]
        assert len(again) == 1
        assert store.head(task_id).revision == commit.revision
        if task_id == TASK:
            assert set(notes(store).values()) >= {"new", "old"}
            assert "foreign" not in actors(store)
    with closing(open_migration(load_settings(workspace, env={}))) as migration:
        assert migration.verify().mismatches == ()


@pytest.mark.parametrize("before", [0, 2])
def test_a_switch_waits_for_a_locked_document_that_was_cut_off(workspace, before):
    """A legacy program has locked the document of a killed creation: no step skips it."""
    switch(workspace, before)
    killed(workspace, "created")
    settings = load_settings(workspace, env={}, retire_seconds=0)
    with (
        closing(open_migration(settings)) as migration,
        (workspace / "NEW" / "AGENT_REGISTRY.json").open("r+") as legacy_program,
    ):
        fcntl.flock(legacy_program, fcntl.LOCK_EX)
        with pytest.raises(SwitchTimedOut):
            migration.switch(MigrationPhase(1), actor="test", timeout=0.3)
        fcntl.flock(legacy_program, fcntl.LOCK_UN)
        assert migration.status().record.phase == before
        migration.switch(MigrationPhase(1), actor="test")
    with opened(workspace) as store:
        assert store.head("NEW").revision == 1


def test_a_step_down_settles_what_it_can(workspace):
    """One task cannot be settled, since its journal is damaged: the report names it, the step
    succeeds, and the other task is settled.
    """
    switch(workspace, 1)
    legacy.write_task(workspace, "BAD", agents=AGENTS)
    with opened(workspace) as store:
        store.load("BAD")
    killed(workspace, "pwrite")
    state = workspace / ".registry"
    shutil.copy(state / "intents" / TASK, state / "intents" / "BAD")
    (state / "json" / "BAD.journal").write_text("{}\n")
    with closing(open_migration(load_settings(workspace, env={}))) as migration:
        report = migration.switch(MigrationPhase(0), actor="test")
        assert "BAD.journal" in "".join(report.notes)
        assert report.steps[-1].to_phase == 0
    assert not (state / "intents" / TASK).stat().st_size
    with opened(workspace) as store:
        assert {notes(store)[key] for key in ("a01", "a39")} == {"new"}
        assert actors(store) == ["test", "test"]


def test_an_intent_of_an_earlier_version_is_finished(workspace):
    """An earlier version wrote NUL over the first byte during a write; so does recovery."""
    killed(workspace, "pwrite")
    path = workspace / ".registry" / "intents" / TASK
    number, body = path.read_bytes()[:8], path.read_bytes()[40:]
    line, _, rest = body.partition(b"\n")
    head = json.loads(line)
    head.pop("boot")
    _, gone, _ = head.pop("over")
    head["patch"][0] = "{"
    body = json.dumps(head).encode() + b"\n" + rest[: len(rest) - gone]
    path.write_bytes(number + hashlib.sha256(number + body).digest() + body)
    document(workspace).write_bytes(b"\x00" + document(workspace).read_bytes()[1:])
    with opened(workspace) as store:
        assert {notes(store)[key] for key in ("a01", "a39")} == {"new"}
        assert actors(store) == ["test", "test"]
