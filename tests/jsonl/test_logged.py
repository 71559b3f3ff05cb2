"""backends.jsonl: the logs next to a store that is itself the record."""

import json
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from backends.jsonl.store import LoggedStore
from contract_tests import build
from registry_api import (
    Kind,
    Logged,
    ProgressEntry,
    Put,
    Reconciled,
    RecordQuery,
    errors,
    find_capability,
    load_settings,
    new_changeset,
    open_store,
)

LATER = datetime.now(UTC) + timedelta(minutes=1)


@pytest.fixture
def opened(tmp_path):
    """A function that opens the default store of an empty workspace with the given variables."""
    stores = []

    def open_it(now=None, **env):
        settings = load_settings(tmp_path, env=env)
        store = open_store(settings, **({"now": lambda: now} if now else {}))
        stores.append(store)
        return store

    yield open_it
    for store in stores:
        store.close()


def log_of(tmp_path, agent="a1", folder="progress"):
    return tmp_path / "t" / folder / f"{agent}_{folder}.jsonl"


def lines_of(path):
    return [json.loads(line) for line in path.read_bytes().splitlines() if line.strip()]


def messages(store):
    page = store.list_records(Kind.PROGRESS, RecordQuery(task_id="t"))
    return sorted(r.message for r in page.items if isinstance(r, ProgressEntry))


def test_each_report_and_finding_has_a_line_in_the_older_programs_keys(tmp_path, opened):
    """A commit to sqlite also writes log lines that legacy programs can read."""
    store = opened()
    build.make(store, "t", build.agent("t"))
    build.put(store, build.report("t", message="half", progress=50), expected=None)
    build.put(store, build.finding("t", message="leak"), expected=None)
    (line,) = lines_of(log_of(tmp_path))
    assert (line["agent_id"], line["message"], line["progress"]) == ("a1", "half", 50)
    (finding,) = lines_of(tmp_path / "t" / "findings" / "a1_findings.jsonl")
    assert finding["message"] == "leak"


def test_a_refused_commit_and_a_replay_leave_no_line(tmp_path, opened):
    """A line follows each commit: a refused commit and a replay write none."""
    store = opened()
    build.make(store, "t", build.agent("t"))
    change = new_changeset("t", [Put(build.report("t", message="once"))], expected=None)
    store.commit(change)
    assert store.commit(change).replayed
    with pytest.raises(errors.Conflict):
        build.put(store, build.report("t", message="refused"), expected=7)
    assert [line["message"] for line in lines_of(log_of(tmp_path))] == ["once"]


def test_logs_can_be_switched_off(tmp_path, opened):
    """With REGISTRY_LOGS=off the store is opened without logs."""
    store = opened(REGISTRY_LOGS="off")
    build.make(store, "t", build.agent("t"), build.report("t"))
    assert not (tmp_path / "t").exists()
    assert find_capability(store, Logged) is None


def test_a_log_that_cannot_be_written_never_fails_the_caller(tmp_path, opened, caplog):
    """The commit succeeds, a warning names ``reconcile``, and ``reconcile`` writes the missing
    line.
    """
    store = opened()
    build.make(store, "t", build.agent("t"))
    (tmp_path / "t").symlink_to(tmp_path / "elsewhere")
    build.put(store, build.report("t", message="kept"), expected=None)
    assert messages(store) == ["kept"]
    assert "registry-backend reconcile" in caplog.text
    assert not (tmp_path / "elsewhere").exists()
    (tmp_path / "t").unlink()
    later = opened(now=LATER)
    assert find_capability(later, Logged).reconcile(dry_run=True) == Reconciled(written=1)
    assert find_capability(later, Logged).reconcile() == Reconciled(written=1)
    assert find_capability(later, Logged).reconcile() == Reconciled()
    assert [line["message"] for line in lines_of(log_of(tmp_path))] == ["kept"]


