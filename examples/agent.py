"""The life of an agent in a registry: create a task, report progress, end the agent.

Run it in an empty folder, in a workspace of the legacy orchestrator, or in the middle of a move: it
uses the store that the workspace uses.

    REGISTRY_WORKSPACE=/tmp/workspace python examples/agent.py
"""

from __future__ import annotations

import uuid
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime

from registry_api import (
    Agent,
    AgentStatus,
    Op,
    ProgressEntry,
    Put,
    RegistryStore,
    Task,
    TaskSnapshot,
    new_changeset,
    open_store,
    transact,
)


def create(store: RegistryStore, task_id: str) -> None:
    """Create a task with one active agent, in one atomic changeset."""
    now = datetime.now(UTC)
    task = Task(task_id=task_id, description="Write the release notes", created_at=now)
    agent = Agent(task_id=task_id, agent_id="writer", type="builder", started_at=now)
    store.commit(new_changeset(task_id, [Put(task), Put(agent)], expected=0))


def report(store: RegistryStore, task_id: str, message: str, progress: int) -> None:
    """Append a report: it needs no revision and never conflicts with another report."""
    entry = ProgressEntry(
        task_id=task_id,
        agent_id="writer",
        entry_id=uuid.uuid4().hex,
        timestamp=datetime.now(UTC),
        status="working",
        message=message,
        progress=progress,
    )
    store.commit(new_changeset(task_id, [Put(entry)], expected=None))


def finish(store: RegistryStore, task_id: str) -> None:
    """End the agent: load, decide, commit on that revision; repeat if another commit came first."""

    def decide(snapshot: TaskSnapshot) -> list[Op]:
        agent = next(a for a in snapshot.agents if a.agent_id == "writer")
        now = datetime.now(UTC)
        ended = replace(agent, status=AgentStatus.COMPLETED, progress=100, completed_at=now)
        return [Put(ended)]

    transact(store, task_id, decide)


def main() -> None:
    """Run the agent, and print what the registry says."""
    task_id = f"TASK-{uuid.uuid4().hex[:8]}"
    with closing(open_store()) as store:
        create(store, task_id)
        report(store, task_id, "read the changelog", 30)
        report(store, task_id, "wrote the first half", 60)
        print(task_id, store.load(task_id).status, [a.progress for a in store.load(task_id).agents])
        finish(store, task_id)
        print(task_id, store.load(task_id).status, store.counts().active_agents, "agents active")


if __name__ == "__main__":
    main()
