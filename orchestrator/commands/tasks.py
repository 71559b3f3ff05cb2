"""Create and cancel tasks."""

from __future__ import annotations

import uuid
from pathlib import Path

from orchestrator.agents.deployment import working_directory
from orchestrator.commands.processes import Processes
from orchestrator.commands.transactions import Transactions
from orchestrator.rules import agents, tasks
from registry_api import Task, TaskSnapshot, TaskStatus

__all__ = ["TaskCommands"]


class TaskCommands:
    """The commands on tasks."""

    def __init__(
        self,
        transactions: Transactions,
        processes: Processes,
        *,
        workspace: Path,
        max_revision_rounds: int,
    ) -> None:
        self._transactions = transactions
        self._store = transactions.store
        self._now = transactions.now
        self._processes = processes
        self._workspace = workspace
        self._max_revision_rounds = max_revision_rounds

    def create_task(
        self,
        description: str,
        *,
        phases: tuple[tasks.PhasePlan, ...] = (),
        priority: str = "P2",
        client_cwd: str | None = None,
        context: str = "{}",
        limits: agents.Limits | None = None,
    ) -> TaskSnapshot:
        """Create a task and open its first phase; raises InvalidInput for a bad ``client_cwd``."""
        at = self._now()
        task_id = f"TASK-{at:%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:8]}"
        working_directory(client_cwd, self._workspace)
        task = Task(
            task_id=task_id,
            description=description,
            created_at=at,
            priority=priority,
            workspace=str(self._workspace / task_id),
            workspace_base=str(self._workspace),
            client_cwd=client_cwd,
            context=context,
            max_agents=limits.max_agents if limits else None,
            max_concurrent=limits.max_concurrent if limits else None,
            max_depth=limits.max_depth if limits else None,
        )
        command = tasks.CreateTask(
            task=task, phases=phases, max_revision_rounds=self._max_revision_rounds
        )
        self._transactions.commit(task_id, tasks.create(command), expected=0, actor="create_task")
        return self._store.load(task_id)

    def cancel_task(
        self, task_id: str, reason: str, *, outcome: TaskStatus = TaskStatus.CANCELLED
    ) -> TaskSnapshot:
        """End a task and stop its agents."""
        command = tasks.CancelTask(reason=reason, at=self._now(), outcome=outcome)
        self._processes.run(task_id, lambda s: tasks.cancel(s, command), actor="cancel_task")
        return self._processes.stopped(task_id)
