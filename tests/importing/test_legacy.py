"""The legacy system's own database is imported whole, each task at once, and only once."""

import hashlib
import json
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace

import pytest

from backends.admin.cli import main
from contract_tests import build
from registry_api import (
    AgentStatus,
    Kind,
    PhaseStatus,
    TaskStatus,
    load_settings,
    open_migration,
    open_store,
)
from registry_api.migration import MigrationPhase
from registry_api.records import json_text
from tests.importing.legacy_database import SCHEMAS, fill, insert, made, open_database
from tests.proof import times

TASK = "TASK-20260203-100000-abcdef00"
COUNTS = {
    Kind.TASK: 3,
    Kind.PHASE: 6,
    Kind.AGENT: 15,
    Kind.PROGRESS: 15,
    Kind.FINDING: 15,
    Kind.REVIEW: 3,
    Kind.VERDICT: 3,
    Kind.HANDOVER: 3,
}


@pytest.fixture(autouse=True)
def zone(monkeypatch):
    monkeypatch.setenv("REGISTRY_LEGACY_TZ", "Europe/Berlin")
    monkeypatch.setenv("REGISTRY_RETIRE_SECONDS", "0")


def cli(capsys, *tokens):
    code = main([str(t) for t in tokens])
    out = capsys.readouterr().out
    return code, json.loads(out) if "--json" in tokens else out


def imported(capsys, place, workspace, *more):
    return cli(capsys, "import", place, "--workspace", workspace, "--json", *more)


def opened(workspace):
    return closing(open_store(load_settings(workspace)))


