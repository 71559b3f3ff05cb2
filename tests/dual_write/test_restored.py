"""One store of a move is restored from a backup while the other went on: two histories with the
same lineage, revisions and numbers. The source decides; the target is filled again."""

import json
import shutil
import sqlite3
from contextlib import closing, nullcontext

import pytest

from backends.admin.cli import main
from contract_tests import build
from registry_api import (
    AgentStatus,
    Kind,
    Put,
    RecordQuery,
    load_settings,
    new_changeset,
    open_migration,
    open_store,
)
from tests import legacy
from tests.dual_write.unwrap import dual

TASKS = ("TASK-1", "TASK-2")


@pytest.fixture
def workspace(tmp_path):
    root = tmp_path / "workspace"
    for task in TASKS:
        legacy.write_task(root, task, agents=[{"id": "a", "type": "x", "status": "running"}])
    return root


def opened(workspace):
    return closing(open_store(load_settings(workspace, env={}, compare=0)))


def run(workspace, *tokens):
    return main([*tokens, "--workspace", str(workspace)])


def write(workspace, word, count=5):
    with opened(workspace) as store:
        for n in range(count):
            for task in TASKS:
                build.put(store, build.report(task, "a", message=f"{word} {n}"), expected=None)
                agent = build.agent(task, f"{word}-{n}")
                build.put(store, agent, expected=store.head(task).revision)


def json_side(workspace):
    return [
        *(workspace / t for t in TASKS),
        *(workspace / ".registry" / d for d in ("json", "intents")),
    ]


def sqlite_side(workspace):
    return sorted((workspace / ".registry").glob("registry.sqlite3*"))


def backup(paths, there):
    there.mkdir()
    for path in paths:
        (shutil.copytree if path.is_dir() else shutil.copy2)(path, there / path.name)


def restore(paths, there):
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
            shutil.copytree(there / path.name, path)
        elif (there / path.name).exists():
            shutil.copy2(there / path.name, path)
        else:
            path.unlink()


def said(store, task):
    records = store.list_records(Kind.PROGRESS, RecordQuery(task_id=task), limit=100).items
    return {r.message for r in records}, {a.agent_id for a in store.load(task).agents}


@pytest.mark.parametrize("phase", [1, 2])
@pytest.mark.parametrize("later", [0, 3, 5, 7])
def test_the_source_was_restored(workspace, tmp_path, phase, later):
    """After the source is restored, the registry holds the source's history, whether it then takes
    no, fewer, as many or more writes than it had lost."""
    assert run(workspace, "switch", str(phase)) == 0
    write(workspace, "common")
    backup(json_side(workspace), tmp_path / "backup")
    write(workspace, "lost")
    restore(json_side(workspace), tmp_path / "backup")
    write(workspace, "new", later)
    with opened(workspace) as store:
        for task in TASKS:
            messages, agents = said(store, task)
            assert {m.split()[0] for m in messages} == {"common"} | ({"new"} if later else set())
            assert len(messages) == 5 + later
            assert not [a for a in agents if a.startswith("lost")]
            source = dual(store).source
            assert said(source, task) == (messages, agents)
    assert run(workspace, "reconcile") == 0
    with closing(open_migration(load_settings(workspace, env={}))) as migration:
        assert migration.verify().mismatches == ()
    for step in (3, 4, 3, 2, 1, 0):
        assert run(workspace, "switch", str(step)) == 0
    with opened(workspace) as store:
        assert {m.split()[0] for m in said(store, "TASK-1")[0]} <= {"common", "new"}


@pytest.mark.parametrize("phase", [1, 2])
@pytest.mark.parametrize("same_process", [False, True])
def test_the_newest_change_was_sent_again(workspace, tmp_path, phase, same_process):
    """After the source is restored, a client sends its newest change again: both stores then have
    the same revision, number and newest change, and only their chains differ."""
    assert run(workspace, "switch", str(phase)) == 0
    write(workspace, "common")
    backup(json_side(workspace), tmp_path / "backup")
    newest = new_changeset("TASK-1", [Put(build.finding("TASK-1", "a"))], expected=None)
    with opened(workspace) as running:
        build.put(running, build.report("TASK-1", "a", message="lost"), expected=None)
        running.commit(newest)
        restore(json_side(workspace), tmp_path / "backup")
        source = dual(running).source
        # Around the replication, as a writer whose target cannot be reached.
        build.put(source, build.report("TASK-1", "a", message="new"), expected=None)
        assert not source.commit(newest).replayed
        position = dual(running).replicator().target.head("TASK-1").position
        assert position == source.head("TASK-1").position
        with nullcontext(running) if same_process else opened(workspace) as store:
            expected = {f"common {n}" for n in range(5)} | {"new"}
            assert said(store, "TASK-1")[0] == expected
            build.put(store, build.report("TASK-1", "a", message="after"), expected=None)
            assert said(store, "TASK-1")[0] == expected | {"after"}
    with closing(open_migration(load_settings(workspace, env={}))) as migration:
        assert migration.reconcile().caught_up == 0
        assert migration.verify().mismatches == ()


