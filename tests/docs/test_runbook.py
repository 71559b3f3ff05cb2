"""The table "When it goes wrong" of docs/operating.md: each row is covered by a test."""

import json
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from backends.admin.cli import main
from contract_tests import build
from registry_api import load_settings, open_store
from registry_api.errors import BackendMismatch
from tests import legacy

ROOT = Path(__file__).parents[2]

# How a row begins, and the test that creates its situation and follows its advice.
PLAYED = {
    'exit 4, "another switch is running"': (
        "dual_write/test_move.py",
        "test_two_switches_at_once",
    ),
    'exit 5, "the gate did': (
        "registry_api/test_gate.py",
        "test_a_time_out_says_for_how_long_and_for_whom",
    ),
    "commits take up to": (
        "dual_write/test_throttle.py",
        "test_a_copy_that_is_overtaken_slows_writers_down",
    ),
    'exit 5, "… is locked': (
        "dual_write/test_move.py",
        "test_a_document_that_stays_locked_stops_the_cut_over",
    ),
    "exit 6": (
        "dual_write/test_move.py",
        "test_the_legacy_systems_database_stops_a_switch",
    ),
    "exit 3 from": (
        "dual_write/test_move.py",
        "test_a_difference_stops_a_switch_and_is_named",
    ),
    "a difference that `reconcile`": (
        "docs/test_runbook.py",
        "test_a_target_that_was_written_by_hand",
    ),
    '"an interrupted switch': (
        "dual_write/test_switch_killed.py",
        "test_killed_at_every_write",
    ),
    '"the store is fenced"': (
        "dual_write/test_chain.py",
        "test_a_store_opened_around_the_gate_is_fenced",
    ),
    '"a switch … is under way, which': (
        "dual_write/test_chain.py",
        "test_a_store_fenced_by_a_dead_switch_is_free_after_recover",
    ),
    '"the target … is not empty"': (
        "dual_write/test_chain.py",
        "test_targets_that_are_refused",
    ),
    '"… is a copy of': (
        "dual_write/test_chain.py",
        "test_a_copy_of_a_workspace_does_not_use_the_originals_target",
    ),
    '"removed file(s)': (
        "dual_write/test_late_writes.py",
        "test_an_open_document_is_not_removed_unseen",
    ),
    'exit 6, "document(s) cannot': (
        "dual_write/test_unreadable.py",
        "test_it_is_left_behind_when_told",
    ),
    'exit 6, "the state of two': (
        "dual_write/test_merged.py",
        "test_it_is_named_and_the_command_that_is_named_works",
    ),
    'exit 6, "the target': (
        "dual_write/test_target_down.py",
        "test_plan_says_that_it_cannot_be_reached",
    ),
    '"the target … failed': (
        "dual_write/test_target_down.py",
        "test_callers_go_on_and_do_not_try_it_each_time",
    ),
    '`doctor`: "was removed"': (
        "dual_write/test_tidying.py",
        "test_reconcile_writes_it_again",
    ),
    '`doctor`: "… has': (
        "docs/test_runbook.py",
        "test_a_source_that_was_restored",
    ),
    '`doctor`: "this registry is a copy"': (
        "orchestrator/test_copies.py",
        "test_doctor_recognises_a_copy",
    ),
    '"… document(s) are frozen': (
        "orchestrator/test_copies.py",
        "test_frozen_documents_without_our_folder_are_refused",
    ),
    '`doctor`: "is in the future"': (
        "dual_write/test_clocks.py",
        "test_a_timestamp_from_the_future_is_not_a_sign_of_life",
    ),
    '`doctor`: "the package': (
        "admin/test_beside_legacy.py",
        "test_its_packages_may_come_first",
    ),
    '"… belongs to …"': (
        "test_owner.py",
        "test_another_user_is_refused_and_told_whom_to_ask",
    ),
    '"… needs credentials': (
        "dual_write/test_credentials.py",
        "test_the_environment_gives_them_and_without_it_the_answer_is_typed",
    ),
    "disk full": (
        "test_disks.py",
        "test_a_switch_on_a_disk_that_fills_up",
    ),
    "`.registry/phase.json` is gone": (
        "docs/test_runbook.py",
        "test_a_record_that_was_lost",
    ),
}


