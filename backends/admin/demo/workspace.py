"""Generate a legacy workspace like those of the migration report: stale counters, torn files."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from registry_api import Agent, Put, Settings, Task, new_changeset, open_store

__all__ = ["make_tasks", "make_workspace"]

TASKS, AGENTS = 43, 97
_TASKS_OF_A_PAIR = 10
_START = datetime(2026, 1, 4, 9, 0, 0)  # noqa: DTZ001  (legacy programs write no time zone)


def make_tasks(settings: Settings) -> None:
    """Create tasks with agents in the store that the settings name."""
    with closing(open_store(settings)) as store:
        for n in range(_TASKS_OF_A_PAIR):
            task_id = f"TASK-20260104-09{n:02}00-{n:08x}"
            now = datetime.now(UTC)
            task = Task(task_id=task_id, description=f"task {n}", created_at=now)
            agent = Agent(task_id=task_id, agent_id=f"builder-{n}", type="builder", started_at=now)
            ops = [Put(task), Put(agent)]
            store.commit(new_changeset(task_id, ops, expected=0, actor="demo"))


def make_workspace(root: Path) -> None:
    """Write 43 tasks with 97 agents: all are active by the counters, only a few by the records."""
    (root / "registry").mkdir(parents=True)
    listed: dict[str, object] = {}
    agents: dict[str, object] = {}
    for n in range(TASKS):
        task_id = f"TASK-20260104-09{n:02}00-{n:08x}"
        count = AGENTS // TASKS + (n < AGENTS % TASKS)
        mine = [_agent(n, place) for place in range(count)]
        _task(root, task_id, n, mine)
        listed[task_id] = {"description": f"task {n}", "status": "INITIALIZED"}
        agents |= {
            a["id"]: {"task_id": task_id, "type": a["type"], "status": "running"} for a in mine
        }
    stored = {
        "created_at": _START.isoformat(),
        "total_tasks": TASKS,
        "active_tasks": TASKS,
        "total_agents_spawned": AGENTS,
        "active_agents": AGENTS,
        "max_concurrent_agents": 20,
        "tasks": listed,
        "agents": agents,
    }
    _write(root / "registry" / "GLOBAL_REGISTRY.json", stored)
    _oddities(root)


def _agent(task: int, place: int) -> dict[str, Any]:
    started = _START + timedelta(minutes=task)
    # Most agents have ended; the first agent of every third task still has status "working".
    status = "working" if place == 0 and task % 3 == 0 else "completed"
    return {
        "id": f"builder-{task:02}{place:04}-{place:06x}",
        "type": "builder",
        "model": "opus",
        "tmux_session": f"agent_builder-{task:02}{place:04}",
        "parent": "orchestrator",
        "depth": 1,
        "phase_index": 0,
        "status": status,
        "started_at": started.isoformat(),
        "progress": 100 if status == "completed" else 20,
        "last_update": (started + timedelta(minutes=3)).isoformat(),
        "prompt": "Do what the task says...",
        "completion_validation": {"confidence": 0.9, "warnings": []},
    }


def _task(root: Path, task_id: str, n: int, agents: list[dict[str, Any]]) -> None:
    folder = root / task_id
    for name in ("progress", "findings", "logs", "archive"):
        (folder / name).mkdir(parents=True)
    document = {
        "task_id": task_id,
        "task_description": f"task {n}",
        "created_at": (_START + timedelta(minutes=n)).isoformat(),
        "workspace": "${workspaceFolder}/.agent-workspace/" + task_id,
        "workspace_base": "${workspaceFolder}/.agent-workspace",
        "client_cwd": None,
        "status": "INITIALIZED",
        "priority": "P1",
        "phases": [
            {"id": f"phase-{n:08x}", "order": 1, "name": "Work", "status": "ACTIVE"},
            {"id": f"phase-{n + 99:08x}", "order": 2, "name": "Review", "status": "PENDING"},
        ],
        "current_phase_index": 0,
        "agents": agents,
        "agent_hierarchy": {"orchestrator": [a["id"] for a in agents]},
        "max_agents": 45,
        "max_depth": 5,
        "max_concurrent": 20,
        "total_spawned": len(agents),
        "active_count": len(agents),
        "completed_count": 0,
        "reviews": [],
        "spiral_checks": {"enabled": True, "violations": 0},
    }
    _write(folder / "AGENT_REGISTRY.json", document)
    for agent in agents:
        line = {"timestamp": agent["last_update"], "agent_id": agent["id"]}
        entry = {**line, "status": agent["status"], "message": "so far", "progress": 20}
        log = folder / "progress" / f"{agent['id']}_progress.jsonl"
        log.write_text(json.dumps(entry) + "\n")


def _oddities(root: Path) -> None:
    """Add oddities of real workspaces: a torn document, an empty folder, an unknown agent's log."""
    torn = root / "TASK-20260103-torn"
    torn.mkdir()
    (torn / "AGENT_REGISTRY.json").write_text('{"task_id": "TASK-20260103-torn", "agents": [{"i')
    (root / "TASK-20260103-empty").mkdir()
    ghost = root / f"TASK-20260104-090000-{0:08x}" / "progress" / "ghost_progress.jsonl"
    line = {"timestamp": _START.isoformat(), "agent_id": "ghost", "status": "working"}
    ghost.write_text(json.dumps(line) + "\nnot json\n")


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2))
