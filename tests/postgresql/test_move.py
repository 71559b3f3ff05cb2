"""Moves to PostgreSQL and back, under running writers, by the commands of every other move."""

import json
from collections import Counter
from contextlib import closing
from urllib.parse import urlsplit

import psycopg
import pytest

from backends.admin.cli import main
from contract_tests import build
from registry_api import TaskQuery, open_store
from registry_api.errors import BackendMismatch, PreflightFailed, SettingsError
from registry_api.migration import PhaseFile
from tests import legacy, processes
from tests.dual_write.test_chain import (
    TASKS,
    THERE_AND_BACK,
    complete,
    feed_of,
    moved,
    settings,
    subscriber,
    switch,
    walk,
    writers,
)


@pytest.fixture
def place(database, tmp_path):
    """The database's URL as it is recorded: its password is in a file."""
    parts = urlsplit(database)
    passfile = tmp_path / "password"
    passfile.touch(mode=0o600)
    passfile.write_text(parts.password)
    netloc = f"{parts.username}@{parts.hostname}:{parts.port}"
    return parts._replace(netloc=netloc, query=f"passfile={passfile}").geturl()


@pytest.fixture
def workspace(tmp_path):
    """A workspace with a legacy registry."""
    folder = tmp_path / "workspace"
    for task in TASKS:
        agents = [{"id": "a1", "type": "x", "status": "running", "progress": 1}]
        legacy.write_task(folder, task, agents=agents)
    return folder


@pytest.mark.timeout(1200)  # 36 switches under load
def test_a_chain_of_moves_under_load(workspace, tmp_path, place, database):
    """json -> sqlite -> postgresql -> sqlite, back and forth in each move, while processes write
    that were started before the first switch: no acknowledged write is lost, a subscriber sees each
    change once and in order, and a page cursor taken in json is good in the last sqlite.
    """
    with closing(open_store(settings(workspace))) as store:
        page = store.list_tasks(TaskQuery(), limit=1)
    with subscriber(workspace) as seen, writers(workspace, tmp_path, 4) as acks:
        walk(workspace, THERE_AND_BACK)
        complete(workspace)
        walk(workspace, THERE_AND_BACK, target=place)
        complete(workspace)
        walk(workspace, THERE_AND_BACK, target="sqlite")
        last = complete(workspace)
    assert [(m.source, m.target.partition("@")[0]) for m in last.completed] == [
        ("json", "sqlite"),
        ("sqlite", "postgresql://registry"),
        (place, "sqlite"),
    ]
    count, missing = processes.lost(workspace, acks, where="sqlite")
    assert count > 100
    assert missing == []
    with closing(open_store(settings(workspace))) as store:
        every = list(feed_of(store))
        names = sorted(t.task_id for t in store.list_tasks(limit=1000).items)
        following = [t.task_id for t in store.list_tasks(after=page.next, limit=1000).items]
    assert [c.cursor for c in seen] == [c.cursor for c in every]
    assert max(Counter(c.changeset.id for c in every).values()) == 1
    assert sorted([page.items[0].task_id, *following]) == names
    with psycopg.connect(database) as connection:  # a move has left it
        assert connection.execute("SELECT count(*) FROM tasks").fetchone() == (0,)


def test_the_legacy_files_move_to_postgresql(workspace, place, capsys):
    """json -> postgresql in one move by the commands, and back to the same documents."""
    document = workspace / TASKS[0] / "AGENT_REGISTRY.json"
    before = json.loads(document.read_bytes())

    def admin(*arguments):
        code = main([*arguments, "--workspace", str(workspace), "--json"])
        said = capsys.readouterr()
        assert code == 0, said.out + said.err
        return json.loads(said.out)

    admin("switch", "1", "--to", place)
    for phase in "234":
        admin("switch", phase)
    assert not document.exists()
    status = admin("status")
    assert status["counts"]["agents"]["active"] == len(TASKS)
    for phase in "3210":
        admin("switch", phase)
    assert json.loads(document.read_bytes()) == before


