"""The json store together with legacy programs, and after crashes: nothing is lost."""

import errno
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from backends.json_files.document import stamp
from backends.json_files.journal.writer import JournalWriter
from backends.json_files.task import write_ahead
from contract_tests import build
from registry_api import (
    AgentStatus,
    Kind,
    Put,
    RecordQuery,
    find_capability,
    load_settings,
    new_changeset,
    open_migration,
    open_store,
)
from registry_api.capabilities import Legacy, MigrationSource
from registry_api.errors import Busy, Conflict, CorruptDocument, TaskNotFound, Unavailable
from registry_api.migration import MigrationPhase
from registry_api.workspace import at_most
from tests import legacy, processes, strace


def opened(workspace, **options):
    return open_store(load_settings(workspace, env={}, backend="json", **options))


def document_of(workspace, task="TASK-1"):
    return json.loads((workspace / task / "AGENT_REGISTRY.json").read_text())


@pytest.fixture
def workspace(tmp_path):
    legacy.write_task(
        tmp_path,
        "TASK-1",
        agents=[{"id": "old", "type": "x", "status": "running", "progress": 1, "kept": [1.50]}],
        total_spawned=9,
        custom={"b": 1, "a": 2},
    )
    return tmp_path


def path_of(workspace):
    return workspace / "TASK-1" / "AGENT_REGISTRY.json"


def test_opening_and_reading_leave_every_byte(workspace):
    """Adoption writes a journal for the task and does not change the document."""
    before = path_of(workspace).read_bytes(), path_of(workspace).stat().st_mtime_ns
    store = opened(workspace)
    assert store.load("TASK-1").revision == 1
    assert store.counts().active_agents == 1
    (change,) = store.changes()
    assert change.changeset.actor == "foreign"
    assert (path_of(workspace).read_bytes(), path_of(workspace).stat().st_mtime_ns) == before


def test_a_write_keeps_the_inode_order_and_unknown_keys(workspace):
    """We write the old document with the change in it and with the actual counts."""
    path = path_of(workspace)
    path.write_text(path.read_text().replace("1.5", "1.50"))
    inode = path.stat().st_ino
    before = document_of(workspace)
    store = opened(workspace)
    build.put(store, build.agent("TASK-1", "new"), expected=1)
    after = document_of(workspace)
    assert path_of(workspace).stat().st_ino == inode
    assert [k for k in after if k in before] == list(before)
    assert after["custom"] == {"b": 1, "a": 2}
    assert after["agents"][0] == before["agents"][0]
    assert b'"kept": [\n        1.50\n' in path_of(workspace).read_bytes()
    assert (after["total_spawned"], after["active_count"]) == (2, 2)
    assert after["agent_hierarchy"]["orchestrator"] == ["new"]


def test_a_finding_does_not_touch_the_document(workspace):
    """A history record that changes no other record adds a line to its log; the document is
    unchanged.
    """
    store = opened(workspace)
    before = path_of(workspace).read_bytes()
    build.put(store, build.finding("TASK-1", "old"), expected=None)
    assert path_of(workspace).read_bytes() == before
    assert opened(workspace).counts().records[Kind.FINDING] == 1


def test_a_foreign_edit_is_a_revision_of_its_own(workspace):
    """A foreign edit is absorbed before the caller's commit; its id is derived from its content."""
    store = opened(workspace)
    store.load("TASK-1")
    legacy.edit(path_of(workspace), legacy.add_agent("theirs"))
    commit = build.put(store, build.finding("TASK-1"), expected=None)
    assert commit.revision == 3
    feed = store.changes()
    assert [c.changeset.actor for c in feed] == ["foreign", "foreign", "test"]
    assert [a.agent_id for a in store.load("TASK-1").agents] == ["old", "theirs"]
    assert feed == opened(workspace).changes()
    assert [op.record.agent_id for op in feed[1].changeset.ops] == ["theirs"]


def test_a_stale_whole_document_write_removes_nothing(workspace):
    """A program read before our commit and writes after it: both writes are kept, also in the
    document (CE5).
    """
    store = opened(workspace)
    stale = document_of(workspace)
    build.put(store, build.agent("TASK-1", "ours", progress=40), expected=1)
    build.put(store, build.report("TASK-1", "ours", progress=70), expected=None)
    legacy.add_agent("theirs")(stale)
    path_of(workspace).write_text(json.dumps(stale, indent=2))
    snapshot = opened(workspace).load("TASK-1")
    assert [a.agent_id for a in snapshot.agents] == ["old", "ours", "theirs"]
    assert snapshot.agents[1].progress == 70
    assert {a["id"] for a in document_of(workspace)["agents"]} == {"old", "ours", "theirs"}
    assert document_of(workspace)["active_count"] == 3
    assert list((workspace / ".registry").glob("conflicts/*")) == []


