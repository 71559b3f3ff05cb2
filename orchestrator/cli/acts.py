"""``kill``, ``cancel``, ``approve``, ``retry`` and ``attach``: what a person does about agents."""

from __future__ import annotations

import os
from typing import Annotated

from cyclopts import Parameter

from orchestrator.cli.app import AgentId, Json, OfTask, Reason, Workspace, app, opened, print_json
from registry_api.errors import InvalidInput
from registry_api.workspace.server_cli import OK

__all__ = ["approve", "attach", "cancel", "kill", "retry"]

_BY_HAND = "ended by the operator"


@app.command
def kill(
    agent_id: AgentId,
    *,
    workspace: Workspace = None,
    task: OfTask = None,
    reason: Reason = _BY_HAND,
    json: Json = False,
) -> int:
    """End an agent and stop its process with all that it started.

    Example: registry-orchestrator kill builder-131415-95ffd1 --reason "it loops"
    """
    with opened(workspace) as service:
        from orchestrator.queries.agent_rows import find_agent

        found = find_agent(service, agent_id, task)
        killed = service.kill(found.task_id, agent_id, reason)
    stopped = killed.stopped
    told = {
        "agent_id": agent_id,
        "status": str(killed.agent.status),
        "signalled": sum(one.signalled for one in stopped),
        "killed": sum(one.killed for one in stopped),
        "left": [pid for one in stopped for pid in one.left],
    }
    if json:
        print_json(told)
        return 1 if told["left"] else OK
    print(f"{agent_id} is {told['status']}: {told['signalled']} process(es) were told to end")
    if told["killed"]:
        print(f"{told['killed']} did not end when asked, and were killed")
    if told["left"]:
        print(f"still running: {told['left']}")
    return 1 if told["left"] else OK


@app.command
def cancel(
    task_id: str, *, workspace: Workspace = None, reason: Reason = _BY_HAND, json: Json = False
) -> int:
    """End a task and stop its agents; a task that has ended never reopens.

    Example: registry-orchestrator cancel TASK-20260104-221530-1a2b3c4d
    """
    with opened(workspace) as service:
        done = service.cancel_task(task_id, reason)
    if json:
        print_json({"task_id": task_id, "status": str(done.status)})
    else:
        print(f"{task_id} is {done.status}")
    return OK


@app.command
def approve(
    task_id: str,
    *,
    reason: Reason,
    workspace: Workspace = None,
    phase: Annotated[int | None, Parameter(help="its index; default: the current phase")] = None,
    json: Json = False,
) -> int:
    """Force-approve an ESCALATED phase without a review; it is recorded as forced.

    Example: registry-orchestrator approve TASK-20260104-221530-1a2b3c4d --reason "checked by hand"
    """
    with opened(workspace) as service:
        from orchestrator.queries.reading import Reading

        done = Reading(service).shown(service.approve_phase(task_id, reason, phase_index=phase))
    if json:
        print_json({"task_id": task_id, "status": done.status, "next_step": done.next_step})
    else:
        print(f"{task_id} is {done.status}")
        print(f"Next: {done.next_step}")
    return OK


@app.command
def retry(
    agent_id: AgentId, *, workspace: Workspace = None, task: OfTask = None, json: Json = False
) -> int:
    """Deploy a failed agent again with the same prompt, as its next attempt.

    Example: registry-orchestrator retry builder-131415-95ffd1
    """
    with opened(workspace) as service:
        from orchestrator.queries.agent_rows import find_agent
        from orchestrator.rules.attempts import attempt_of

        found = find_agent(service, agent_id, task)
        started = service.retry(found.task_id, agent_id)
    if json:
        print_json({"agent_id": started.agent_id, "attempt": attempt_of(started)})
    else:
        print(f"attempt {attempt_of(started)} is {started.agent_id}")
    return OK


@app.command
def attach(agent_id: AgentId, *, workspace: Workspace = None, task: OfTask = None) -> int:
    """Attach this terminal to an agent's; detach with Ctrl-B D, Ctrl-C interrupts the agent.

    Example: registry-orchestrator attach builder-131415-95ffd1
    """
    with opened(workspace) as service:
        from orchestrator.agents.deployment import launcher_of
        from orchestrator.queries.agent_rows import find_agent

        found = find_agent(service, agent_id, task)
        # Not the command in the record: any program that writes to the store could put one there.
        launcher = service.launchers.get(launcher_of(found))
        command_of = getattr(launcher, "attach_command", None)
        if command_of is None or service.deployment.process(found) != "alive":
            raise InvalidInput(
                f"{agent_id} has no terminal here",
                next_step=f"registry-orchestrator logs {agent_id} -f shows its output; agents have "
                "a terminal with REGISTRY_ORCHESTRATOR_LAUNCHER=tmux",
            )
        command = command_of(service.settings.workspace, agent_id)
    environment = {name: value for name, value in os.environ.items() if name != "TMUX"}
    os.execvpe(command[0], command, environment)  # noqa: S606  (a list of arguments, no shell)
