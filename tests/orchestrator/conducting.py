"""A conductor as a real MCP client, a server as a real process, agents as real programs."""

import asyncio
import json
import os
import re
import subprocess
import sys
import tomllib
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

AGENT = Path(__file__).parents[2] / "examples" / "orchestrator" / "agent.py"
PATIENCE = 120  # seconds for a phase; two cores start many Pythons


def configure(workspace, *, argv=None, **settings):
    """Write a registry.toml whose only kind is a scripted program, by default the example agent."""
    values = {"default_kind": "scripted", "stop_grace": 1.0, **settings}
    argv = [sys.executable, str(AGENT)] if argv is None else argv
    lines = ["[orchestrator]", *(f"{k} = {_toml(v)}" for k, v in values.items())]
    lines += ["[orchestrator.kinds.scripted]", f"argv = {_toml([str(a) for a in argv])}"]
    text = "\n".join(lines) + "\n"
    tomllib.loads(text)
    (workspace / "registry.toml").write_text(text)


def _toml(value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def environment(workspace, **more):
    """Return the environment to start a workspace's server with."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("REGISTRY_")}
    return {**kept, "REGISTRY_WORKSPACE": str(workspace), **more}


@asynccontextmanager
async def over_stdio(env):
    """A client of a server that the client starts itself."""
    server = StdioServerParameters(
        command=sys.executable, args=["-m", "orchestrator", "serve"], env=env
    )
    async with Client(server) as client:
        yield client


@asynccontextmanager
async def served_over_http(env):
    """A server over HTTP, as a process: give its URL and the operator's token."""
    command = [sys.executable, "-m", "orchestrator", "serve", "--http", "127.0.0.1:0"]
    process = await asyncio.create_subprocess_exec(*command, env=env, stdout=subprocess.PIPE)
    try:
        url = (await process.stdout.readline()).decode().strip()
        yield url, (Path(env["REGISTRY_WORKSPACE"]) / ".registry" / "token").read_text()
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def over_http(env):
    """A client of a server over HTTP that was started before."""
    async with served_over_http(env) as (url, token):
        bearer = {"Authorization": f"Bearer {token}"}
        async with (
            httpx2.AsyncClient(headers=bearer) as http,
            Client(streamable_http_client(url, http_client=http)) as client,
        ):
            yield client


async def ask(client, tool, **arguments):
    """Call a tool that must succeed; return its answer."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, (tool, arguments, result.content)
    return result.structured_content


async def refused(client, tool, **arguments):
    """Call a tool that must be refused; return the refusal."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error, (tool, arguments, result.structured_content)
    assert result.structured_content is None
    refusal = json.loads(result.content[0].text)
    assert set(refusal) == {"code", "message", "next_step", "retryable"}
    assert refusal["next_step"]
    return refusal


async def until(client, task_id, phase_index, *statuses):
    """Wait until a phase has one of these statuses."""
    for _ in range(PATIENCE * 5):
        phase = await ask(client, "get_phase_status", task_id=task_id, phase_index=phase_index)
        if phase["status"] in statuses:
            return phase
        await asyncio.sleep(0.2)
    raise AssertionError((phase, await ask(client, "get_health_status", task_id=task_id)))


async def conduct(client, *, between=None):
    """Conduct a task of three phases, the second rejected once; return its id.

    ``between`` is awaited while the second phase's agent is active.
    """
    names = ["plan", "build, flawed at first", "polish"]
    phases = [{"name": name, "deliverables": [f"{name} done"]} for name in names]
    task = await ask(client, "create_task", description="end to end", phases=phases)
    task_id = task["task_id"]
    assert task["status"] == "INITIALIZED"
    for index in range(len(names)):
        prompt = f'work on phase {index}: "quoted" $(touch canary)\n'
        agent = {"task_id": task_id, "agent_type": f"worker{index}", "prompt": prompt}
        await ask(client, "deploy_agent", **agent)
        if index == 1:
            if between:
                await between()
            await until(client, task_id, 1, "REVISION_NEEDED")
            review = await ask(client, "get_review_status", task_id=task_id, phase_index=1)
            assert review["reviews"][0]["verdict"] == "needs_revision"
            await ask(client, "deploy_agent", **agent | {"agent_type": "fixer"})
            await ask(client, "mark_revision_ready", task_id=task_id)
        await until(client, task_id, index, "APPROVED")
        handover = await ask(client, "get_phase_handover", task_id=task_id, phase_index=index)
        assert "characters" in handover["key_findings"][0]
    return task_id


class StepFollower:
    """A conductor that only does what the last answer's next step says. It counts its calls and the
    tokens of the answers, a token being four characters."""

    def __init__(self, client, *, polls=False):
        self.client = client
        self.polls = polls
        self.calls = self.tokens = self.agents = 0
        self.cursor = ""

    async def call(self, tool, **arguments):
        result = await self.client.call_tool(tool, arguments)
        assert not result.is_error, (tool, arguments, result.content)
        self.calls += 1
        self.tokens += len(result.content[0].text) / 4
        return result.structured_content

    async def conduct(self, names):
        """Return the task when it has ended."""
        phases = [{"name": name} for name in names]
        answer = await self.call("create_task", description="to the letter", phases=phases)
        task_id, step = answer["task_id"], answer["next_step"]
        while "the task has ended" not in step:
            step = (await self.follow(step, task_id))["next_step"]
        return await self.call("get_task_status", task_id=task_id)

    async def follow(self, step, task_id):
        """Do the first thing that a next step names; wait where it says to wait."""
        word = next((w for w in re.findall(r"[a-z]+(?:_[a-z]+)+", step)), "wait_for")
        if step.startswith("Wait") or word in {"wait_for", "get_phase_status"}:
            return await self.wait(task_id)
        if word == "get_review_status":
            answer = await self.call(word, task_id=task_id)
            # Its next step names the same tool: to read the review, and then to deploy.
            return {"next_step": answer["next_step"].partition("then ")[2]}
        if word == "deploy_agent":
            self.agents += 1
            agent = {"agent_type": f"worker{self.agents}", "prompt": "do your part"}
            return await self.call(word, task_id=task_id, **agent)
        return await self.call(word, task_id=task_id)

    async def wait(self, task_id):
        if self.polls:
            await asyncio.sleep(1)
            return await self.call("get_task_status", task_id=task_id)
        answer = await self.call("wait_for", task_id=task_id, cursor=self.cursor)
        self.cursor = answer["cursor"]
        return answer