def test_a_stale_write_without_a_change_changes_nothing(workspace):
    """Only what another program changed counts: writing an old state back undoes no change."""
    store = opened(workspace)
    stale = path_of(workspace).read_bytes()
    build.put(store, build.agent("TASK-1", "ours"), expected=1)
    path_of(workspace).write_bytes(stale)
    assert [a.agent_id for a in store.load("TASK-1").agents] == ["old", "ours"]
    assert len(document_of(workspace)["agents"]) == 2


def test_ours_stands_and_theirs_is_kept(workspace):
    """Both changed the same field: our value stays, their bytes are kept in conflicts/ with a
    report, and status names them.
    """
    store = opened(workspace)
    stale = document_of(workspace)
    ours = store.load("TASK-1").agents[0]
    ended = build.agent(
        "TASK-1", "old", type="ours", status=AgentStatus.COMPLETED, extra=ours.extra
    )
    build.put(store, ended, expected=1)
    stale["agents"][0]["type"] = "theirs"
    stale["agents"][0]["status"] = "failed"
    path_of(workspace).write_text(json.dumps(stale))
    agent = store.load("TASK-1").agents[0]
    assert (agent.type, agent.status) == ("ours", AgentStatus.COMPLETED)
    kept = sorted((workspace / ".registry" / "conflicts").iterdir())
    assert json.loads(kept[0].read_text()) == stale
    report = json.loads(kept[1].read_text())["conflicts"]
    assert any("type" in line for line in report)
    assert any("status" in line for line in report)
    assert any("conflicts" in p for p in find_capability(store, Legacy).problems())


def test_only_foreign_agents_can_be_removed_by_foreign_programs(workspace):
    """Another program can remove an agent that it created, but not one that we acknowledged."""
    store = opened(workspace)
    build.put(store, build.agent("TASK-1", "ours"), expected=1)
    legacy.edit(path_of(workspace), lambda d: d["agents"].clear())
    assert [a.agent_id for a in store.load("TASK-1").agents] == ["ours"]
    assert [a["id"] for a in document_of(workspace)["agents"]] == ["ours"]


def test_a_foreign_report_is_taken_as_one(workspace):
    """A foreign change of a live agent's progress is accepted if it is the newer report."""
    store = opened(workspace)
    store.load("TASK-1")

    def progress(document):
        document["agents"][0] |= {"progress": 60, "last_update": "2030-01-01T00:00:00"}

    legacy.edit(path_of(workspace), progress)
    assert store.load("TASK-1").agents[0].progress == 60


def test_foreign_lines_become_history(workspace):
    """Lines that other programs append are imported once, wherever their log is moved."""
    store = opened(workspace)
    store.load("TASK-1")
    log = workspace / "TASK-1" / "progress" / "old_progress.jsonl"
    line = '{"timestamp": "2026-01-04T22:16:0%d", "agent_id": "old", "progress": 9}\n'
    log.write_text(line % 0 + line % 1)
    assert len(store.list_records(Kind.PROGRESS).items) == 2
    build.put(store, build.report("TASK-1", "old", progress=10), expected=None)
    with log.open("a") as file:
        file.write(line % 2 + '{"torn')
    build.put(store, build.report("TASK-1", "old", progress=20), expected=None)
    entries = store.list_records(Kind.PROGRESS, RecordQuery(task_id="TASK-1")).items
    assert [e.foreign for e in entries].count(True) == 3
    assert len(entries) == store.counts().records[Kind.PROGRESS] == 5
    (workspace / "TASK-1" / "archive").mkdir()
    log.rename(workspace / "TASK-1" / "archive" / log.name)
    log.write_text(line % 7)
    again = opened(workspace)
    moved = again.list_records(Kind.PROGRESS, RecordQuery(task_id="TASK-1")).items
    assert {e.entry_id for e in entries} < {e.entry_id for e in moved}
    assert len(moved) == 6
    assert again.load("TASK-1").agents[0].progress == 20


def test_a_document_torn_by_another_program_is_restored(workspace):
    """The torn bytes are kept in quarantine, and the document is restored with its unknown keys."""
    store = opened(workspace)
    build.put(store, build.agent("TASK-1", "ours"), expected=1)
    whole = document_of(workspace)
    torn = path_of(workspace).read_bytes()[:200]
    path_of(workspace).write_bytes(torn)
    time.sleep(0.3)
    assert [a.agent_id for a in store.load("TASK-1").agents] == ["old", "ours"]
    assert document_of(workspace) == whole
    (kept,) = (workspace / ".registry" / "quarantine").iterdir()
    assert kept.read_bytes() == torn


