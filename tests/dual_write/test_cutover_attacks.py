"""Phases 3 and 4 when something goes wrong: lost, damaged or unexpected files are reported and
never ignored, and the rollback brings back every record."""

import contextlib
import itertools
import json
import os
import shutil
import threading
from contextlib import closing
from datetime import UTC, datetime

import pytest

from backends.admin.cli import main
from backends.dual_write.steps import cutover, rollback, sync
from backends.json_files.migration import retirement
from backends.json_files.migration_source import JsonMigrationSource
from backends.json_files.task import replica
from backends.json_files.task.replica import TaskReplica
from backends.json_files.task.workspace_state import Shared
from backends.jsonl.store import LoggedStore
from contract_tests import build
from registry_api import (
    Kind,
    Reconciled,
    RecordQuery,
    all_records,
    load_settings,
    open_migration,
    open_store,
)
from registry_api.errors import BackendMismatch, RegistryError
from registry_api.migration import MigrationPhase, PhaseFile
from tests import legacy

ENV = {"REGISTRY_RETIRE_SECONDS": "0", "REGISTRY_DURABLE": "0"}


def opened(workspace, **env):
    return open_store(load_settings(workspace, env=ENV | env))


def moved(workspace, **env):
    return closing(open_migration(load_settings(workspace, env=ENV | env)))


def switch(workspace, phase, *, env=None, **options):
    with moved(workspace, **(env or {})) as migration:
        return migration.switch(MigrationPhase(phase), actor="test", **options)


def mismatches(workspace):
    with moved(workspace) as migration:
        return migration.verify().mismatches


def status(workspace):
    with moved(workspace) as migration:
        return migration.status()


def cli(capsys, *tokens):
    code = main([str(t) for t in tokens])
    return code, json.loads(capsys.readouterr().out)


def document(workspace, task):
    return workspace / task / "AGENT_REGISTRY.json"


def overwrite(path, text):
    path.chmod(0o644)
    path.write_text(text)


def messages(workspace, task):
    with closing(opened(workspace)) as store:
        records = all_records(store, Kind.PROGRESS, RecordQuery(task_id=task))
        return sorted(r.message for r in records)


def report(workspace, message, **env):
    with closing(opened(workspace, **env)) as store:
        build.put(store, build.report("TASK-1", "a1", message=message), expected=None)


def foreign_line(workspace, message):
    path = workspace / "TASK-1" / "progress" / "a1_progress.jsonl"
    entry = {"timestamp": "2026-01-05T10:00:00", "agent_id": "a1", "status": "working"}
    with path.open("a") as file:
        file.write(json.dumps(entry | {"message": message, "progress": 5}) + "\n")


@pytest.fixture
def workspace(tmp_path):
    for n in range(3):
        agents = [{"id": f"a{n}", "type": "x", "status": "running", "progress": 1}]
        legacy.write_task(tmp_path, f"TASK-{n}", agents=agents, own_key={"b": 1, "a": 2})
    return tmp_path


class Killed(BaseException):
    """Represents a kill: no code of ours handles it as an error."""


def die(*_, **__):
    raise Killed


# -- the target ------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [3, 4])
def test_a_lost_target_is_not_started_from_scratch(workspace, capsys, phase):
    """With the target's file missing in phase 3 or 4, opening is refused and every command says so;
    with the file restored, every record is there."""
    switch(workspace, phase)
    report(workspace, "later")
    aside = workspace / "aside"
    aside.mkdir()
    files = list((workspace / ".registry").glob("registry.sqlite3*"))
    for path in files:
        path.rename(aside / path.name)
    with pytest.raises(BackendMismatch, match="restore it from a backup"):
        report(workspace, "into nothing")
    for verb in ("status", "verify", "reconcile"):
        code, found = cli(capsys, verb, "--json", "--workspace", workspace)
        assert (code, found["error"]["code"]) == (1, "backend_mismatch")
    with pytest.raises(BackendMismatch):
        switch(workspace, phase - 1)
    for path in files:
        path.unlink(missing_ok=True)
    for path in aside.iterdir():
        path.rename(workspace / ".registry" / path.name)
    assert messages(workspace, "TASK-1") == ["later"]


# -- an interrupted switch -------------------------------------------------------------------