def test_a_line_that_may_be_under_way_is_not_written_twice(tmp_path, opened):
    """``reconcile`` skips young entries: another process may be about to write their lines."""
    with closing(open_store(load_settings(tmp_path, env={"REGISTRY_LOGS": "off"}))) as bare:
        build.make(bare, "t", build.agent("t"))
        young = build.report("t", timestamp=datetime.now(UTC), message="under way")
        build.put(bare, young, expected=None)
    assert find_capability(opened(), Logged).reconcile() == Reconciled()


def test_foreign_lines_are_taken_in_once_wherever_they_lie(tmp_path, opened):
    """A legacy agent's line is imported as history and a sign of life, also from the archive."""
    store = opened()
    build.make(store, "t", build.agent("t"))
    log = log_of(tmp_path)
    log.parent.mkdir(parents=True)
    line = {"timestamp": "2031-01-01T10:00:00+00:00", "agent_id": "a1", "message": "theirs"}
    log.write_text(json.dumps(line) + "\nno json\n" + json.dumps({**line, "agent_id": "../x"}))
    logs = find_capability(store, Logged)
    assert logs.reconcile(dry_run=True) == Reconciled(taken=1)
    assert logs.reconcile() == Reconciled(taken=1)
    log.parent.with_name("archive").mkdir()
    log.rename(tmp_path / "t" / "archive" / log.name)
    assert logs.reconcile() == Reconciled()
    assert messages(store) == ["theirs"]
    assert store.load("t").agents[0].last_update == datetime(2031, 1, 1, 10, tzinfo=UTC)


def test_a_torn_foreign_tail_is_ended_before_our_line(tmp_path, opened):
    """Our line starts on a new line after a torn line of another program."""
    store = opened()
    build.make(store, "t", build.agent("t"))
    log = log_of(tmp_path)
    log.parent.mkdir(parents=True)
    log.write_bytes(b'{"torn')
    build.put(store, build.report("t", message="whole"), expected=None)
    torn, ours = log.read_bytes().splitlines()
    assert torn == b'{"torn'
    assert json.loads(ours)["message"] == "whole"


def test_lines_that_are_too_large_together_are_taken_in_one_by_one(tmp_path, opened):
    """Lines that exceed a changeset together are imported one by one; one that exceeds it alone is
    named and skipped.
    """
    store = opened()
    build.make(store, "t", build.agent("t"))
    log_of(tmp_path).parent.mkdir(parents=True, exist_ok=True)
    with log_of(tmp_path).open("a") as file:
        for size in (9, 9, 17, 1):
            entry = {"agent_id": "a1", "timestamp": "2026-01-04T22:15:30", "status": "working"}
            file.write(json.dumps(entry | {"message": "x" * (size * 2**20)}) + "\n")
    assert find_capability(store, Logged).reconcile() == Reconciled(taken=3, written=0)
    assert sorted(map(len, messages(store))) == [2**20, 9 * 2**20, 9 * 2**20]


def test_a_report_made_while_the_logs_are_read_is_not_written_twice(tmp_path, opened, monkeypatch):
    """Reading large logs may take longer than a writer takes to write its line."""
    moment = [LATER]
    store = opened()
    logged = find_capability(store, Logged)
    monkeypatch.setattr(logged, "_now", lambda: moment[0])
    build.make(store, "t", build.agent("t"))
    build.put(store, build.report("t", message="before"), expected=None)
    read = LoggedStore._inbox

    def slowly(self, task_id, kind):
        found = read(self, task_id, kind)
        if kind is Kind.PROGRESS:
            report = build.report("t", message="meanwhile")
            build.put(store, replace(report, timestamp=moment[0]), expected=None)
            moment[0] += timedelta(seconds=30)
        return found

    monkeypatch.setattr(LoggedStore, "_inbox", slowly)
    logged.reconcile()
    said = [line["message"] for line in lines_of(log_of(tmp_path))]
    assert said == ["before", "meanwhile"]