@pytest.mark.parametrize("is_replicated", [False, True])
def test_a_running_reader_learns_of_the_restore(workspace, tmp_path, is_replicated):
    """A process that has read a task before the restore sees what another one wrote after it, at
    the same revision and number; and once it has caught up, it fills no task again."""
    assert run(workspace, "switch", "2") == 0
    write(workspace, "common")
    with opened(workspace) as reader, opened(workspace) as other:
        backup(json_side(workspace), tmp_path / "backup")
        build.put(reader, build.report("TASK-1", "a", message="lost"), expected=None)
        assert "lost" in said(reader, "TASK-1")[0]
        restore(json_side(workspace), tmp_path / "backup")
        writer = other if is_replicated else dual(other).source
        build.put(writer, build.report("TASK-1", "a", message="new"), expected=None)
        expected = {f"common {n}" for n in range(5)} | {"new"}
        for _ in range(3):
            assert said(reader, "TASK-1")[0] == expected
            assert said(other, "TASK-1")[0] == expected
        filled = dual(reader).followed["healed"] + dual(other).followed["healed"]
        for _ in range(3):
            assert reader.load("TASK-1").agent("a").status
            assert other.load("TASK-1").agent("a").status
        assert dual(reader).followed["healed"] + dual(other).followed["healed"] == filled
        assert dual(reader).followed["fallbacks"] == 0


def test_verify_compares_a_target_of_another_history(workspace, tmp_path, capsys):
    """In phase 3 the target is restored from a backup of phase 2, and written to until it has the
    revision of the frozen source: verify and diff name what differs, field by field."""
    assert run(workspace, "switch", "2") == 0
    write(workspace, "common")
    backup(sqlite_side(workspace), tmp_path / "backup")
    with opened(workspace) as store:
        build.put(store, build.report("TASK-1", "a", message="lost"), expected=None)
    assert run(workspace, "switch", "3") == 0
    stamps = tmp_path / "stamps"
    backup(sqlite_side(workspace), stamps)
    with closing(sqlite3.connect(stamps / "registry.sqlite3")) as newest:
        kept = newest.execute("SELECT * FROM meta WHERE name LIKE 'stamp.%'").fetchall()
    restore(sqlite_side(workspace), tmp_path / "backup")
    with closing(sqlite3.connect(workspace / ".registry" / "registry.sqlite3")) as target:
        target.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", kept)
        target.commit()
    with opened(workspace) as store:
        build.put(store, build.report("TASK-1", "a", message="new"), expected=None)
        frozen = dual(store).source.head("TASK-1")
        assert store.head("TASK-1").position == frozen.position
        assert not store.head("TASK-1").is_level(frozen)
    capsys.readouterr()
    for command in (("verify",), ("diff", "TASK-1")):
        assert run(workspace, *command, "--json") == 3
        pointers = {m["pointer"] for m in json.loads(capsys.readouterr().out)["mismatches"]}
        assert "/chain" in pointers
        assert any(p.startswith("/progress/") for p in pointers)


def test_counts_follow_a_restore(workspace, tmp_path):
    """In phase 0 a process counts what it loads, also after a restore and other changes at the same
    revision and number."""
    with opened(workspace) as reader, opened(workspace) as other:
        build.put(reader, build.report("TASK-1", "a"), expected=None)
        backup(json_side(workspace), tmp_path / "backup")
        build.put(reader, build.report("TASK-1", "a", status="blocked"), expected=None)
        assert reader.counts().agents == {AgentStatus.BLOCKED: 1, AgentStatus.RUNNING: 1}
        restore(json_side(workspace), tmp_path / "backup")
        build.put(other, build.report("TASK-1", "a", status="reviewing"), expected=None)
        assert reader.load("TASK-1").agent("a").status is AgentStatus.REVIEWING
        assert reader.counts().agents == {AgentStatus.REVIEWING: 1, AgentStatus.RUNNING: 1}


@pytest.mark.parametrize("phase", [1, 2])
def test_the_target_was_restored(workspace, tmp_path, phase):
    """A target restored to an older state of the same history is behind, and catches up."""
    assert run(workspace, "switch", str(phase)) == 0
    write(workspace, "common")
    backup(sqlite_side(workspace), tmp_path / "backup")
    write(workspace, "later")
    restore(sqlite_side(workspace), tmp_path / "backup")
    write(workspace, "new")
    with opened(workspace) as store:
        assert len(said(store, "TASK-1")[0]) == 15
    with closing(open_migration(load_settings(workspace, env={}))) as migration:
        assert migration.verify().mismatches == ()


def test_reconcile_finds_a_diverged_target_at_once(workspace, tmp_path, capsys):
    """Doctor and reconcile find a diverged target at once, even with the same revision and number
    in source and target, and the counts that reconcile reports are accurate."""
    assert run(workspace, "switch", "2") == 0
    write(workspace, "common")
    backup(json_side(workspace), tmp_path / "backup")
    aside = tmp_path / "aside"
    write(workspace, "lost")
    backup(sqlite_side(workspace), aside)
    restore(json_side(workspace), tmp_path / "backup")
    restore(sqlite_side(workspace), aside)
    assert run(workspace, "switch", "1") == 0
    for path in sqlite_side(workspace):
        path.unlink()
    write(workspace, "new")
    restore([workspace / ".registry" / "registry.sqlite3"], aside)
    capsys.readouterr()
    run(workspace, "doctor", "--json")
    issues = json.loads(capsys.readouterr().out)["issues"]
    assert [i for i in issues if i["next"] == "registry-backend reconcile"]
    assert run(workspace, "reconcile", "--json") == 0
    assert json.loads(capsys.readouterr().out)["healed"] == 2
    assert run(workspace, "verify") == 0
    assert run(workspace, "doctor") == 0
