"""Hostile texts in every parameter: clear errors, nothing executed, nothing written outside."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcp import Client

from orchestrator.mcp.server import build_server
from orchestrator.settings import AgentKind
from tests.proof import times

CANARY = "canary"
NASTY = [
    "$(touch canary)",
    "`touch canary`",
    "'; touch canary; '",
    '"; touch canary; "',
    "a\ntouch canary\n",
    "-rf",
    "--dangerously-skip-permissions",
    "#{pane_id}",
    "#(touch canary)",
    "../../canary",
    "../" * 20 + "tmp/canary",
    "/tmp/canary",
    "a/b",
    "a\\b",
    ".",
    "..",
    ".hidden",
    "con:1",
    "api.v2",
    "a\x00b",
    "é" * 200,
    "\u202e\u2066",
    "{mcp_config}{model}%s%n",
    "${workspaceFolder}",
    "<script>alert(1)</script>",
    "'||'1'='1",
    "\x1b[31m\r\n",
    '{"a": 1}',
    "[1, 2]",
    "null",
    "",
    " ",
    "x" * 129,
    "x" * 2**20,
]
TEXTS = st.one_of(
    st.sampled_from(NASTY),
    st.text(max_size=40),
    st.builds(lambda a, b: a + b, st.sampled_from(NASTY), st.sampled_from(NASTY)),
)
REFUSALS = {
    "invalid_input",
    "invalid_changeset",
    "invalid_query",
    "task_not_found",
    "agent_not_found",
    "agent_ended",
    "phase_not_found",
    "phase_closed",
    "review_not_found",
    "duplicate_agent",
    "unknown_agent_kind",
    "launch_failed",
    "limit_reached",
    "nothing_to_review",
    "not_a_reviewer",
    "no_handover",
    "agents_active",
}
SINK = AgentKind(argv=(sys.executable, "-c", "import sys; sys.stdin.read()"), preamble=False)


def calls(draw, task_id, agent_id):
    """Draw one call, hostile in one or more arguments and valid in the others."""
    nasty = lambda: draw(TEXTS)  # noqa: E731  (one line in a strategy)
    task = draw(st.sampled_from([task_id, None])) or nasty()
    agent = draw(st.sampled_from([agent_id, None])) or nasty()
    of = {"task_id": task}
    return draw(
        st.sampled_from(
            [
                ("create_task", {"description": nasty(), "phases": [{"name": nasty()}]}),
                ("create_task", {"description": "x", "client_cwd": nasty(), "priority": nasty()}),
                ("create_task", {"description": "x", "constraints": [nasty()]}),
                ("deploy_agent", of | {"agent_type": nasty(), "prompt": nasty()}),
                ("deploy_agent", of | {"agent_type": "t", "prompt": "p", "kind": nasty()}),
                (
                    "deploy_agent",
                    of | {"agent_type": "t", "prompt": "p", "model": nasty(), "effort": nasty()},
                ),
                (
                    "spawn_child_agent",
                    of | {"parent_agent_id": agent, "agent_type": nasty(), "prompt": nasty()},
                ),
                ("get_task_status", of),
                ("list_tasks", {"text": nasty(), "cursor": nasty(), "status": nasty()}),
                ("list_tasks", {"text": nasty()}),
                ("get_agent_output", of | {"agent_id": agent}),
                (
                    "update_agent_progress",
                    of | {"agent_id": agent, "status": nasty(), "message": nasty()},
                ),
                (
                    "update_agent_progress",
                    of | {"agent_id": agent, "status": "working", "message": nasty()},
                ),
                (
                    "report_agent_finding",
                    of
                    | {
                        "agent_id": agent,
                        "finding_type": "insight",
                        "severity": "low",
                        "message": nasty(),
                        "data": {nasty(): nasty()},
                    },
                ),
                ("get_task_findings", of | {"agent_id": nasty(), "text": nasty()}),
                ("get_task_findings", of | {"since": nasty(), "cursor": nasty()}),
                ("get_phase_status", of),
                ("submit_phase_for_review", of | {"summary": nasty()}),
                (
                    "submit_review_verdict",
                    of
                    | {
                        "review_id": nasty(),
                        "reviewer_agent_id": agent,
                        "verdict": "approved",
                        "notes": nasty(),
                    },
                ),
                (
                    "submit_critique",
                    of | {"review_id": nasty(), "agent_id": agent, "summary": nasty()},
                ),
                ("get_review_status", of | {"review_id": nasty()}),
                ("abort_stalled_review", of | {"review_id": nasty(), "reason": nasty()}),
                ("approve_phase_review", of | {"reason": nasty()}),
                ("get_phase_handover", of),
                ("get_task_context", of),
                ("get_health_status", {"task_id": task}),
                ("kill_agent", of | {"agent_id": nasty(), "reason": nasty()}),
            ]
        )
    )


@pytest.mark.timeout(1200)
def test_two_thousand_hostile_calls(opened, tmp_path, monkeypatch):
    """Every hostile call gets a typed answer or a refusal with a code; nothing is executed, and
    nothing is written outside the workspace."""
    outside = tmp_path.parent
    monkeypatch.chdir(tmp_path)
    limits = {"max_agents": 10_000, "max_concurrent": 1000}
    play = opened("sqlite", kinds={"sink": SINK}, default_kind="external", **limits)
    play.create("only")
    agent_id = play.deploy("target")
    before = {path for path in outside.iterdir() if path != tmp_path}
    server = build_server(play.service)
    tried = refused = 0

    with asyncio.Runner() as runner:

        @settings(
            max_examples=times(400, proof=2000),
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.data())
        def attack(data):
            nonlocal tried, refused
            tool, arguments = calls(data.draw, play.task_id, agent_id)

            async def call():
                async with Client(server) as client:
                    return await client.call_tool(tool, arguments)

            result = runner.run(call())
            tried += 1
            if result.is_error:
                refused += 1
                refusal = json.loads(result.content[0].text)
                assert refusal["code"] in REFUSALS, (tool, arguments, result)
                assert refusal["next_step"]
            else:
                assert json.loads(result.content[0].text) == result.structured_content

        attack()
    assert tried >= 300
    assert refused > tried / 4
    assert {path for path in outside.iterdir() if path != tmp_path} == before
    assert not [path for path in tmp_path.rglob("*") if CANARY in path.name]
    assert not Path("/tmp/canary").exists()
    assert play.now.status == "ACTIVE"


@pytest.mark.parametrize("prompt", [n for n in NASTY if "\x00" not in n])
def test_hostile_prompts_arrive_byte_for_byte(opened, tmp_path, monkeypatch, prompt):
    """A hostile prompt reaches a process byte for byte, and creates no file in the workspace."""
    monkeypatch.chdir(tmp_path)
    code = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())"
    echo = AgentKind(argv=(sys.executable, "-S", "-c", code), preamble=False)
    play = opened("memory", kinds={"echo": echo}).create("only")
    agent = play.service.deploy(play.task_id, "t", prompt, kind="echo")
    log = tmp_path / play.task_id / "logs" / f"{agent.agent_id}_stream.jsonl"
    while play.agent(agent.agent_id).status == "running":
        os.sched_yield()
    assert log.read_bytes() == prompt.encode()
    assert not [path for path in tmp_path.rglob("*") if CANARY in path.name]


@pytest.mark.parametrize("prompt", ["a\x00b", "\ud800", "x" * 500 + "\x00"])
def test_prompts_that_cannot_arrive(play, prompt):
    """A prompt with NUL or a lone surrogate is refused before anything is reserved."""
    play.create("only")
    with pytest.raises(ValueError, match="lone surrogate"):
        play.service.deploy(play.task_id, "t", prompt)
    assert play.now.agents == ()
