"""Evicted tasks: a task that is not in memory is read again, with the same result."""

import gc
import itertools
import json
import threading
import time
import traceback
from collections import OrderedDict
from contextlib import closing

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from backends.json_files.journal import journal, writer
from backends.json_files.journal.file import JournalFile
from backends.json_files.journal.journal import Journal
from backends.json_files.task import task_cache
from backends.json_files.task.commit import Commits
from backends.json_files.task.task_lock import TaskLock
from backends.jsonl import reader
from contract_tests import build
from contract_tests.harness import Harness
from contract_tests.test_model import Machine
from registry_api import Kind, RecordQuery, find_capability, load_settings, open_store
from registry_api.capabilities import MigrationSource
from registry_api.errors import CorruptDocument, RecordExists
from tests import legacy

TASKS = ["TASK-1", "TASK-2", "TASK-3.x"]


@pytest.fixture
def restless(monkeypatch):
    """Evicts every task as soon as another one is requested."""
    monkeypatch.setattr(task_cache, "_RECORDS", 0)
    monkeypatch.setattr(task_cache, "_FEW", 1)


@pytest.fixture
def workspace(tmp_path):
    for task in TASKS:
        agents = [{"id": "a1", "type": "x", "status": "running", "progress": 1}]
        legacy.write_task(tmp_path, task, agents=agents)
    return tmp_path


def opened(workspace):
    return open_store(load_settings(workspace, env={"REGISTRY_DURABLE": "0"}, backend="json"))


