"""A first task in a minute: a conductor, a server and harmless agents, each a process of its own.

    python examples/orchestrator/first_task.py [WORKSPACE]

It writes a ``registry.toml`` whose only kind of agent is ``agent.py`` next to this file, starts
``registry-orchestrator serve`` on standard input, and runs a task of two phases to its end.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from mcp import Client, StdioServerParameters

AGENT = Path(__file__).parent / "agent.py"
PHASES = [{"name": "draft", "deliverables": ["a text"]}, {"name": "polish, flawed at first"}]


def configure(workspace: Path) -> None:
    """Make the scripted agent the kind for workers and reviewers."""
    if not workspace.is_dir():
        sys.exit(f"{workspace} is not a folder: create it, or name none")
    if (workspace / "registry.toml").exists():
        sys.exit(f"{workspace} already has a registry.toml: name a folder that has none")
    argv = json.dumps([sys.executable, str(AGENT)])
    (workspace / "registry.toml").write_text(
        '[orchestrator]\ndefault_kind = "scripted"\nreviewers = 1\n\n'
        f"[orchestrator.kinds.scripted]\nargv = {argv}\n"
    )


async def ask(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool; a refusal ends the program with its reason."""
    result = await client.call_tool(tool, arguments)
    if result.is_error:
        sys.exit(f"{tool}: {result.content}")
    return result.structured_content or {}


async def reviewed(client: Client, task_id: str, phase: int) -> str:
    """Wait until a phase's review has decided; return the phase's status."""
    while True:
        found = await ask(client, "get_phase_status", task_id=task_id, phase_index=phase)
        if found["status"] in {"APPROVED", "REVISION_NEEDED", "ESCALATED"}:
            return str(found["status"])
        await asyncio.sleep(0.2)


async def conduct(client: Client) -> None:
    """Run a task to its end, with one agent a phase, fixing what a review asks for."""
    task = await ask(client, "create_task", description="a first task", phases=PHASES)
    task_id = task["task_id"]
    print(f"{task_id} {task['status']}; next: {task['next_step']}")
    for index, phase in enumerate(PHASES):
        wanted = {"agent_type": "writer", "prompt": f"Do the work of {phase['name']}."}
        await ask(client, "deploy_agent", task_id=task_id, **wanted)
        while (status := await reviewed(client, task_id, index)) == "REVISION_NEEDED":
            print(f"{phase['name']}: {status}")
            fixer = {"agent_type": "fixer", "prompt": "Fix what the review asks for."}
            await ask(client, "deploy_agent", task_id=task_id, **fixer)
            await ask(client, "mark_revision_ready", task_id=task_id)
        print(f"{phase['name']}: {status}")
        left = await ask(client, "get_phase_handover", task_id=task_id, phase_index=index)
        print(f"handover: {left['summary']}")
    print(f"{task_id} {(await ask(client, 'get_task_status', task_id=task_id))['status']}")


async def main() -> None:
    """Serve the workspace and run the task."""
    workspace = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp())
    configure(workspace)
    print(f"workspace {workspace}")
    serve = ["-P", "-m", "orchestrator", "serve", "--workspace", str(workspace)]
    async with Client(StdioServerParameters(command=sys.executable, args=serve)) as client:
        await conduct(client)


if __name__ == "__main__":
    asyncio.run(main())