@pytest.fixture
def half_removed(workspace, monkeypatch):
    """A workspace whose switch to 4 was killed before the first document was removed."""
    switch(workspace, 3)
    with monkeypatch.context() as patch:
        patch.setattr(JsonMigrationSource, "retire", die)
        with pytest.raises(Killed):
            switch(workspace, 4)
    return workspace


def test_an_archive_damaged_before_the_removal_stops_nobody(half_removed, caplog):
    """With a damaged archive no document is removed, the log says so, and the store and later
    switches go on; the next switch to 4 makes another archive."""
    archive = next((half_removed / ".registry" / "archive").iterdir())
    archive.write_bytes(b"damaged")
    report(half_removed, "later")
    assert "nothing was removed" in caplog.text
    assert len(list(half_removed.glob("TASK-*/AGENT_REGISTRY.json"))) == 3
    switch(half_removed, 3)
    switch(half_removed, 4)
    assert list(half_removed.glob("TASK-*/AGENT_REGISTRY.json")) == []
    assert mismatches(half_removed) == ()
    switch(half_removed, 0)
    assert messages(half_removed, "TASK-1") == ["later"]


def test_a_removal_that_cannot_be_finished_stops_nobody(half_removed, caplog):
    """With a file in place of the folder for removed documents, opening warns and goes on; once the
    file is gone, recover finishes the removal."""
    (half_removed / ".registry" / "retired").write_text("in the way")
    report(half_removed, "later")
    assert "not finished" in caplog.text
    (half_removed / ".registry" / "retired").unlink()
    with moved(half_removed) as migration:
        migration.recover()
    assert list(half_removed.glob("TASK-*/AGENT_REGISTRY.json")) == []


@pytest.mark.parametrize("left", [b"", b'{"before":2,"aft'])
def test_frozen_documents_are_thawed_though_the_switchs_file_is_empty(workspace, monkeypatch, left):
    """Documents left frozen by a killed switch become writable when the registry is opened, even if
    a power loss emptied switch.json."""
    switch(workspace, 2)
    with monkeypatch.context() as patch:
        patch.setattr(PhaseFile, "advance", die)
        patch.setattr(cutover.CutOver, "undo", die)
        with pytest.raises(Killed):
            switch(workspace, 3)
    documents = list(workspace.glob("TASK-*/AGENT_REGISTRY.json"))
    assert {p.stat().st_mode & 0o777 for p in documents} == {0o444}
    (workspace / ".registry" / "switch.json").write_bytes(left)
    report(workspace, "goes on")
    assert {p.stat().st_mode & 0o777 for p in documents} == {0o644}
    assert status(workspace).record.phase == 2


# -- late writes -----------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["TASK-1/AGENT_REGISTRY.json", "registry/GLOBAL_REGISTRY.json"])
def test_a_late_write_is_reported_though_a_kill_came_before_its_report(
    workspace, monkeypatch, place
):
    """A late write kept just before a kill gets its report at the next read, and no second copy."""
    (workspace / "registry").mkdir()
    (workspace / "registry" / "GLOBAL_REGISTRY.json").write_text("{}")
    switch(workspace, 3)
    overwrite(workspace / place, '{"task_id": "TASK-1", "agents": []}')
    replace_file = Shared.replace_file

    def killed(self, path, data):
        return die() if path.suffix == ".report" else replace_file(self, path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Shared, "replace_file", killed)
        with pytest.raises(Killed):
            status(workspace)
    assert len(status(workspace).late_writes) == 1
    assert len(list((workspace / ".registry" / "conflicts").iterdir())) == 2


def test_a_late_write_to_the_list_of_tasks_is_reported(workspace, monkeypatch):
    """A write to the renamed list of tasks by a program that still had it open is reported."""
    path = workspace / "registry" / "GLOBAL_REGISTRY.json"
    path.parent.mkdir()
    path.write_text("{}")
    late = path.open("r+")
    switch(workspace, 3)

    def write(*_, **__):
        late.write('{"late": true}')
        late.close()
        return set()

    monkeypatch.setattr(retirement, "wait_until_released", write)
    notes = switch(workspace, 4, force="a test").notes
    assert [n.partition(", kept")[0] for n in notes] == [
        "the list of tasks: a late write after archiving"
    ]
    assert len(status(workspace).late_writes) == 1