def test_a_registry_being_created_is_left_alone(workspace):
    """An empty, young document is pending: it is not written and not quarantined; when it is
    complete, it is read.
    """
    folder = workspace / "TASK-2"
    folder.mkdir()
    path = folder / "AGENT_REGISTRY.json"
    path.touch()
    store = opened(workspace)
    with pytest.raises(Unavailable, match="being written"):
        store.load("TASK-2")
    assert [t.task_id for t in store.list_tasks().items] == ["TASK-1"]
    assert path.read_bytes() == b""
    path.write_text(json.dumps({"task_id": "TASK-2", "agents": []}))
    assert store.load("TASK-2").revision == 1


def test_what_is_no_registry_is_never_written(workspace):
    """A commit to a document that cannot be read is refused with the reason; the document is
    unchanged.
    """
    (workspace / "TASK-2").mkdir()
    path = workspace / "TASK-2" / "AGENT_REGISTRY.json"
    path.write_text('{"agents": [{"name": "poet"}]}')
    store = opened(workspace)
    old = time.time() - 100
    import os

    os.utime(path, (old, old))
    with pytest.raises(CorruptDocument):
        build.put(store, build.finding("TASK-2"), expected=None)
    assert path.read_text() == '{"agents": [{"name": "poet"}]}'
    with pytest.raises(TaskNotFound):
        store.load("../etc")


def test_a_vanished_folder_loses_nothing(workspace):
    """The registry still knows the task; a write reports that its folder is gone."""
    store = opened(workspace)
    store.load("TASK-1")
    (workspace / "TASK-1").rename(workspace / "elsewhere")
    assert store.load("TASK-1").agents[0].agent_id == "old"
    with pytest.raises(Unavailable, match="is missing"):
        build.put(store, build.finding("TASK-1"), expected=None)
    (workspace / "elsewhere").rename(workspace / "TASK-1")
    build.put(store, build.finding("TASK-1"), expected=None)


def test_an_editor_that_replaces_the_file_is_noticed(workspace):
    """A new inode under the same name is a foreign edit like any other."""
    store = opened(workspace)
    store.load("TASK-1")
    document = document_of(workspace)
    legacy.add_agent("edited")(document)
    aside = workspace / "TASK-1" / "aside"
    aside.write_text(json.dumps(document))
    aside.rename(path_of(workspace))
    build.put(store, build.report("TASK-1", "edited", progress=5), expected=None)
    assert [a["id"] for a in document_of(workspace)["agents"]] == ["old", "edited"]


def test_the_global_file_tells_the_truth(workspace):
    """It is rewritten when a task, an agent or a status changes: actual counts, with unknown keys
    and entries kept.
    """
    path = workspace / "registry" / "GLOBAL_REGISTRY.json"
    path.parent.mkdir()
    claims = {
        "active_tasks": 43,
        "active_agents": 97,
        "odd": [1],
        "tasks": {"TASK-gone": {"status": "X"}},
        "agents": {},
    }
    path.write_text(json.dumps(claims, indent=2))
    inode = path.stat().st_ino
    store = opened(workspace)
    build.put(store, build.agent("TASK-1", "ours"), expected=1)
    value = json.loads(path.read_text())
    assert (value["active_tasks"], value["active_agents"], value["odd"]) == (1, 2, [1])
    assert value["tasks"]["TASK-gone"] == {"status": "X"}
    assert value["tasks"]["TASK-1"]["status"] == "ACTIVE"
    for name in ("old", "ours"):
        revision = store.head("TASK-1").revision
        ended = build.agent("TASK-1", name, status=AgentStatus.COMPLETED)
        build.put(store, ended, expected=revision)
    value = json.loads(path.read_text())
    assert (value["active_tasks"], value["active_agents"]) == (0, 0)
    assert value["agents"]["ours"]["status"] == "completed"
    assert path.stat().st_ino == inode


def test_a_line_that_is_just_being_written_is_passed_over(workspace):
    """A reader without the lock may see the reserved room of a line, and even its end: it never
    fails, and the next writer overwrites it.
    """
    store = opened(workspace)
    store.load("TASK-1")
    journal = workspace / ".registry" / "json" / "TASK-1.journal"
    with journal.open("ab") as file:
        file.write(b"\x00" * 100 + b'"cs":{}}\n')
    assert store.load("TASK-1").revision == 1
    fresh = opened(workspace)
    assert fresh.load("TASK-1").revision == 1
    build.put(store, build.agent("TASK-1", "ours"), expected=1)
    assert fresh.load("TASK-1").revision == 2
    assert b"\x00" not in journal.read_bytes()
    fresh.close()
    store.close()