def files_of(folder):
    return {
        path: hashlib.blake2b(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("phase", [0, 2, 4])
def test_everything_is_there_once(tmp_path, capsys, schema, phase):
    """In each schema, into each phase: equal counts, a second run changes nothing, both stores
    agree, and the whole way back and forth holds; the database is untouched."""
    made(tmp_path, schema)
    if phase:
        assert cli(capsys, "switch", phase, "--json-is-truth", "--workspace", tmp_path)[0] == 0
    before = files_of(tmp_path / "registry")
    code, found = imported(capsys, tmp_path, tmp_path)
    assert (code, [t["notes"] for t in found["tasks"]]) == (0, [[], [], []])
    with opened(tmp_path) as store:
        assert store.counts().records == COUNTS
        revision = store.head(TASK).revision
        task = store.load(TASK)
    assert [p.status for p in task.phases] == [PhaseStatus.APPROVED, PhaseStatus.IN_REVIEW]
    assert {str(a.status) for a in task.agents} == {
        *("completed", "running", "failed", "working", "terminated")
    }
    assert task.status is TaskStatus.ACTIVE
    assert task.task.workspace == (str(tmp_path / TASK) if phase < 4 else task.task.workspace)
    assert task.task.max_agents == 50
    assert task.agents[0].started_at.isoformat() == "2026-02-03T09:01:00.250000+00:00"
    assert task.verdicts[0].reviewer_id == task.reviews[0].reviewers[0] == "worker-100000-0"
    assert task.handovers[0].key_findings == ("one", "two")
    kept = json_text.parse(task.task.extra.encode())
    assert [row["child_agent_id"] for row in kept["legacy_agent_hierarchy"]] == ["y"]
    code, found = imported(capsys, tmp_path, tmp_path)
    assert code == 0
    assert all(not t["put"] + t["appended"] and not t["changes"] for t in found["tasks"])
    with opened(tmp_path) as store:
        assert store.head(TASK).revision == revision
    assert {p: h for p, h in files_of(tmp_path / "registry").items() if p in before} == {
        p: h for p, h in before.items() if p.exists()
    }
    for to in (1, 2, 3, 4, 0):
        assert cli(capsys, "switch", to, "--json-is-truth", "--workspace", tmp_path)[0] == 0
        with opened(tmp_path) as store:
            assert store.counts().records == COUNTS
    with closing(open_migration(load_settings(tmp_path))) as migration:
        migration.switch(MigrationPhase(1), actor="test", json_is_truth=True)
        assert migration.verify().mismatches == ()


def test_a_dry_run_names_each_field_and_changes_nothing(tmp_path, capsys):
    made(tmp_path)
    before = files_of(tmp_path)
    code, found = imported(capsys, tmp_path, tmp_path, "--dry-run")
    assert code == 0
    assert {k: h for k, h in files_of(tmp_path).items() if k in before} == before
    changes = {(c["record"], c["field"]): c for c in found["tasks"][0]["changes"]}
    assert changes[f"task {TASK}", "description"]["before"] == "look-alike"
    assert changes[f"task {TASK}", "description"]["after"] == "task 0"
    assert (
        cli(capsys, "import", tmp_path, "--workspace", tmp_path, "--dry-run")[1].count(
            "description: look-alike -> task"
        )
        == 3
    )


def test_what_happened_here_since_stays(tmp_path, capsys):
    """An agent that reported here after the database was written keeps its state, when the database
    changes and is imported again; what is new in the database is taken."""
    made(tmp_path, tasks=1)
    assert imported(capsys, tmp_path, tmp_path)[0] == 0
    with opened(tmp_path) as store:
        found = store.load(TASK)
        agent = replace(
            found.agent("worker-100001-0"),
            status=AgentStatus.COMPLETED,
            last_update=build.later(9e6),
        )
        build.put(store, agent, expected=found.revision)
    with closing(sqlite3.connect(tmp_path / "registry" / "state.sqlite3")) as database:
        database.execute("UPDATE agents SET progress = 77")
        database.execute("UPDATE agents SET last_update = '2026-02-03T11:00:00'")
        insert(
            database,
            "agent_findings",
            task_id=TASK,
            agent_id="worker-100000-0",
            message="later",
            created_at="2026-02-03T11:00:00",
        )
        database.commit()
    code, found = imported(capsys, tmp_path, tmp_path)
    assert code == 0
    assert found["tasks"][0]["notes"] == ["agent worker-100001-0 stays: it has reported here since"]
    assert found["tasks"][0]["appended"] == 1
    with opened(tmp_path) as store:
        task = store.load(TASK)
    assert task.agent("worker-100001-0").status is AgentStatus.COMPLETED
    assert [a.progress for a in task.agents if a.agent_id != "worker-100001-0"] == [77] * 4


def test_a_log_that_is_not_copied_is_part_of_it(tmp_path, capsys):
    """What is only in the write-ahead log is imported, while the legacy system has it open."""
    with closing(open_database(tmp_path, "rounds")) as database:
        database.execute("PRAGMA wal_autocheckpoint=0")
        fill(database, tmp_path)
        assert (tmp_path / "registry" / "state.sqlite3-wal").stat().st_size > 100_000
        assert imported(capsys, tmp_path, tmp_path)[0] == 0
        with opened(tmp_path) as store:
            assert store.counts().records == COUNTS
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_while_the_legacy_system_writes(tmp_path, capsys):
    """Each copy is of one moment: an agent never is without its report, written with it."""
    made(tmp_path, tasks=1)
    stop = threading.Event()

    def write():
        with closing(
            sqlite3.connect(tmp_path / "registry" / "state.sqlite3", isolation_level=None)
        ) as database:
            n = 0
            while not stop.wait(0.05):
                n += 1
                database.execute("BEGIN IMMEDIATE")
                insert(database, "agents", agent_id=f"new-{n}", task_id=TASK, status="running")
                insert(
                    database,
                    "agent_progress_latest",
                    task_id=TASK,
                    agent_id=f"new-{n}",
                    timestamp="2026-02-03T12:00:00",
                    message="x",
                )
                database.execute("COMMIT")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(5):
            assert imported(capsys, tmp_path, tmp_path)[0] == 0
            with opened(tmp_path) as store:
                task = store.load(TASK)
                found = store.list_records(Kind.PROGRESS, limit=1000).items
            new = {a.agent_id for a in task.agents if a.agent_id.startswith("new-")}
            assert new == {e.agent_id for e in found if e.agent_id.startswith("new-")}
            time.sleep(0.2)
    finally:
        stop.set()
        thread.join()


def test_killed_at_any_moment(tmp_path, capsys):
    """A task is there whole or not at all, and the next import completes the rest."""
    chance = random.Random(7)
    tasks = 12
    made(tmp_path, tasks=tasks, documents=False)
    command = [sys.executable, "-m", "backends.admin", "import", str(tmp_path)]
    began = time.monotonic()
    whole = tmp_path.parent / "whole"
    whole.mkdir()
    assert subprocess.run([*command, "--workspace", whole], check=False).returncode == 0
    took = time.monotonic() - began
    for n in range(times(6, proof=60)):
        target = tmp_path.parent / f"target-{n}"
        target.mkdir()
        process = subprocess.Popen(
            [*command, "--workspace", target], stdout=subprocess.DEVNULL, env=os.environ
        )
        time.sleep(chance.uniform(0.3, 1.0) * took)
        process.kill()
        process.wait()
        with opened(target) as store:
            for found in store.list_tasks(limit=100).items:
                task = store.load(found.task_id)
                sizes = tuple(map(len, (task.phases, task.agents, task.reviews, task.handovers)))
                assert sizes == (2, 5, 1, 1)
        assert imported(capsys, tmp_path, target)[0] == 0
        with opened(target) as store:
            assert store.counts().total_tasks == tasks
            assert store.counts().records[Kind.FINDING] == 5 * tasks


def test_odd_rows_are_named_and_stop_nothing(tmp_path, capsys):
    """Values of any type, missing times and ids, unknown tables, a task that no store takes."""
    made(tmp_path, tasks=1)
    with closing(sqlite3.connect(tmp_path / "registry" / "state.sqlite3")) as database:
        insert(database, "tasks", task_id="../../evil", description="x")
        insert(database, "tasks", task_id="T-odd", description=b"\x00\xff", status=7, created_at=1)
        insert(database, "agents", agent_id="a/b", task_id="T-odd")
        insert(database, "agents", agent_id="a", task_id="T-odd", status="banana", progress="55")
        insert(database, "agent_findings", task_id="T-odd", agent_id="a", message="no time")
        insert(database, "phases", task_id="T-odd", phase_index=0, status="???", deliverables="{")
        database.execute('CREATE TABLE "o""dd" (task_id TEXT, x BLOB)')
        insert(database, '"o""dd"', task_id="T-odd", x=b"1")
        database.commit()
    code, found = imported(capsys, tmp_path, tmp_path)
    tasks = {t["task_id"]: t for t in found["tasks"]}
    assert code == 1
    assert "error" in tasks["../../evil"]
    assert "error" not in tasks[TASK]
    odd = tasks["T-odd"]
    assert any("no time" in note for note in odd["notes"])
    assert any("a/b" in note for note in odd["notes"])
    with opened(tmp_path) as store:
        task = store.load("T-odd")
    assert task.agent("a").status is AgentStatus.UNKNOWN
    assert "legacy_o" in task.task.extra


def change(workspace, *statements):
    with closing(sqlite3.connect(workspace / "registry" / "state.sqlite3")) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def test_what_was_decided_here_stays(tmp_path, capsys):
    """A second import takes only records that have changed there, and takes no approval back."""
    made(tmp_path, tasks=1)
    assert imported(capsys, tmp_path, tmp_path)[0] == 0
    with opened(tmp_path) as store:
        found = store.load(TASK)
        phase = replace(found.phases[1], status=PhaseStatus.APPROVED)
        task = replace(found.task, max_agents=7, context='{"mine":1}', description="ours")
        build.put(store, phase, task, expected=found.revision)
    change(tmp_path, "UPDATE agents SET progress = 99, last_update = '2026-02-03T11:00:00'")
    assert imported(capsys, tmp_path, tmp_path)[0] == 0
    with opened(tmp_path) as store:
        found = store.load(TASK)
    assert found.phases[1].status is PhaseStatus.APPROVED
    assert (found.task.max_agents, found.task.description) == (7, "ours")
    assert {a.progress for a in found.agents} == {99}
    change(tmp_path, "UPDATE phases SET status = 'ACTIVE', name = 'new'")
    code, said = imported(capsys, tmp_path, tmp_path)
    assert code == 0
    assert "phase 1 stays: it is approved here" in said["tasks"][0]["notes"]


def test_a_later_report_of_a_known_agent_is_taken(tmp_path, capsys):
    """The database holds only the last one, so each import may bring another."""
    made(tmp_path, tasks=1, documents=False)
    workspace = tmp_path / "target"
    workspace.mkdir()
    assert imported(capsys, tmp_path, workspace)[0] == 0
    change(
        tmp_path,
        "UPDATE agent_progress_latest SET message = 'newer', timestamp = '2026-02-03T12:00:00'",
    )
    assert imported(capsys, tmp_path, workspace)[1]["tasks"][0]["appended"] == 5
    with opened(workspace) as store:
        assert len(store.list_records(Kind.PROGRESS, limit=100).items) == 10


def test_what_the_database_does_not_know_replaces_nothing(tmp_path, capsys):
    """NULL and defaults are no values; an agent that has ended here stays."""
    made(tmp_path, tasks=1)
    with opened(tmp_path) as store:
        found = store.load(TASK)
        agent = build.agent(
            TASK, "worker-100001-0", status=AgentStatus.COMPLETED, progress=80, started_at=None
        )
        build.put(store, agent, replace(found.task, priority="P0"), expected=found.revision)
    change(tmp_path, "UPDATE agents SET status = NULL, progress = NULL, last_update = NULL",
           "UPDATE tasks SET priority = NULL")  # fmt: skip
    assert imported(capsys, tmp_path, tmp_path)[0] == 0
    with opened(tmp_path) as store:
        found = store.load(TASK)
    agent = found.agent("worker-100001-0")
    assert (agent.status, agent.progress) == (AgentStatus.COMPLETED, 80)
    assert found.task.priority == "P0"


def test_a_finding_is_no_report(tmp_path, capsys):
    """Of the same agent, message and time both are kept."""
    made(tmp_path, tasks=1)
    change(tmp_path, "UPDATE agent_findings SET message = 'report ' || substr(agent_id, 13, 1)",
           "UPDATE agent_findings SET created_at = (SELECT timestamp FROM agent_progress_latest p "
           "WHERE p.agent_id = agent_findings.agent_id)")  # fmt: skip
    assert imported(capsys, tmp_path, tmp_path)[0] == 0
    with opened(tmp_path) as store:
        assert store.counts().records[Kind.FINDING] == 5


@pytest.mark.parametrize("column", ["deliverables", "findings", "tracked_files", "data"])
@pytest.mark.parametrize("value", ['["\\ud800"]', "[" + "9" * 40 + "]", "[" * 5000, "\ud800"])
def test_odd_json_spoils_one_task_at_most(tmp_path, capsys, column, value):
    """The others are imported, and the answer is JSON."""
    made(tmp_path)
    table = {
        "deliverables": "phases",
        "findings": "review_verdicts",
        "tracked_files": "agents",
        "data": "agent_findings",
    }[column]
    with closing(sqlite3.connect(tmp_path / "registry" / "state.sqlite3")) as database:
        text = value.encode("utf-8", "surrogatepass")
        database.execute(
            f"UPDATE {table} SET {column} = CAST(? AS TEXT) WHERE task_id LIKE '%01'", (text,)
        )
        database.commit()
    _, found = imported(capsys, tmp_path, tmp_path)
    with opened(tmp_path) as store:
        assert store.load(TASK).agents
        assert store.load("TASK-20260203-100002-abcdef02").agents
    assert len(found["tasks"]) == 3


def test_a_transaction_that_is_under_way_is_not_imported(tmp_path, capsys):
    """With a rollback journal the file holds changes that are not committed; the copy undoes
    them."""
    made(tmp_path, tasks=1)
    path = tmp_path / "registry" / "state.sqlite3"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode=DELETE")
        for n in range(1500):
            insert(database, "agents", agent_id=f"more-{n}", task_id=TASK, status="running")
        database.execute("PRAGMA cache_size=10")
        database.execute("BEGIN IMMEDIATE")
        database.execute("UPDATE agents SET progress = 99, type = 'uncommitted'")
        assert path.with_name("state.sqlite3-journal").stat().st_size > 0
        assert imported(capsys, tmp_path, tmp_path)[0] == 0
        database.execute("ROLLBACK")
    with opened(tmp_path) as store:
        agents = store.load(TASK).agents
    assert len(agents) == 1505
    assert "uncommitted" not in {a.type for a in agents}


def test_a_linked_database_has_its_log(tmp_path, capsys):
    """SQLite keeps the log beside the file that the link leads to."""
    real = tmp_path / "real"
    with closing(open_database(real, "rounds")) as database:
        database.execute("PRAGMA wal_autocheckpoint=0")
        fill(database, real, documents=False)
        place = tmp_path / "linked"
        place.mkdir()
        (place / "state.sqlite3").symlink_to(real / "registry" / "state.sqlite3")
        workspace = tmp_path / "workspace"
        workspace.mkdir()
        assert imported(capsys, place, workspace)[0] == 0
        with opened(workspace) as store:
            assert store.counts().total_tasks == 3


def test_more_entries_than_a_commit_holds(tmp_path, capsys):
    """They come in further commits, and a second import adds none."""
    made(tmp_path, tasks=1, documents=False)
    with closing(sqlite3.connect(tmp_path / "registry" / "state.sqlite3")) as database:
        rows = [(TASK, "worker-100000-0", f"m{n}", "2026-02-03T10:00:00") for n in range(12_000)]
        database.executemany(
            "INSERT INTO agent_findings (task_id, agent_id, message, created_at) "
            "VALUES (?, ?, ?, ?)",
            rows,
        )
        database.commit()
    workspace = tmp_path / "target"
    workspace.mkdir()
    assert imported(capsys, tmp_path, workspace)[1]["tasks"][0]["appended"] == 12_010
    with opened(workspace) as store:
        assert store.counts().records[Kind.FINDING] == 12_005
    assert imported(capsys, tmp_path, workspace)[1]["tasks"][0]["appended"] == 0


def test_rows_that_belong_nowhere_are_told(tmp_path, capsys):
    """Of unknown tasks, with a number as id, in a table of another case; unknown columns stay."""
    made(tmp_path, tasks=1)
    change(
        tmp_path,
        "INSERT INTO agents (agent_id, task_id) VALUES ('lost', 'nobody')",
        "INSERT INTO tasks (task_id, description) VALUES (77, 'a number')",
        "INSERT INTO agents (agent_id, task_id) VALUES ('a', 77)",
        "ALTER TABLE phases ADD COLUMN mood TEXT",
        "UPDATE phases SET mood = 'MARKED'",
        "ALTER TABLE handovers ADD COLUMN mood TEXT",
        "UPDATE handovers SET mood = 'MARKED'",
        "UPDATE reviews SET retry_count = 4",
        "INSERT INTO tasks (description) VALUES ('without an id')",
        "ALTER TABLE tasks RENAME TO x",
        "ALTER TABLE x RENAME TO Tasks",
    )
    code, found = imported(capsys, tmp_path, tmp_path)
    assert code == 0
    assert "rows of tasks that are not in the database, not taken: 2" in found["tasks"][0]["notes"]
    with opened(tmp_path) as store:
        assert len(store.load("77").agents) == 1
        task = store.load(TASK)
        assert "MARKED" in task.phases[0].extra
        assert "MARKED" in task.handovers[0].extra
        assert '"legacy_retry_count":4' in task.reviews[0].extra
        assert store.counts().total_tasks == 2


def test_what_is_printed_steers_no_terminal(tmp_path, capsys):
    made(tmp_path, tasks=1)
    change(tmp_path, "UPDATE tasks SET description = char(27) || '[31mred' || char(10) || 'T: x'")
    out = cli(capsys, "import", tmp_path, "--workspace", tmp_path)[1]
    assert "\x1b" not in out
    assert "\nT: x" not in out


@pytest.mark.parametrize("what", ["nothing", "text", "other", "damaged", "link", "pipe"])
def test_another_place_is_refused(tmp_path, capsys, what):
    """With what to do, and nothing is made."""
    place = tmp_path / "place"
    place.mkdir()
    path = place / "state.sqlite3"
    if what == "text":
        path.write_text("x" * 100)
    elif what == "other":
        with closing(sqlite3.connect(path)) as database:
            database.execute("CREATE TABLE x (y)")
    elif what == "damaged":
        path.write_bytes(b"SQLite format 3\0" + b"x" * 9000)
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "link":
        path.symlink_to("nowhere")
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    code, found = imported(capsys, place, workspace)
    assert code in {1, 2}
    assert found["error"]["next"]
    assert cli(capsys, "import", place, "--reader", "nobody", "--json")[0] == 2
