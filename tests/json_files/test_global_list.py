"""GLOBAL_REGISTRY.json, which legacy programs read without a lock: its content at every moment, and
what happens after they create it again with no entries (EMPTY).
"""

import json
import threading
import uuid
from contextlib import closing

import pytest

from contract_tests import build
from registry_api import AgentStatus, load_settings, open_migration, open_store
from registry_api.migration import MigrationPhase
from tests import legacy, processes
from tests.json_files.reading import reading

EMPTY = {
    "created_at": "2026-01-04T22:15:30",
    "total_tasks": 0,
    "active_tasks": 0,
    "total_agents_spawned": 0,
    "active_agents": 0,
    "max_concurrent_agents": 20,
    "tasks": {},
    "agents": {},
}


@pytest.fixture
def workspace(tmp_path):
    for n in range(3):
        agents = [{"id": "a", "type": "x", "status": "running"}]
        legacy.write_task(tmp_path, f"TASK-{n}", agents=agents)
    return tmp_path


def opened(workspace):
    return open_store(load_settings(workspace, env={}, backend="json"))


def path_of(workspace):
    return workspace / "registry" / "GLOBAL_REGISTRY.json"


def listed(workspace):
    return set(json.loads(path_of(workspace).read_text())["tasks"])


def spawn(store, key, task="TASK-0", status=AgentStatus.RUNNING):
    agent = build.agent(task, key, status=status)
    build.put(store, agent, expected=store.head(task).revision)


def test_no_reader_meets_it_empty_or_with_zeros(workspace):
    """While a writer makes it longer and shorter, a reader in a tight loop never finds it empty or
    with NUL; a torn read, which a single write in the file can still cause, is rare.
    """
    store = opened(workspace)
    spawn(store, "first")
    with reading(path_of(workspace), "tasks") as found:
        for n in range(300):
            status = AgentStatus.RUNNING if n % 2 else AgentStatus.COMPLETED
            spawn(store, f"agent-{'x' * (n % 7)}{n}", f"TASK-{n % 3}", status)
    assert found.worst() == []
    assert len(found.bad) <= max(2, found.reads // 1000), found.bad[:5]


def test_it_appears_whole(workspace):
    """No reader finds it between its creation and its first text."""
    store = opened(workspace)
    with reading(path_of(workspace), "tasks") as found:
        for n in range(50):
            path_of(workspace).unlink(missing_ok=True)
            spawn(store, f"a{n}")
    assert [b for b in found.bad if b[0] == 0 or b[1]] == []  # its first text has no entries
    assert list(path_of(workspace).parent.iterdir()) == [path_of(workspace)]


OPERATIONS = {
    "load": lambda s: s.load("TASK-1"),
    "head": lambda s: s.head("TASK-1"),
    "counts": lambda s: s.counts(),
    "list_tasks": lambda s: s.list_tasks(),
    "changes": lambda s: s.changes(limit=1),
    "report": lambda s: build.put(s, build.report("TASK-1", "a"), expected=None),
}


@pytest.mark.parametrize("known", [True, False], ids=["by who wrote it", "by another process"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_made_anew_empty_it_is_restored_by_the_next_operation(workspace, operation, known):
    store = opened(workspace)
    spawn(store, "first")
    other = store if known else opened(workspace)
    if known:
        store.head("TASK-0")
    anew = EMPTY | {"tasks": {"TASK-9": {"description": "theirs"}}}
    path_of(workspace).write_text(json.dumps(anew if known else EMPTY, indent=2))
    OPERATIONS[operation](other)
    assert {"TASK-0", "TASK-1", "TASK-2"} <= listed(workspace)
    assert ("TASK-9" in listed(workspace)) == known
    assert json.loads(path_of(workspace).read_text())["active_agents"] == 4


def test_what_others_add_and_say_stays(workspace):
    """Unknown keys and entries of other programs are kept, and so is their shorter form of a
    status.
    """
    store = opened(workspace)
    spawn(store, "first")
    value = json.loads(path_of(workspace).read_text())
    value["tasks"]["TASK-9"] = {"status": "X"}
    value["theirs"] = 1
    path_of(workspace).write_text(json.dumps(value))
    store.counts()
    spawn(store, "second")
    value = json.loads(path_of(workspace).read_text())
    assert (value["theirs"], value["tasks"]["TASK-9"]) == (1, {"status": "X"})


@pytest.mark.parametrize("tasks", [[{"task_id": "x"}], 3, None, "x"])
def test_another_programs_idea_of_it_fails_nobody(workspace, tasks):
    """Whatever another program writes under its keys, calls succeed, and a write that happened is
    acknowledged.
    """
    store = opened(workspace)
    spawn(store, "first")
    for _ in range(2):
        path_of(workspace).write_text(json.dumps({"tasks": tasks}))
        for operation in OPERATIONS.values():
            operation(store)
        spawn(opened(workspace), "x" * len(store.load("TASK-0").agents))


def test_threads_that_make_it_at_once(workspace):
    """Several threads create it with the first write of their tasks: it exists and is complete."""
    for _ in range(10):
        path_of(workspace).unlink(missing_ok=True)
        store = opened(workspace)
        threads = [
            threading.Thread(target=spawn, args=(store, uuid.uuid4().hex, f"TASK-{n}"))
            for n in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        spawn(store, uuid.uuid4().hex)
        assert "TASK-0" in listed(workspace)
        assert [p.name for p in path_of(workspace).parent.iterdir()] == [path_of(workspace).name]


def test_where_there_are_no_links(workspace, monkeypatch):
    def link(*_):
        raise PermissionError

    monkeypatch.setattr("os.link", link)
    spawn(opened(workspace), "first")
    assert "TASK-0" in listed(workspace)


def test_every_way_back_and_reconcile_bring_it_up_to_date(workspace):
    """It is up to date without a further write of ours: a legacy program that starts after the
    switch reads the actual counts.
    """
    settings = load_settings(workspace, env={})

    def says():
        return json.loads(path_of(workspace).read_text())["total_agents_spawned"]

    with closing(open_store(settings)) as store:
        spawn(store, "in-json")
    with closing(open_migration(settings)) as migration:
        migration.switch(MigrationPhase(3), actor="test")
        with closing(open_store(settings)) as store:
            spawn(store, "in-sqlite")
        assert says() == 4
        migration.switch(MigrationPhase(2), actor="test")
        assert says() == 5
        for phase in (1, 0):
            path_of(workspace).write_text(json.dumps(EMPTY | {"tasks": {"x": {}}}))
            migration.switch(MigrationPhase(phase), actor="test")
            assert says() == 5
    path_of(workspace).write_text(json.dumps(EMPTY | {"tasks": {"x": {}}}))
    processes.start(processes.command, "reconcile", "--workspace", workspace).join()
    assert says() == 5