def test_the_journal_starts_again_from_a_base(workspace):
    """After many commits a new process reads from the newest base and knows all ids."""
    store = opened(workspace)
    changesets = []
    for n in range(120):
        report = build.report("TASK-1", "old", progress=n, message="x" * 400)
        changesets.append(new_changeset("TASK-1", [Put(report)], expected=None))
        store.commit(changesets[-1])
    journal = workspace / ".registry" / "json" / "TASK-1.journal"
    assert journal.read_text().count('"k":"base"') >= 2
    again = opened(workspace)
    assert again.load("TASK-1") == store.load("TASK-1")
    assert again.counts() == store.counts()
    assert again.commit(changesets[0]).replayed
    assert len(again.changes(limit=1000)) == 121


def test_a_stale_write_after_many_reports_removes_nothing(workspace):
    """The number of commits between the read and the write of a legacy program does not matter
    (CE5).
    """
    store = opened(workspace)
    build.put(store, build.phase("TASK-1", name="ours"), expected=1)
    stale = document_of(workspace)
    legacy.edit(path_of(workspace), legacy.add_agent("foreign"))
    revision = store.load("TASK-1").revision
    build.put(store, build.phase("TASK-1", name="later"), expected=revision)
    for n in range(90):
        build.put(store, build.report("TASK-1", "old", progress=n), expected=None)
    stale["note"] = "late"
    path_of(workspace).write_text(json.dumps(stale))
    snapshot = store.load("TASK-1")
    assert [a.agent_id for a in snapshot.agents] == ["foreign", "old"]
    assert snapshot.phases[0].name == "later"
    assert snapshot.agents[1].progress == 89
    assert json.loads(snapshot.task.extra)["note"] == "late"


def test_a_follower_in_a_thread_moves_no_line_of_a_writer(workspace, monkeypatch):
    """A thread reads the line that another one has just written, and finishes in the middle of the
    next commit: the next line still follows directly after the first.
    """
    import threading

    from backends.json_files.journal.intent import IntentFile
    from backends.json_files.journal.state import JournalState
    from backends.json_files.store import JsonFilesStore

    store = opened(workspace)
    store.load("TASK-1")
    written, reading, prepared, looked = (threading.Event() for _ in range(4))

    def commit_twice():
        for _ in range(2):
            build.put(store, build.finding("TASK-1"), expected=None)

    writer = threading.Thread(target=commit_twice)
    take, settled, write = JournalState.take, JsonFilesStore._settled_feed, IntentFile.write
    # Each waits only a moment for the other, since they must exclude each other.
    moment = 0.2

    def slow_take(journal, *args, **options):
        ours = threading.current_thread() is writer
        (written if ours else reading).set()
        (reading if ours else prepared).wait(moment)
        take(journal, *args, **options)

    def start_writer(json_store):
        found = settled(json_store)
        writer.start()
        assert written.wait(10)
        return found

    def slow_write(intent_file, intent):
        write(intent_file, intent)
        if written.is_set():
            prepared.set()
            looked.wait(moment)

    with monkeypatch.context() as patched:
        patched.setattr(JournalState, "take", slow_take)
        patched.setattr(JsonFilesStore, "_settled_feed", start_writer)
        patched.setattr(IntentFile, "write", slow_write)
        store.changes()
        looked.set()
        writer.join()
    for again in (store, opened(workspace)):
        assert [c.revision for c in again.changes()] == [1, 2, 3]


def test_a_document_that_cannot_be_opened_hides_no_change(workspace):
    """Its journal can be read: a subscriber misses no change, and lists still contain the task."""
    store, other = opened(workspace), opened(workspace)
    legacy.write_task(workspace, "TASK-2")
    cursor = [store.load("TASK-1"), store.load("TASK-2"), store.changes()][-1][-1].cursor
    build.put(other, build.finding("TASK-1"), expected=None)
    build.put(other, build.finding("TASK-2"), expected=None)
    aside = workspace / "aside"
    path_of(workspace).rename(aside)
    path_of(workspace).symlink_to(aside)
    for reader in (store, opened(workspace)):
        assert len(reader.changes(cursor)) == 2
        assert reader.counts().total_tasks == 2


def test_links_are_not_followed(workspace, tmp_path_factory):
    """A linked task folder is not a task, and a line is not written to a linked log folder."""
    outside = tmp_path_factory.mktemp("outside")
    legacy.write_task(outside, "TASK-9")
    (workspace / "TASK-9").symlink_to(outside / "TASK-9")
    store = opened(workspace)
    with pytest.raises(TaskNotFound):
        store.load("TASK-9")
    (workspace / "TASK-1" / "findings").rmdir()
    (workspace / "TASK-1" / "findings").symlink_to(outside)
    with pytest.raises(Unavailable):
        build.put(store, build.finding("TASK-1"), expected=None)
    (workspace / "NEW").symlink_to(outside)
    with pytest.raises((Unavailable, TaskNotFound)):
        build.make(store, "NEW")
    assert sorted(p.name for p in outside.iterdir()) == ["TASK-9"]