@pytest.mark.timeout(600)
def test_the_demo_moves_to_postgresql(place, capsys):
    """demo --pair sqlite,postgresql: twelve switches under load, nothing lost."""
    tokens = ("--writers", "2", "--seconds", "0.2", "--json", "--pair", f"sqlite,{place}")
    assert main(["demo", *tokens]) == 0
    steps = json.loads(capsys.readouterr().out)["steps"]
    assert len(steps) == 13
    assert all(s["lost"] == s["mismatches"] == 0 for s in steps)


def test_two_workspaces_do_not_share_a_target(tmp_path, place, workspace):
    """The second registry that names the same database is refused, and told whose it is."""
    other = tmp_path / "other"
    other.mkdir()
    for folder in (workspace, other):
        with closing(open_store(settings(folder))) as store:
            build.make(store, folder.name)
    switch(workspace, 3, target=place)
    with pytest.raises(BackendMismatch, match="belongs to the registry in"):
        switch(other, 1, target=place)
    assert PhaseFile(other / ".registry").read() is None


def test_a_second_host_is_fenced_by_a_step_back(workspace, tmp_path, place):
    """A process with a workspace of its own that writes to the database in phase 3 loses nothing by
    a step back, and is told which store writes now.
    """
    host = tmp_path / "host"
    host.mkdir()
    switch(workspace, 3, target=place)
    direct = settings(host, REGISTRY_BACKEND=place)
    with closing(open_store(direct, gated=False)) as other:
        revision = other.head(TASKS[0]).revision
        for n in range(20):
            build.put(other, build.agent(TASKS[0], f"h{n}"), expected=revision + n)
        switch(workspace, 2)
        with pytest.raises(BackendMismatch, match="the writer of record"):
            build.put(other, build.agent(TASKS[0], "late"), expected=revision + 20)
    with closing(open_store(settings(workspace))) as store:
        assert len(store.load(TASKS[0]).agents) == 21
    with moved(workspace) as migration:
        assert migration.verify().mismatches == ()


def test_a_target_that_does_not_answer_is_told_by_plan(workspace, place):
    """A server that is not there: plan says so, and the switch is refused. A wrong database: both
    are refused. Nothing is recorded.
    """
    parts = urlsplit(place)
    wrong = parts._replace(path="/no_such_database").geturl()
    away = place.replace(f":{parts.port}/", ":1/")
    plan = switch(workspace, 1, target=away, dry_run=True)
    assert "cannot be reached" in " ".join(plan.notes)
    with pytest.raises(PreflightFailed) as refused:
        switch(workspace, 1, target=away)
    assert refused.value.next_step
    for dry_run in (True, False):
        with pytest.raises(SettingsError, match="no_such_database") as refused:
            switch(workspace, 1, target=wrong, dry_run=dry_run)
        assert refused.value.next_step
    assert PhaseFile(workspace / ".registry").read() is None


def test_no_password_is_kept(workspace, database, capsys, monkeypatch):
    """With the password in REGISTRY_TARGET, no file of the workspace and no output holds it."""
    secret = urlsplit(database).password
    monkeypatch.setenv("REGISTRY_TARGET", database)
    monkeypatch.setenv("REGISTRY_RETIRE_SECONDS", "0")
    said = ""
    for command in (
        "plan 1",
        "switch 1",
        "status",
        "verify",
        "switch 4",
        "status --json",
        "history --json",
        "doctor",
        "switch 2",
        "metrics",
    ):
        main([*command.split(), "--workspace", str(workspace)])
        found = capsys.readouterr()
        said += found.out + found.err
    assert "postgresql://registry" in said
    assert secret not in said
    files = [p for p in workspace.rglob("*") if p.is_file()]
    assert len(files) > 5
    assert [p for p in files if secret.encode() in p.read_bytes()] == []