def test_a_lost_journal_is_not_a_late_write(workspace):
    """A journal lost in phase 3 is not reported as a late write, since no program wrote the
    document; the rollback makes a new journal from the target."""
    report(workspace, "before")
    switch(workspace, 3)
    (workspace / ".registry" / "json" / "TASK-1.journal").unlink()
    assert status(workspace).late_writes == ()
    report(workspace, "meanwhile")
    switch(workspace, 2)
    assert not (workspace / ".registry" / "conflicts").exists()
    assert mismatches(workspace) == ()
    switch(workspace, 0)
    assert messages(workspace, "TASK-1") == ["before", "meanwhile"]


def test_no_link_is_followed_to_where_late_writes_are_kept(workspace, tmp_path_factory):
    """With a symbolic link in place of the conflicts folder, nothing is written through it, the
    document stays as the other program wrote it, and status says why."""
    switch(workspace, 3)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.rmtree(workspace / ".registry" / "conflicts", ignore_errors=True)
    (workspace / ".registry" / "conflicts").symlink_to(elsewhere)
    (workspace / "registry").mkdir(exist_ok=True)
    (workspace / "registry" / "GLOBAL_REGISTRY.json").write_text("{}")
    overwrite(document(workspace, "TASK-1"), "{}")
    assert "a symbolic link in place of our folder" in " ".join(status(workspace).notes)
    assert list(elsewhere.iterdir()) == []
    assert document(workspace, "TASK-1").read_text() == "{}"


# -- answers of commands ---------------------------------------------------------------------


@pytest.mark.parametrize("phase", [3, 4])
def test_diff_after_the_cut_over(workspace, capsys, phase):
    """After the cut-over diff still compares the document, and an unknown task is an error."""
    switch(workspace, phase)
    report(workspace, "later")
    code, found = cli(capsys, "diff", "TASK-1", "--json", "--workspace", workspace)
    (difference,) = found["mismatches"]
    assert (code, difference["source"], difference["target"]) == (3, 1, 2)
    code, found = cli(capsys, "diff", "TASK-none", "--json", "--workspace", workspace)
    assert (code, found["error"]["code"]) == (1, "task_not_found")


def test_doctor_names_late_writes_in_phase_4(workspace, capsys):
    """Doctor names a late write even when the registry that another program made is gone again."""
    switch(workspace, 4)
    legacy.write_task(workspace, "TASK-late", agents=[])
    assert status(workspace).late_writes
    shutil.rmtree(workspace / "TASK-late")
    code, found = cli(capsys, "doctor", "--json", "--workspace", workspace)
    assert code == 3
    assert "conflicts" in next(i["next"] for i in found["issues"] if i["check"] == "files")


# -- rollback --------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["document", "folder"])
def test_a_document_removed_while_frozen_comes_back(workspace, what):
    """A document or task folder removed while frozen comes back in the step from 3 to 2, with its
    own keys and history, and the task can be written."""
    report(workspace, "before")
    switch(workspace, 3)
    report(workspace, "meanwhile")
    if what == "document":
        document(workspace, "TASK-1").unlink()
    else:
        shutil.rmtree(workspace / "TASK-1")
    assert mismatches(workspace) == ()  # a user tidied up: the target has the records
    switch(workspace, 2)
    assert mismatches(workspace) == ()
    switch(workspace, 0)
    report(workspace, "after")
    assert messages(workspace, "TASK-1") == ["after", "before", "meanwhile"]
    assert json.loads(document(workspace, "TASK-1").read_bytes())["own_key"] == {"b": 1, "a": 2}


def test_rollback_while_a_program_keeps_writing(workspace):
    """While a program keeps writing to frozen documents, each switch succeeds, and every write of
    that program is in the registry or kept with a report."""
    path, stop, written = document(workspace, "TASK-1"), threading.Event(), []
    switch(workspace, 2)

    def write():
        for n in itertools.count():
            if stop.wait(0.005):
                return
            with contextlib.suppress(PermissionError):  # frozen, and we are not root
                legacy.edit(path, legacy.add_agent(f"theirs-{n}"))
                written.append(f"theirs-{n}")

    program = threading.Thread(target=write)
    program.start()
    try:
        for phase in (3, 2, 3, 2):
            switch(workspace, phase, timeout=30.0)
    finally:
        stop.set()
        program.join()
    with closing(opened(workspace)) as store:
        known = {a.agent_id for a in store.load("TASK-1").agents}
    kept = "".join(p.read_text() for p in (workspace / ".registry").glob("conflicts/*"))
    assert [name for name in written if name not in known and f'"{name}"' not in kept] == []
    assert mismatches(workspace) == ()