def test_the_documents_status_stands_on_adoption(workspace):
    """Without our journal, our lines in the logs are older than the values in the document."""
    import shutil

    store = opened(workspace)
    build.put(store, build.report("TASK-1", "old", progress=70, status="blocked"), expected=None)
    newest = build.agent("TASK-1", "old", progress=95, status=AgentStatus.REVIEWING)
    build.put(store, newest, expected=2)
    store.close()
    shutil.rmtree(workspace / ".registry")
    agent = opened(workspace).load("TASK-1").agents[0]
    assert (agent.progress, agent.status) == (95, AgentStatus.REVIEWING)


def test_long_lines_are_read_and_the_rest_behind_them(workspace):
    """A line of several megabytes, first or later, is read, and so are the lines after it."""
    store = opened(workspace)
    for n in range(3):
        message = "x" * (9 * 2**20) if n < 2 else "short"
        build.put(store, build.finding("TASK-1", message=message), expected=None)
    again = opened(workspace)
    assert len(again.list_records(Kind.FINDING).items) == 3


def test_many_tasks_need_few_descriptors(workspace):
    """A workspace may have more tasks than a process may open files."""
    for n in range(150):
        legacy.write_task(workspace, f"TASK-x{n}")
    code = (
        "import sys, resource; from registry_api import *;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60));"
        "s = open_store(load_settings(sys.argv[1], env={}, backend='json'));"
        "print(s.counts().total_tasks, len(s.changes(limit=1000)))"
    )
    command = [sys.executable, "-c", code, str(workspace)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["151", "151"]


def test_a_log_rewritten_in_place_is_read_anew(workspace):
    """Another program rewrites a log with fewer bytes: nothing fails, and all lines, old and new,
    are in the history.
    """
    store = opened(workspace)
    log = workspace / "TASK-1" / "progress" / "old_progress.jsonl"
    line = '{"timestamp": "2026-01-04T22:16:0%d", "agent_id": "old", "message": "%s"}\n'
    log.write_text(line % (1, "x" * 500))
    assert len(store.list_records(Kind.PROGRESS).items) == 1
    log.write_text(line % (2, "new"))
    build.put(store, build.report("TASK-1", "old", progress=50), expected=None)
    messages = [e.message for e in store.list_records(Kind.PROGRESS).items]
    assert sorted(messages) == ["", "new", "x" * 500]


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59+00:00"])
def test_moments_at_the_ends_of_time(workspace, moment):
    """Every zone of the legacy programs can represent every time that the contract accepts."""
    from datetime import datetime

    for zone in ("Asia/Tokyo", "America/New_York"):
        store = opened(workspace, legacy_tz=zone)
        at = datetime.fromisoformat(moment)
        revision = store.head("TASK-1").revision
        build.put(store, build.agent("TASK-1", "edge", started_at=at), expected=revision)
        assert opened(workspace, legacy_tz=zone).load("TASK-1").agent("edge").started_at == at


def test_a_fork_child_keeps_no_lock(workspace, monkeypatch):
    """A child forked in the middle of a commit does not hold the document's flock (CE15)."""
    import os
    import threading

    from backends.json_files.task import write_ahead

    store = opened(workspace)
    store.load("TASK-1")
    inside, leave = threading.Event(), threading.Event()
    original = write_ahead.write_in_place

    def slow(*args, **options):
        inside.set()
        leave.wait(10)
        return original(*args, **options)

    monkeypatch.setattr(write_ahead, "write_in_place", slow)
    thread = threading.Thread(
        target=lambda: build.put(store, build.agent("TASK-1", "ours"), expected=1)
    )
    thread.start()
    assert inside.wait(10)
    pid = os.fork()
    if pid == 0:
        time.sleep(20)
        os._exit(0)
    try:
        leave.set()
        thread.join()
        legacy.edit(path_of(workspace), legacy.add_agent("theirs"), timeout=10)
        assert len(store.load("TASK-1").agents) == 3
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("nth", range(1, 14))
def test_a_creation_killed_anywhere_can_be_repeated(tmp_path, nth):
    """After a kill at any writing call the same creation succeeds, and no document stays empty."""
    strace.need()
    code = (
        "import sys, uuid; from registry_api import *; from contract_tests import build;"
        "s = open_store(load_settings(sys.argv[1], env={}, backend='json'));"
        "s.commit(new_changeset('NEW', build.creating('NEW').ops, expected=0, at=build.T0,"
        " changeset_id=uuid.UUID('019b8b6a-0000-7000-8000-000000000002'))); print('acked')"
    )
    (tmp_path / "registry").mkdir()
    strace.run(code, tmp_path, inject=f"signal=KILL:when={nth}", path=None)
    store = opened(tmp_path)
    store.counts()
    again = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=False, capture_output=True, text=True
    )
    assert "acked" in again.stdout, again.stderr
    assert opened(tmp_path).load("NEW").revision == 1
    assert json.loads((tmp_path / "NEW" / "AGENT_REGISTRY.json").read_text())["task_id"] == "NEW"


