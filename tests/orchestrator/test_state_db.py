"""The legacy functions under their own names, in every phase of a workspace."""

import json

import pytest

from orchestrator import errors
from orchestrator.state_db import (
    ensure_db,
    load_phase_snapshot,
    load_recent_progress_latest,
    load_task_snapshot,
    reconcile_task_workspace,
    record_progress,
)
from registry_api.errors import InvalidInput, TaskNotFound
from tests import legacy

AGENTS = [
    {"id": "a", "type": "builder", "status": "running", "phase_index": 0, "depth": 1},
    {"id": "b", "type": "tester", "status": "working", "phase_index": 0, "depth": 1},
]
PHASES = [
    {"id": "phase-1", "order": 1, "name": "build", "status": "ACTIVE"},
    {"id": "phase-2", "order": 2, "name": "ship", "status": "PENDING"},
]


@pytest.fixture(params=["0", "1", "2", "3"])
def workspace(tmp_path, request, monkeypatch):
    """A legacy registry in a phase of its move."""
    for name in ("REGISTRY_BACKEND", "REGISTRY_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REGISTRY_ORCHESTRATOR_DEFAULT_KIND", "external")
    legacy.write_task(tmp_path, "TASK-1", agents=AGENTS, phases=PHASES, current_phase_index=0)
    if request.param != "0":
        from registry_api import load_settings, open_migration
        from registry_api.migration import MigrationPhase

        migration = open_migration(load_settings(tmp_path))
        migration.switch(MigrationPhase(int(request.param)), actor="test")
        migration.close()
    return tmp_path


def test_positional_and_keyword(workspace):
    """Every function takes positional and keyword arguments, and each shows a new report."""
    assert ensure_db(workspace) == ensure_db(workspace_base=str(workspace))
    at = "2030-01-04T22:16:00+00:00"
    record_progress(workspace, "TASK-1", "a", at, "WORKING", "half", 50)
    record_progress(
        workspace_base=str(workspace),
        task_id="TASK-1",
        agent_id="b",
        timestamp="2030-01-04T22:17:00+00:00",
        status="blocked",
        message="waits",
        progress=10,
    )
    task = load_task_snapshot(workspace, "TASK-1")
    assert task == load_task_snapshot(workspace_base=workspace, task_id="TASK-1")
    assert (task["status"], task["counts"]["active"]) == ("ACTIVE", 2)
    assert [(a["agent_id"], a["progress"], a["message"]) for a in task["agents"]] == [
        ("a", 50, "half"),
        ("b", 10, "waits"),
    ]
    phase = load_phase_snapshot(workspace, "TASK-1", phase_index=0)
    assert phase["counts"] == {
        "total": 2,
        "active": 2,
        "completed": 0,
        "failed": 0,
        "pending": 2,
        "all_done": False,
    }
    assert load_phase_snapshot(workspace, "TASK-1", 1)["agents"] == []
    newest = load_recent_progress_latest(workspace, "TASK-1", 1)
    assert [(r["agent_id"], r["timestamp"]) for r in newest] == [("b", "2030-01-04T22:17:00+00:00")]
    assert len(load_recent_progress_latest(workspace, task_id="TASK-1")) == 2


def test_the_last_agent_done_opens_the_review(workspace):
    """record_progress follows the same rules as the server: the last completed agent opens the
    review, and does not complete the task."""
    for agent in ("a", "b"):
        record_progress(workspace, "TASK-1", agent, "2030-01-01T00:00:00", "completed", "done", 100)
    task = load_task_snapshot(workspace, "TASK-1")
    assert [p["status"] for p in task["phases"]] == ["IN_REVIEW", "PENDING"]
    assert load_phase_snapshot(workspace, "TASK-1", 0)["counts"]["all_done"]
    with pytest.raises(errors.AgentEnded):
        record_progress(workspace, "TASK-1", "a", "2030-01-01T00:00:00", "working", "late", 5)


def test_reconciling_imports_lines_and_regresses_nothing(workspace):
    """Reconciling imports lines and never overwrites newer state; the legacy function overwrote it
    with the document's state at its creation."""
    record_progress(workspace, "TASK-1", "a", "2030-01-01T00:00:00", "working", "ours", 70)
    line = {"timestamp": "2030-01-02T00:00:00", "agent_id": "b", "status": "working"}
    log = workspace / "TASK-1" / "progress" / "b_progress.jsonl"
    log.write_text(json.dumps(line | {"message": "theirs", "progress": 5}) + "\n")
    assert reconcile_task_workspace(workspace / "TASK-1") == ensure_db(workspace)
    assert reconcile_task_workspace(task_workspace=str(workspace / "TASK-1"))
    task = load_task_snapshot(workspace, "TASK-1")
    assert next(a["progress"] for a in task["agents"]) == 70
    assert reconcile_task_workspace(workspace / "TASK-2") is None


def test_a_task_or_agent_that_does_not_exist(workspace):
    """Reading a missing task returns None; writing to a missing task or agent is an error."""
    assert load_task_snapshot(workspace, "TASK-2") is None
    assert load_phase_snapshot(workspace, "TASK-2", 0) is None
    assert load_recent_progress_latest(workspace, "TASK-2") == []
    with pytest.raises(errors.PhaseNotFound):
        load_phase_snapshot(workspace, "TASK-1", 9)
    with pytest.raises(TaskNotFound):
        record_progress(workspace, "TASK-2", "a", "2030-01-01T00:00:00", "working", "", 0)
    with pytest.raises(errors.AgentNotFound):
        record_progress(workspace, "TASK-1", "z", "2030-01-01T00:00:00", "working", "", 0)
    with pytest.raises(InvalidInput):
        record_progress(workspace, "TASK-1", "a", "yesterday", "working", "", 0)
    with pytest.raises(InvalidInput):
        load_recent_progress_latest(workspace, "TASK-1", 0)
