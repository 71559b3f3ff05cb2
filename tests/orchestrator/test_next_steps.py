"""A caller that follows a refusal's next step is not refused again."""

import asyncio
import re
import sys

import pytest
from mcp import Client

from orchestrator.mcp.server import build_server
from orchestrator.rules.agents import Limits
from orchestrator.settings import AgentKind
from registry_api.records import ACTIVE_AGENT
from tests.orchestrator import conducting
from tests.orchestrator.test_server import ISSUED

OTHER = "another-type"


def empty(play):
    play.create("first", "second")


def at_work(play):
    play.create("first", "second").deploy("builder")


def done(play):
    play.create("first", "second").work("builder")


def ended(play):
    play.create().work("builder")


def rejected(play):
    done(play)
    play.say("rejected", "rejected")


def fixing(play):
    rejected(play)
    play.deploy("fixer")


def escalated(play):
    done(play)
    play.service.abort_review(play.task_id, play.review.review_id, "nobody answers")


def approved(play):
    done(play)
    play.approve()


def full(play):
    play.create("first", limits=Limits(max_agents=1))
    play.work("builder")
    play.say("rejected", "rejected")


REVIEWER = {"agent_id": "reviewer"}
VERDICT = {"review_id": "newest", "reviewer_agent_id": "reviewer", "verdict": "approved"}
KINDS = {
    "missing": AgentKind(argv=("no-such-program",)),
    "running": AgentKind(
        argv=(sys.executable, "-c", "import time; time.sleep(600)"), preamble=False
    ),
}


def voted(play):
    done(play)
    play.say("approved")


def running(play):
    """A task with an agent that has a secret, since it was started as a process."""
    play.create("first").deploy("builder", kind="running")


# The state of a task, a tool and its arguments, the code of the refusal.
REFUSED = [
    (empty, "get_task_status", {"task_id": "TASK-none"}, "task_not_found"),
    (empty, "get_phase_status", {"phase_index": 7}, "phase_not_found"),
    (empty, "get_phase_handover", {}, "no_handover"),
    (empty, "submit_phase_for_review", {}, "nothing_to_review"),
    (empty, "approve_phase_review", {"reason": "x"}, "phase_closed"),
    (empty, "mark_revision_ready", {}, "phase_closed"),
    (empty, "deploy_agent", {"phase_index": 1}, "phase_closed"),
    (empty, "get_agent_output", {"agent_id": "nobody"}, "agent_not_found"),
    (empty, "get_review_status", {"review_id": "none"}, "review_not_found"),
    (empty, "deploy_agent", {"kind": "none"}, "unknown_agent_kind"),
    (empty, "list_tasks", {"cursor": "zzz"}, "invalid_query"),
    (at_work, "deploy_agent", {"agent_type": "builder"}, "duplicate_agent"),
    (at_work, "submit_phase_for_review", {}, "agents_active"),
    (done, "deploy_agent", {}, "phase_closed"),
    (done, "submit_phase_for_review", {}, "phase_closed"),
    (done, "approve_phase_review", {"reason": "x"}, "phase_closed"),
    (done, "kill_agent", {"agent_id": "builder"}, "agent_ended"),
    (ended, "deploy_agent", {}, "task_ended"),
    (ended, "cancel_task", {"reason": "x"}, "task_ended"),
    (ended, "get_phase_status", {}, "phase_not_found"),
    (rejected, "approve_phase_review", {"reason": "x"}, "phase_closed"),
    (fixing, "approve_phase_review", {"reason": "x"}, "phase_closed"),
    (escalated, "deploy_agent", {}, "phase_closed"),
    (escalated, "mark_revision_ready", {}, "phase_closed"),
    (escalated, "abort_stalled_review", {"review_id": "newest", "reason": "x"}, "review_ended"),
    (approved, "deploy_agent", {"phase_index": 0}, "phase_closed"),
    (full, "deploy_agent", {}, "limit_reached"),
    (empty, "deploy_agent", {"kind": "missing"}, "launch_failed"),
    (running, "update_agent_progress", {"agent_id": "builder", "status": "working"}, "not_allowed"),
    (done, "update_agent_progress", REVIEWER | {"status": "completed"}, "verdict_missing"),
    (done, "submit_review_verdict", VERDICT | {"reviewer_agent_id": "builder"}, "not_a_reviewer"),
    (voted, "submit_review_verdict", VERDICT | {"verdict": "rejected"}, "verdict_exists"),
]


def arguments(play, server, tool, given):
    """Return the arguments of a caller that knows the task, with placeholder ids filled in."""
    now = play.now
    agents = {a.type: a.agent_id for a in now.agents if a.review_id is None}
    if now.reviews:
        agents["reviewer"] = now.reviews[-1].reviewers[0]
    active = [a.agent_id for a in now.agents if a.status in ACTIVE_AGENT]
    known = {
        "task_id": play.task_id,
        "agent_id": (active or list(agents.values()) or ["nobody"])[0],
        "review_id": now.reviews[-1].review_id if now.reviews else "none",
        "agent_type": OTHER,
        "prompt": "work",
        "description": "a task",
        "reason": "because",
        "reviewer_agent_id": agents.get("reviewer", "nobody"),
        "verdict": "approved",
    }
    schema = server._tool_input_schema(tool)
    filled = {k: v for k, v in known.items() if k in schema.get("required", [])} | given
    for name in ("agent_id", "reviewer_agent_id"):
        if filled.get(name) in agents:
            filled[name] = agents[filled[name]]
    if filled.get("review_id") == "newest":
        filled["review_id"] = known["review_id"]
    return filled


@pytest.mark.parametrize(
    ("stands", "tool", "given", "code"),
    REFUSED,
    ids=[f"{stands.__name__}-{tool}-{code}" for stands, tool, _, code in REFUSED],
)
def test_the_next_step_of_a_refusal_leads_on(opened, stands, tool, given, code):
    """The next step names a tool that then succeeds, or says what to give, read or wait for."""
    play = opened(kinds=KINDS)
    stands(play)
    server = build_server(play.service)

    async def run():
        async with Client(server) as client:
            before = play.now
            refusal = await conducting.refused(client, tool, **arguments(play, server, tool, given))
            assert (refusal["code"], play.now) == (code, before)
            step = refusal["next_step"]
            tools = [w for w in re.findall(r"[a-z]+(?:_[a-z]+)+", step) if w in ISSUED]
            if not tools:
                assert re.search(
                    r"Wait|Use|Its|Known|Work|Nothing|next_cursor|completes|kind external", step
                ), step
                changed = {"kind": "external"} if "kind external" in step else {}
                if step.startswith("Its reviewers are "):
                    changed = {"reviewer_agent_id": step.split()[3].rstrip(",")}
                if changed:  # the same call as the step says
                    again = arguments(play, server, tool, given) | changed
                    await conducting.ask(client, tool, **again)
                return
            await conducting.ask(client, tools[0], **arguments(play, server, tools[0], {}))

    asyncio.run(run())