def rows():
    text = (ROOT / "docs" / "operating.md").read_text().partition("## When it goes wrong")[2]
    table = re.findall(r"^\| (.*?) \| .* \| .* \|$", text.partition("\n## ")[0], re.MULTILINE)
    assert table[0] == "you see"
    return table[1:]


@pytest.mark.parametrize("row", rows())
def test_each_row_names_a_test_that_exists(row):
    """A new row needs an entry in PLAYED; the longest matching beginning counts."""
    named = max((begin for begin in PLAYED if row.startswith(begin)), key=len, default=None)
    assert named is not None, row
    path, name = PLAYED[named]
    assert f"def {name}(" in (ROOT / "tests" / path).read_text()


def test_no_row_is_gone():
    """Every entry of PLAYED belongs to exactly one row."""
    found = [max((b for b in PLAYED if row.startswith(b)), key=len) for row in rows()]
    assert sorted(found) == sorted(PLAYED)


@pytest.fixture
def workspace(tmp_path):
    for task in ("TASK-1", "TASK-2"):
        agents = [{"id": "a", "type": "x", "status": "running"}]
        legacy.write_task(tmp_path, task, agents=agents)
    return tmp_path


def run(workspace, *tokens):
    return main([*map(str, tokens), "--workspace", str(workspace)])


def report(workspace, message):
    with closing(open_store(load_settings(workspace, env={}))) as store:
        build.put(store, build.report("TASK-1", "a", message=message), expected=None)


def move_aside(workspace):
    aside = workspace / "aside"
    aside.mkdir()
    for path in (workspace / ".registry").glob("registry.sqlite3*"):
        path.rename(aside / path.name)
    return aside


def test_a_target_that_was_written_by_hand(workspace):
    """Its replication position says that it is up to date, so reconcile leaves it as it is. Filled
    again from scratch it is right."""
    assert run(workspace, "switch", 1) == 0
    with closing(sqlite3.connect(workspace / ".registry" / "registry.sqlite3")) as target, target:
        target.execute("UPDATE agents SET prompt = 'by hand' WHERE agent_id = 'a'")
    assert run(workspace, "verify") == 3
    assert run(workspace, "reconcile") == 0
    assert run(workspace, "verify") == 3
    assert run(workspace, "switch", 0) == 0
    move_aside(workspace)
    assert run(workspace, "switch", 1) == 0
    assert run(workspace, "verify") == 0


def test_a_source_that_was_restored(workspace, capsys):
    """A backup older than a task: doctor says so; filled again from scratch the target is right."""
    assert run(workspace, "switch", 2) == 0
    shutil.rmtree(workspace / "TASK-2")
    for path in (workspace / ".registry" / "json").glob("TASK-2.*"):
        path.unlink()
    capsys.readouterr()
    assert run(workspace, "doctor") == 3
    assert "has 1 task(s) that json lacks" in " ".join(capsys.readouterr().out.split())
    assert run(workspace, "switch", 0) == 0
    move_aside(workspace)
    assert run(workspace, "switch", 1) == 0
    assert run(workspace, "verify") == 0
    assert run(workspace, "doctor") == 0


@pytest.mark.parametrize("phase", [1, 2, 3, 4])
def test_a_record_that_was_lost(workspace, phase):
    """A missing record is refused, not taken for phase 0; the history's last line restores it."""
    assert run(workspace, "switch", phase) == 0
    report(workspace, "before")
    record, history = (workspace / ".registry" / n for n in ("phase.json", "history.jsonl"))
    record.unlink()
    with pytest.raises(BackendMismatch):
        report(workspace, "meanwhile")
    record.write_text(history.read_text().splitlines()[-1])
    report(workspace, "after")
    assert json.loads(record.read_text())["phase"] == phase
    assert run(workspace, "verify") == 0
