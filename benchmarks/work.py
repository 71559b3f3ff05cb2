"""Workloads of the cases: registries of a given size, created through the public API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from uuid_utils.compat import uuid7

from registry_api import (
    Agent,
    Commit,
    ProgressEntry,
    Put,
    RegistryStore,
    Task,
    load_settings,
    new_changeset,
    open_store,
)

__all__ = ["create", "legacy_task", "opened", "record_progress"]

T0 = datetime(2026, 1, 4, 22, 15, 30, 123456, tzinfo=UTC)


@contextmanager
def opened(workspace: Path, **env: str) -> Iterator[RegistryStore]:
    """Open the store of a workspace as its user would, with the given environment variables."""
    workspace.mkdir(exist_ok=True)
    store = open_store(load_settings(workspace, env=env))
    try:
        yield store
    finally:
        store.close()


def create(store: RegistryStore, task_id: str, agents: int) -> None:
    """Create a task with running agents ``a0``, ``a1``, …"""
    records = [
        Agent(
            task_id=task_id,
            agent_id=f"a{n}",
            type="builder",
            model="opus",
            started_at=T0,
            prompt="Do what the task says, then report.",
        )
        for n in range(agents)
    ]
    task = Task(task_id=task_id, description="a task of the benchmark", created_at=T0)
    store.commit(new_changeset(task_id, [Put(task), *map(Put, records)], expected=0))


def record_progress(
    store: RegistryStore, task: str, agent: str, message: str, progress: int
) -> Commit:
    """Append one report."""
    now = datetime.now(UTC)
    entry = ProgressEntry(
        task_id=task,
        agent_id=agent,
        entry_id=uuid7().hex,
        timestamp=now,
        status="running",
        message=message,
        progress=progress,
    )
    return store.commit(new_changeset(task, [Put(entry)], expected=None, at=now))


def legacy_task(workspace: Path, task_id: str, agents: int) -> Path:
    """Write a task as legacy programs do; returns the path of its document."""
    folder = workspace / task_id
    for name in ("progress", "findings", "logs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    started = T0.replace(tzinfo=None).isoformat()
    document = {
        "task_id": task_id,
        "task_description": "a task of the benchmark",
        "created_at": started,
        "status": "ACTIVE",
        "agents": [
            {
                "id": f"a{n}",
                "type": "builder",
                "model": "opus",
                "tmux_session": f"agent_a{n}",
                "parent": "orchestrator",
                "depth": 1,
                "status": "running",
                "started_at": started,
                "progress": 1,
                "last_update": started,
                "prompt": "Do what the task says, then report. " * 8,
                "claude_pid": 1000 + n,
                "tracked_files": {"prompt": f"{task_id}/a{n}_prompt.txt"},
            }
            for n in range(agents)
        ],
        "agent_hierarchy": {"orchestrator": [f"a{n}" for n in range(agents)]},
        "total_spawned": agents,
        "active_count": agents,
        "completed_count": 0,
    }
    path = folder / "AGENT_REGISTRY.json"
    path.write_text(json.dumps(document, indent=2))
    return path
