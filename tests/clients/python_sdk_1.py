"""Conduct a task of two phases to its end with the previous generation of the Python SDK.

    python python_sdk_1.py stdio COMMAND ARG...
    python python_sdk_1.py http URL TOKEN

Print the same lines as ``conduct.mjs``.
"""

import asyncio
import json
import os
import sys

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamablehttp_client


class Conductor:
    """A session, with the number of its calls and the tokens of their answers."""

    def __init__(self, session):
        self.session = session
        self.calls = self.tokens = 0

    async def call(self, tool, **arguments):
        result = await self.session.call_tool(tool, arguments)
        self.calls += 1
        self.tokens += len(result.content[0].text) // 4
        return result

    async def ask(self, tool, **arguments):
        result = await self.call(tool, **arguments)
        if result.isError:
            sys.exit(f"{tool}: {result.content[0].text}")
        return result.structuredContent

    async def refused(self, tool, **arguments):
        result = await self.call(tool, **arguments)
        if not result.isError:
            sys.exit(f"{tool} was not refused")
        print(json.dumps({"tool": tool, **json.loads(result.content[0].text)}))

    async def until(self, task_id, phase_index, status):
        cursor = ""
        while True:
            of = {"task_id": task_id, "phase_index": phase_index, "cursor": cursor}
            answer = await self.ask("wait_for", **of)
            if answer["phase_status"] == status:
                return answer
            if answer["cursor"] == cursor:
                await asyncio.sleep(0.2)  # no agent is active yet
            cursor = answer["cursor"]

    async def conduct(self):
        phases = [{"name": "draft"}, {"name": "build, flawed at first"}]
        made = await self.ask("create_task", description="by an older client", phases=phases)
        task_id = made["task_id"]
        agent = {"task_id": task_id, "agent_type": "builder", "prompt": "write it"}
        await self.refused("get_task_status", task_id="TASK-none")
        await self.refused("create_task", description="")
        await self.refused("submit_phase_for_review", task_id=task_id)
        await self.ask("deploy_agent", **agent)
        await self.until(task_id, 0, "APPROVED")
        await self.ask("deploy_agent", **agent)
        await self.until(task_id, 1, "REVISION_NEEDED")
        await self.ask("deploy_agent", **agent | {"agent_type": "fixer"})
        await self.ask("mark_revision_ready", task_id=task_id)
        ended = await self.until(task_id, 1, "APPROVED")
        await self.refused("cancel_task", task_id=task_id, reason="too late")
        said = {"task_id": task_id, "status": ended["task_status"]}
        print(json.dumps({**said, "calls": self.calls, "tokens": self.tokens}))


async def main(transport, *rest):
    if transport == "stdio":
        server = StdioServerParameters(command=rest[0], args=list(rest[1:]), env=dict(os.environ))
        connected = stdio_client(server)
    else:
        connected = streamablehttp_client(rest[0], headers={"Authorization": f"Bearer {rest[1]}"})
    async with connected as (read, write, *_), ClientSession(read, write) as session:
        await session.initialize()
        await session.list_tools()
        await Conductor(session).conduct()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