# -- crashes -------------------------------------------------------------------------------------

COMMIT = """
import sys
from registry_api import *
from contract_tests import build
import uuid
store = open_store(load_settings(sys.argv[1], env={}, backend="json"))
agent = build.agent("TASK-1", "ours", progress=3, started_at=build.T0)
entry = build.report("TASK-1", "ours", entry_id="entry", progress=4)
change = new_changeset("TASK-1", [Put(agent), Put(entry)], expected=1, at=build.T0,
    changeset_id=uuid.UUID("019b8b6a-0000-7000-8000-000000000001"))
print("begin", flush=True)
try:
    store.commit(change)
    print("acked", flush=True)
except RegistryError as error:
    print(error.code, flush=True)
"""


def assert_settled(workspace, out):
    """Assert that the store is intact, and that our change is applied at most once, and certainly
    if acknowledged.
    """
    json.loads(path_of(workspace).read_text()) if "acked" in out else None
    store = opened(workspace)
    snapshot = store.load("TASK-1")
    happened = snapshot.agent("ours") is not None
    assert happened or "acked" not in out
    assert happened == bool(document_agents(workspace) & {"ours"})
    entries = store.list_records(Kind.PROGRESS).items
    assert [e.entry_id for e in entries] == (["entry"] if happened else [])
    feed = store.changes()
    assert [c.revision for c in feed] == list(range(1, snapshot.revision + 1))
    again = subprocess.run(
        [sys.executable, "-c", COMMIT, str(workspace)], check=True, capture_output=True, text=True
    )
    assert "acked" in again.stdout
    final = opened(workspace).load("TASK-1")
    assert final.agent("ours").progress == 4
    assert final.revision == snapshot.revision + (not happened)
    log = workspace / "TASK-1" / "progress" / "ours_progress.jsonl"
    assert log.read_text().count('"entry"') == 1


def document_agents(workspace):
    return {a["id"] for a in document_of(workspace)["agents"]}


@pytest.mark.parametrize("fault", ["signal=KILL", "error=ENOSPC", "error=EIO"])
def test_a_fault_at_every_system_call_of_a_commit(tmp_path, fault):
    """A kill or a disk error at each writing call: the store is intact, and the change is applied
    once and never lost.
    """
    strace.need()
    outcomes = set()
    for nth in range(1, 200):
        workspace = tmp_path / str(nth)
        workspace.mkdir()
        legacy.write_task(workspace, "TASK-1", agents=[{"id": "old", "status": "running"}])
        opened(workspace).load("TASK-1")
        calls = strace.WRITES if "KILL" in fault else "pwrite64,fsync,ftruncate,fallocate,mkdir"
        done = strace.run(COMMIT, workspace, calls=calls, inject=f"{fault}:when={nth}")
        said = done.stdout.split()
        outcomes.add(said[-1] if said else "")
        assert done.returncode in {0, -9, 137}, done.stderr
        if "begin" in said or "KILL" in fault:
            assert_settled(workspace, said)
        if said[-1:] == ["acked"] and nth > 12:
            break
    else:
        raise AssertionError("the commit never completed")
    assert "acked" in outcomes
    assert nth > 12


WAITING = """
import sys, threading
exec(open(sys.argv[2]).read())
print("waiting", flush=True)
edit(sys.argv[1], add_agent("theirs"))
print("acked", flush=True)
"""