@pytest.mark.parametrize("read", [True, False])
def test_an_edit_after_the_freeze_and_the_comparison(workspace, monkeypatch, read):
    """An edit after the comparison under the gate reaches the target, absorbed by a read or not."""
    path, settle = document(workspace, "TASK-1"), sync.settle

    def edited(replicator, moved, seen):
        caught_up = settle(replicator, moved, seen)
        path.chmod(0o644)
        legacy.edit(path, legacy.add_agent("late"))
        path.chmod(0o444)
        if read:
            replicator.source.head("TASK-1")
        return caught_up

    switch(workspace, 2)
    monkeypatch.setattr(sync, "settle", edited)
    switch(workspace, 3)
    monkeypatch.undo()
    with closing(opened(workspace)) as store:
        assert "late" in [a.agent_id for a in store.load("TASK-1").agents]
    switch(workspace, 2)
    assert mismatches(workspace) == ()


@pytest.mark.parametrize("odd", ["folder", "link", "pipe"])
def test_something_odd_in_place_of_a_frozen_document(workspace, capsys, odd):
    """With a folder, a link or a pipe in place of a frozen document, verify names it, both switches
    refuse and nothing is written through it; once it is removed, the rollback restores the
    document."""
    switch(workspace, 3)
    path, elsewhere = document(workspace, "TASK-1"), workspace / "elsewhere"
    elsewhere.write_text("theirs")
    path.unlink()
    {
        "folder": path.mkdir,
        "link": lambda: path.symlink_to(elsewhere),
        "pipe": lambda: os.mkfifo(path),
    }[odd]()
    code, found = cli(capsys, "verify", "--json", "--workspace", workspace)
    assert (code, len(found["mismatches"])) == (3, 1)
    for phase in (4, 2):
        with pytest.raises(RegistryError, match="not a regular file"):
            switch(workspace, phase)
    assert elsewhere.read_text() == "theirs"
    path.rename(workspace / "moved-away")
    switch(workspace, 2)
    assert mismatches(workspace) == ()


@pytest.mark.parametrize("logs", ["jsonl", "off"])
def test_a_log_removed_in_phase_3_is_written_again_on_rollback(workspace, logs):
    """The rollback restores a removed log from the target, with each line once."""
    report(workspace, "ours")
    foreign_line(workspace, "theirs")
    switch(workspace, 3, env={"REGISTRY_LOGS": logs})
    (workspace / "TASK-1" / "progress" / "a1_progress.jsonl").unlink()
    for phase in (2, 3, 0):
        switch(workspace, phase, env={"REGISTRY_LOGS": logs})
        assert messages(workspace, "TASK-1") == ["ours", "theirs"]
        assert mismatches(workspace) == ()


@pytest.mark.parametrize("ending", ["appended", "never"])
def test_a_line_under_way_is_not_written_by_the_rollback_as_well(workspace, monkeypatch, ending):
    """A step back that copies a change whose writer has not appended its line yet waits a moment
    for it; once, both wrote it. A writer that died is not awaited for long."""
    switch(workspace, 3)
    committed, go_on, asked = threading.Event(), threading.Event(), itertools.count(1)
    append, look = LoggedStore._append, TaskReplica._not_logged

    def slowly(self, record, changeset):
        committed.set()
        assert go_on.wait(60)
        return append(self, record, changeset) if ending == "appended" else False

    def looked(self, records):
        if records and next(asked) == 3:
            go_on.set()
        return look(self, records)

    monkeypatch.setattr(LoggedStore, "_append", slowly)
    monkeypatch.setattr(TaskReplica, "_not_logged", looked)
    if ending == "appended":
        monkeypatch.setattr(replica, "_AWAITED", 60.0)
    said = build.report("TASK-1", "a1", message="under way", timestamp=datetime.now(UTC))

    def write():
        with closing(opened(workspace)) as store:
            build.put(store, said, expected=None)

    writer = threading.Thread(target=write)
    writer.start()
    assert committed.wait(60)
    switch(workspace, 2)
    writer.join()
    log = workspace / "TASK-1" / "progress" / "a1_progress.jsonl"
    assert log.read_text().count("under way") == 1
    assert messages(workspace, "TASK-1") == ["under way"]


