"""A harmless agent: it reads its prompt, reports through the orchestrator, and changes nothing.

An orchestrator starts it with its ids in the environment and its prompt on standard input. As a
reviewer it approves, but if the phase's name says flawed it asks for a revision first.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

ME = {"task_id": os.environ["REGISTRY_TASK_ID"], "agent_id": os.environ["REGISTRY_AGENT_ID"]}
URL = os.environ.get("REGISTRY_ORCHESTRATOR_URL")


async def ask(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool; a refusal ends the agent with its reason."""
    result = await client.call_tool(tool, arguments)
    if result.is_error:
        sys.exit(f"{tool}: {result.content}")
    return result.structured_content or {}


async def work(client: Client, prompt: str) -> None:
    """Report working, a finding, and completed."""
    await ask(client, "update_agent_progress", **ME, status="working", message="begun", progress=10)
    message = f"the prompt has {len(prompt)} characters"
    finding = {"finding_type": "insight", "severity": "low", "message": message}
    await ask(client, "report_agent_finding", **ME, **finding)
    done = {"status": "completed", "message": message, "progress": 100}
    await ask(client, "update_agent_progress", **ME, **done)


async def review(client: Client, review_id: str) -> None:
    """Approve, except a flawed phase that was not revised."""
    asked = await ask(client, "get_review_status", task_id=ME["task_id"], review_id=review_id)
    index = asked["phase_index"]
    phase = await ask(client, "get_phase_status", task_id=ME["task_id"], phase_index=index)
    flawed = "flawed" in phase["name"] and not phase.get("revision_round")
    await ask(
        client,
        "submit_review_verdict",
        task_id=ME["task_id"],
        review_id=review_id,
        reviewer_agent_id=ME["agent_id"],
        verdict="needs_revision" if flawed else "approved",
        notes="fix the flaw" if flawed else "no defects",
        findings=[{"severity": "high", "message": "the flaw"}] if flawed else [],
    )


async def main() -> None:
    """Run the agent once."""
    prompt = sys.stdin.read()
    if URL is None:
        settings = {k: v for k, v in os.environ.items() if k.startswith("REGISTRY_")}
        serve = ["-P", "-m", "orchestrator", "serve"]
        server = StdioServerParameters(command=sys.executable, args=serve, env=settings)
        client = Client(server)
    else:
        bearer = {"Authorization": f"Bearer {os.environ['REGISTRY_ORCHESTRATOR_TOKEN']}"}
        http = httpx2.AsyncClient(headers=bearer)
        client = Client(streamable_http_client(URL, http_client=http))
    async with client:
        words = prompt.split()
        review_id = next((w.strip(",;.") for w in words if w.startswith("review-")), None)
        if ME["agent_id"].startswith("reviewer-") and review_id:
            await review(client, review_id)
        else:
            await work(client, prompt)
    print("done")


if __name__ == "__main__":
    asyncio.run(main())