def test_a_random_history_has_the_same_outcome(tmp_path, restless):
    """For any history, a store that evicts tasks at once answers as the reference does."""
    count = iter(range(10**6))

    class Evicting(Machine):
        make = staticmethod(lambda: Harness("json", tmp_path / str(next(count))))

    run_state_machine_as_test(
        Evicting,
        settings=settings(
            max_examples=40,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("factor", [4, 0])
def test_an_older_programs_edit_is_merged_after_a_rest(workspace, restless, monkeypatch, factor):
    """The journal knows the state that the program read, however often the task was evicted since:
    its edit of one agent does not change ours of another. With 0, each line of the journal is
    followed by a base, where readers begin.
    """
    monkeypatch.setattr(writer, "_BASE_FACTOR", factor)
    store = opened(workspace)
    path = workspace / "TASK-1" / "AGENT_REGISTRY.json"
    build.put(store, build.agent("TASK-1", "ours"), expected=1)
    theirs = json.loads(path.read_bytes())
    build.put(store, build.report("TASK-1", "ours", progress=50), expected=None)
    store.load("TASK-2")
    theirs["agents"][0]["progress"] = 9
    path.write_text(json.dumps(theirs))
    store.load("TASK-2")
    found = {a.agent_id: a.progress for a in store.load("TASK-1").agents}
    assert found == {"a1": 9, "ours": 50}


def test_few_are_held(workspace, monkeypatch):
    """The cache holds as many records as its limit allows, whatever is requested."""
    for n in range(40):
        agents = [{"id": f"a{k}", "type": "x", "status": "running"} for k in range(10)]
        legacy.write_task(workspace, f"MORE-{n}", agents=agents)
    monkeypatch.setattr(task_cache, "_RECORDS", 150)
    monkeypatch.setattr(task_cache, "_FEW", 1)
    store = opened(workspace)
    for look in (
        store.counts,
        lambda: list(store.list_records(Kind.AGENT, RecordQuery(), limit=1000).items),
        lambda: [store.load(t.task_id) for t in store.list_tasks().items],
        store.changes,
    ):
        look()
        journals = [j for j in gc.get_objects() if isinstance(j, Journal)]
        states = [j._known.held for j in journals if "MORE" in j.task_id]
        held = sum(len(state.agents) for state in states if state)
        assert 0 < held <= 160
    assert store.counts().total_agents == 403


def test_quiet_logs_of_evicted_tasks_are_not_read(workspace, restless, monkeypatch):
    """A look at tasks whose files did not change reads no journal, though they were evicted."""
    store = opened(workspace)
    source = find_capability(store, MigrationSource)
    time.sleep(0.06)  # until then the documents are too young to prove that they did not change
    heads = source.absorb()
    monkeypatch.setattr(journal, "read_afresh", None)
    assert source.absorb() == heads


def test_ids_committed_beside_their_first_scan_are_known(workspace, monkeypatch):
    """One thread reads the ids of a task while another commits: both know the new id."""
    store = opened(workspace)
    entry = build.report("TASK-1", "a1")
    committer = threading.Thread(target=lambda: build.put(store, entry, expected=None))
    scan = JournalFile.history_ids

    def slow_scan(file, start, end):
        found = scan(file, start, end)
        if not committer.ident:
            committer.start()
            committer.join(0.3)
        return found

    monkeypatch.setattr(JournalFile, "history_ids", slow_scan)
    find_capability(store, MigrationSource).restore(dry_run=True)
    committer.join()
    with pytest.raises(RecordExists):
        build.put(store, entry, expected=None)


def test_a_task_that_is_evicted_while_it_is_read_again_is_there(workspace, monkeypatch):
    store = opened(workspace)
    store.load("TASK-1")
    reload, times = Journal._reload, iter(range(3))

    def reload_and_evict(self):
        reload(self)
        if next(times, None) is not None:
            self.evict()

    task = find_capability(store, MigrationSource)._store.tasks.task("TASK-1")
    task.journal.evict()
    monkeypatch.setattr(Journal, "_reload", reload_and_evict)
    assert task.stand().revision == 1


def test_a_task_is_not_evicted_while_a_thread_works_on_it(workspace, monkeypatch):
    """Not even if that thread began to wait for the lock before an earlier eviction."""
    store = opened(workspace)
    store.load("TASK-1")
    task = find_capability(store, MigrationSource)._store.tasks.task("TASK-1")
    waits, works, done = threading.Event(), threading.Event(), threading.Event()
    held, find = TaskLock.held, Commits._find_replay

    def waiting(lock):
        waits.set()
        return held(lock)

    def working(commits, change):
        works.set()
        assert done.wait(10)
        return find(commits, change)

    def evict_while_a_thread_waits(journal):
        committer.start()
        assert waits.wait(10)
        evict(journal)

    evict = Journal.evict
    monkeypatch.setattr(TaskLock, "held", waiting)
    monkeypatch.setattr(Commits, "_find_replay", working)
    monkeypatch.setattr(Journal, "evict", evict_while_a_thread_waits)
    committer = threading.Thread(
        target=lambda: build.put(store, build.report("TASK-1", "a1"), expected=None)
    )
    assert task._files.evict()
    monkeypatch.setattr(Journal, "evict", evict)
    assert works.wait(10)
    assert not task._files.evict()
    done.set()
    committer.join()
    assert store.load("TASK-1").revision == 2


def test_readers_never_see_a_task_go(workspace, restless):
    """Threads read, list and write, and each evicts the others' tasks."""
    store = opened(workspace)
    store.counts()
    stop, errors, sent = threading.Event(), [], OrderedDict()

    def work(n):
        try:
            for k in itertools.count():
                if stop.is_set():
                    return
                task = TASKS[(n + k) % 3]
                assert store.load(task).agents[0].agent_id == "a1"
                assert store.head(task).revision
                assert store.counts().total_tasks == 3
                if n == 0:
                    commit = build.put(store, build.report(task, "a1"), expected=None)
                    sent[task] = commit.revision
                else:
                    least = sent.get(task, 1) - 1
                    page = store.list_records(Kind.PROGRESS, RecordQuery(task_id=task), limit=1000)
                    assert len(page.items) >= min(least, 1000)
        except Exception:
            errors.append(traceback.format_exc())
            stop.set()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    stop.wait(3.0)  # how long they work
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    for task, revision in sent.items():
        assert store.load(task).revision == revision
        assert len(store.list_records(Kind.PROGRESS, RecordQuery(task_id=task)).items)


@pytest.mark.parametrize("opening", [1, 2])
def test_a_log_that_is_moved_while_it_is_read_is_read(workspace, monkeypatch, opening):
    """Another program archives a log before our first or second opening of it: its lines are
    imported by this read or the next one, each once.
    """
    store = opened(workspace)
    query = RecordQuery(task_id="TASK-1")
    assert store.list_records(Kind.PROGRESS, query).items == ()
    log = workspace / "TASK-1" / "progress" / "a1_progress.jsonl"
    line = '{"timestamp": "2026-01-04T22:16:0%d", "agent_id": "a1", "progress": %d}\n'
    log.write_text("".join(line % (n, n) for n in range(3)))
    usual, opened_times = reader.open_regular, []

    def moving(path, *flags):
        if str(path) == str(log):
            opened_times.append(path)
            if len(opened_times) == opening:
                (workspace / "TASK-1" / "archive").mkdir()
                log.rename(workspace / "TASK-1" / "archive" / log.name)
        return usual(path, *flags)

    monkeypatch.setattr(reader, "open_regular", moving)
    store.list_records(Kind.PROGRESS, query)
    assert not log.exists()
    assert len(store.list_records(Kind.PROGRESS, query).items) == 3
    assert store.counts().records[Kind.PROGRESS] == 3


@pytest.mark.parametrize(
    "line", ["{}", "null", "5", "[]", '{"k":"change"}', '{"k":"change","b":99999999}']
)
def test_a_damaged_last_line_is_named_and_stays_its_own(workspace, line):
    """The task is refused with the file's name; the other tasks can be read and written."""
    with closing(opened(workspace)) as store:
        store.counts()
    journal_of = workspace / ".registry" / "json" / "TASK-1.journal"
    with journal_of.open("a") as file:
        file.write(line + "\n")
    store = opened(workspace)
    with pytest.raises(CorruptDocument, match=r"TASK-1\.journal"):
        store.load("TASK-1")
    build.put(store, build.report("TASK-2", "a1", progress=5), expected=None)
    assert store.load("TASK-2").agents[0].progress == 5