def test_no_line_is_awaited_while_the_gate_is_held(workspace, monkeypatch):
    """The last part of a step back awaits nobody's line: no writer is inside the gate, and callers
    wait outside. A line that is missing is written."""
    switch(workspace, 3)
    final_sync = rollback.Rollback.final_sync
    said = build.report("TASK-1", "a1", message="the last", timestamp=datetime.now(UTC))

    def held(self):
        build.put(self.context.replicator.target, said, expected=None)  # and its writer dies
        monkeypatch.setattr(TaskReplica, "_awaited", die)
        return final_sync(self)

    monkeypatch.setattr(rollback.Rollback, "final_sync", held)
    switch(workspace, 2)
    log = workspace / "TASK-1" / "progress" / "a1_progress.jsonl"
    assert log.read_text().count("the last") == 1
    assert messages(workspace, "TASK-1") == ["the last"]


@pytest.mark.parametrize("logs", ["jsonl", "off"])
def test_foreign_lines_that_were_not_imported(workspace, logs):
    """Lines appended by other programs between ours in phase 3 are in the history exactly once."""
    switch(workspace, 3)
    foreign_line(workspace, "1 theirs")
    report(workspace, "2 ours", REGISTRY_LOGS=logs)
    foreign_line(workspace, "3 theirs")
    for phase in (2, 3, 0):
        switch(workspace, phase, env={"REGISTRY_LOGS": logs})
        assert messages(workspace, "TASK-1") == ["1 theirs", "2 ours", "3 theirs"]
        assert mismatches(workspace) == ()


def test_a_log_moved_to_the_archive_folder_between_two_reconciles(workspace):
    """A log moved to archive/ in phase 3 is imported once, and comes back once on rollback."""
    switch(workspace, 3)
    foreign_line(workspace, "theirs")
    report(workspace, "ours")
    with moved(workspace) as migration:
        assert migration.reconcile(dry_run=True) == migration.reconcile() == Reconciled(taken=1)
    folder = workspace / "TASK-1"
    (folder / "archive").mkdir()
    (folder / "progress" / "a1_progress.jsonl").rename(folder / "archive" / "a1_progress.jsonl")
    with moved(workspace) as migration:
        assert migration.reconcile() == Reconciled()
    report(workspace, "ours, later")
    for phase in (2, 3, 0):
        switch(workspace, phase)
        assert messages(workspace, "TASK-1") == ["ours", "ours, later", "theirs"]
        assert mismatches(workspace) == ()


def test_files_that_are_not_registries_stay_in_place(workspace):
    """A document that does not parse, and a document of another kind of program, stay where they
    are and as they are."""
    odd = {"TASK-1": "not json{", "TASK-other": '{"hello": 1}'}
    for task, text in odd.items():
        (workspace / task).mkdir(exist_ok=True)
        document(workspace, task).write_text(text)
        os.utime(document(workspace, task), (1.7e9, 1.7e9))
    switch(workspace, 4, leave_unreadable=True)
    left = {p.parent.name for p in workspace.glob("*/AGENT_REGISTRY.json")}
    assert left == set(odd)
    switch(workspace, 0)
    assert {t: document(workspace, t).read_text() for t in odd} == odd


@pytest.mark.parametrize("lost", ["folder", "templates", "state"])
def test_rollback_from_4_with_files_missing(workspace, lost):
    """Without the task's folder, the templates or the json store's whole state, the rollback from 4
    restores each document with its own keys in their order."""
    before = {t: document(workspace, t).read_bytes() for t in ("TASK-0", "TASK-1", "TASK-2")}
    switch(workspace, 4)
    if lost == "folder":
        shutil.rmtree(workspace / "TASK-1")
    elif lost == "templates":
        for path in (workspace / ".registry" / "json").glob("*.base"):
            path.unlink()
    else:
        shutil.rmtree(workspace / ".registry" / "json")
    switch(workspace, 2)
    assert mismatches(workspace) == ()
    for task, data in before.items():
        assert list(json.loads(document(workspace, task).read_bytes())) == list(json.loads(data))


def test_a_document_that_vanished_before_the_cut_over(workspace, capsys):
    """The target takes over a task whose document vanished; the rollback restores the document."""
    switch(workspace, 2)
    document(workspace, "TASK-1").unlink()
    code, _ = cli(capsys, "switch", "3", "--json", "--timeout", "2", "--workspace", workspace)
    assert code == 0
    report(workspace, "later")
    switch(workspace, 2)
    assert document(workspace, "TASK-1").exists()
    assert mismatches(workspace) == ()