@pytest.mark.parametrize("nth", range(1, 7))
def test_a_legacy_writer_that_waits_in_flock_over_a_kill(workspace, tmp_path, nth):
    """It gets the lock of our killed writer and edits the current text: its write is kept, and ours
    is applied once (CE3, CE4).
    """
    strace.need()
    opened(workspace).load("TASK-1")
    program = tmp_path / "program.py"
    program.write_text(legacy.PROGRAM)
    # Stopped long enough before the kill that the legacy program is certainly waiting.
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync", "-e"]
    command += [f"inject=fsync:delay_enter=400000:signal=KILL:when={nth}"]
    ours = subprocess.Popen(
        [*command, sys.executable, "-c", COMMIT, str(workspace)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert ours.stdout.readline() == "begin\n"
    theirs = subprocess.run(
        [sys.executable, "-c", WAITING, str(path_of(workspace)), str(program)],
        check=False,
        capture_output=True,
        text=True,
    )
    said = ours.communicate()[0]
    store = opened(workspace)
    snapshot = store.load("TASK-1")
    if "acked" in theirs.stdout:
        assert snapshot.agent("theirs") is not None
    if "acked" in said:
        assert snapshot.agent("ours") is not None
    assert document_agents(workspace) == {a.agent_id for a in snapshot.agents}
    again = subprocess.run(
        [sys.executable, "-c", COMMIT, str(workspace)], check=True, capture_output=True, text=True
    )
    assert "acked" in again.stdout or "conflict" in again.stdout
    agents = [a["id"] for a in document_of(workspace)["agents"]]
    assert len(agents) == len(set(agents))


def test_a_legacy_program_is_never_starved(tmp_path):
    """Eight writers of ours work on one task without a pause, on a slow disk. A legacy program
    tries its lock every 100 ms and gives up after 10 s. It gets each of 50 edits within half of
    those attempts, and no write is lost. An attempt counts only if another program wrote since the
    one before: a host that does not run anything starves nobody.
    """
    workspace = tmp_path / "workspace"
    legacy.write_task(workspace, "TASK-1", agents=[{"id": "a1", "status": "running"}])
    acks = [tmp_path / f"writer{n}" for n in range(8)]
    writers = [processes.start(processes.work, workspace, a, a.name, "TASK-1") for a in acks]

    def written():
        return sum(path.stat().st_size for path in acks if path.exists())

    try:
        for n in range(50):
            # Wait until they wrote again: edits in a row would keep them from it.
            before = written()
            processes.wait_until(lambda before=before: written() > before)
            looks = 0
            while not tried(path_of(workspace), f"legacy{n}"):
                looks += written() > before
                before = written()
                assert looks < 50
                time.sleep(0.1)
    finally:
        for writer in writers:
            writer.kill()
            writer.join()
    names = {a.agent_id for a in opened(workspace).load("TASK-1").agents}
    assert {f"legacy{n}" for n in range(50)} <= names
    count, missing = processes.lost(workspace, acks)
    assert count > 100
    assert missing == []


def tried(path, name):
    """Add an agent as a legacy program does, if the document is not locked at this moment."""
    try:
        legacy.edit(path, legacy.add_agent(name), timeout=0)
    except TimeoutError:
        return False
    return True


def unlocked_edit(workspace):
    """Edit as a legacy program that writes without flock, or flushes its last buffer after it
    unlocked.
    """
    document = document_of(workspace)
    document["agents"][0]["progress"] = 7
    path_of(workspace).write_text(json.dumps(document, indent=2))


def test_an_unlocked_write_right_behind_ours_is_seen_on_a_slow_disk(workspace, monkeypatch):
    """It comes between our last byte and the end of our commit, which takes longer than a stamp
    counts as young.
    """
    monkeypatch.setattr(stamp, "_RACY_NS", 0)
    write = write_ahead.write_in_place

    def then_theirs(fd, patch, *, sync):
        write(fd, patch, sync=sync)
        unlocked_edit(workspace)

    store = opened(workspace)
    store.load("TASK-1")
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(write_ahead, "write_in_place", then_theirs)
        build.put(store, build.agent("TASK-1", "ours"), expected=1)
    found = store.load("TASK-1")
    assert [(a.agent_id, a.progress) for a in found.agents] == [("old", 7), ("ours", 0)]
    build.put(store, build.agent("TASK-1", "second"), expected=found.revision)
    assert document_of(workspace)["agents"][0]["progress"] == 7
    store.close()


def test_a_patch_is_not_put_over_bytes_it_was_not_made_for(workspace, monkeypatch):
    """An unlocked write comes while our intent is being synced: it is absorbed, and our change,
    which the gate tries again, meets a newer revision.
    """
    room = JournalWriter.make_room

    def then_theirs(self, size):
        room(self, size)
        unlocked_edit(workspace)

    store = opened(workspace)
    store.load("TASK-1")
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(JournalWriter, "make_room", then_theirs)
        with pytest.raises(Conflict):
            build.put(store, build.agent("TASK-1", "ours"), expected=1)
    found = store.load("TASK-1")
    assert [(a.agent_id, a.progress) for a in found.agents] == [("old", 7)]
    build.put(store, build.agent("TASK-1", "ours"), expected=found.revision)
    agents = [(a["id"], a["progress"]) for a in document_of(workspace)["agents"]]
    assert agents == [("old", 7), ("ours", 0)]
    store.close()


@pytest.mark.parametrize("what", ["base", "note"])
def test_what_fails_behind_a_commit_does_not_deny_it(workspace, monkeypatch, what):
    """The disk is full for a new base or for the lock's note: the commit is acknowledged, since it
    happened.
    """
    write = os.pwrite

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store = opened(workspace)
    store.load("TASK-1")
    with monkeypatch.context() as meanwhile:
        if what == "base":
            meanwhile.setattr(JournalWriter, "rebase", full)
        else:  # the only write of eight bytes
            meanwhile.setattr(os, "pwrite", lambda *a: (full if len(a[1]) == 8 else write)(*a))
        assert build.put(store, build.agent("TASK-1", "ours"), expected=1).revision == 2
    assert [a.agent_id for a in store.load("TASK-1").agents] == ["old", "ours"]
    store.close()


def test_a_template_is_kept_in_turn(workspace):
    """Preparing a freeze waits for the writer of the task: both replace one file through the same
    temporary name, and without the wait one of them found nothing to rename.
    """
    store = opened(workspace)
    store.load("TASK-1")
    migration_source = find_capability(store, MigrationSource)
    with (
        migration_source._store.tasks.task("TASK-1")._files.held(),
        ThreadPoolExecutor(1) as other,
    ):

        def prepare():
            with at_most(0.05):
                migration_source.prepare_fence()

        with pytest.raises(Busy):
            other.submit(prepare).result()
    migration_source.prepare_fence()


def test_a_killed_replacement_whose_document_was_removed(workspace, monkeypatch, tmp_path_factory):
    """The other store's copy is dropped; what the journal has stays readable."""
    from backends.json_files.task.replacement import Replacement

    class Killed(BaseException):
        pass

    def die(_):
        raise Killed

    other = tmp_path_factory.mktemp("other")
    legacy.write_task(other, "TASK-1", agents=[{"id": "theirs", "type": "x", "status": "running"}])
    store = opened(workspace)
    before = store.load("TASK-1")
    with closing(opened(other)) as theirs, monkeypatch.context() as meanwhile:
        meanwhile.setattr(Replacement, "_swap_journal", die)
        with pytest.raises(Killed):
            find_capability(store, MigrationSource).replace(theirs.load("TASK-1"), [])
    path_of(workspace).unlink()
    with closing(opened(workspace)) as again:
        found = again.load("TASK-1")
        assert (found.agents, found.revision) == (before.agents, before.revision)
        assert find_capability(again, MigrationSource).restore() == 1
        assert [a["id"] for a in document_of(workspace)["agents"]] == ["old"]


def test_a_document_that_we_may_not_write_is_read(workspace):
    """A document is read-only in phase 0: every read works. A write is refused before it begins,
    with the user and the file, and succeeds when the file is writable again.
    """
    if os.geteuid() == 0:
        pytest.skip("root may write it")
    path = workspace / "TASK-1" / "AGENT_REGISTRY.json"
    store = opened(workspace)
    store.load("TASK-1")
    path.chmod(0o444)
    before = path.read_bytes()
    seen = store.load("TASK-1"), store.counts(), store.changes()
    with pytest.raises(Unavailable) as found:
        build.put(store, build.agent("TASK-1", "ours"), expected=1)
    assert str(path) in found.value.message
    assert f"uid {os.geteuid()}" in found.value.message
    assert (store.load("TASK-1"), store.counts(), store.changes()) == seen
    assert path.read_bytes() == before
    assert path.stat().st_mode & 0o777 == 0o444
    path.chmod(0o644)
    build.put(store, build.agent("TASK-1", "ours"), expected=1)
    assert store.load("TASK-1").revision == 2
    store.close()


@pytest.mark.parametrize("phase", [2, 3])
def test_a_frozen_document_stays_read_only(workspace, phase):
    """After steps over the cut-over and back, a document is read-only where it is frozen and
    writable where it is the record; its owner needs no more rights.
    """
    path = workspace / "TASK-1" / "AGENT_REGISTRY.json"
    with closing(open_migration(load_settings(workspace))) as migration:
        for to in (3, 2, 3, phase):
            migration.switch(MigrationPhase(to), actor="test")
            with closing(open_store(load_settings(workspace))) as store:
                build.put(store, build.report("TASK-1", "old"), expected=None)
            assert bool(path.stat().st_mode & 0o200) == (to < 3)
        assert migration.verify().mismatches == ()


def test_a_document_that_was_left_open_gets_its_mode_back(workspace):
    """A process that wrote a frozen document was killed before it made it read-only again: rollback
    restores its former mode and does not change other documents.
    """
    path, other = (workspace / f"TASK-{n}" / "AGENT_REGISTRY.json" for n in (1, 2))
    legacy.write_task(workspace, "TASK-2", agents=[])
    path.chmod(0o664)
    other.chmod(0o600)
    with closing(open_migration(load_settings(workspace))) as migration:
        migration.switch(MigrationPhase(3), actor="test")
        path.chmod(0o644)
        migration.switch(MigrationPhase(2), actor="test")
    assert [p.stat().st_mode & 0o777 for p in (path, other)] == [0o664, 0o600]
