"""An escalated phase is force-approved only if the user, where one can be asked, agrees."""

import asyncio

import pytest
from mcp import Client
from mcp.types import ElicitResult

from orchestrator.agents.callers import Caller, Role
from orchestrator.mcp.server import build_server
from registry_api import PhaseStatus
from tests.orchestrator import conducting

VERSIONS = ["legacy", "auto"]  # by a request of the server, and by a result that asks back
FORCE = {"reason": "good enough for a draft"}


def escalated(play):
    play.create("first").work()
    play.service.abort_review(play.task_id, play.review.review_id, "nobody answers")
    return play


def forced(play, answer, version, caller=None):
    """Force-approve through a client whose user answers; return the result and the questions."""
    asked = []

    async def user(_context, params):
        asked.append(params.message)
        return answer

    async def run():
        server = build_server(play.service, caller=caller)
        how = {"elicitation_callback": user} if answer else {}
        async with Client(server, mode=version, **how) as client:
            of = {"task_id": play.task_id, **FORCE}
            return await client.call_tool("approve_phase_review", of)

    return asyncio.run(run()), asked


@pytest.mark.parametrize("version", VERSIONS)
def test_the_user_agrees(play, version):
    """The user's consent force-approves the phase; the question names the phase, why it is
    escalated, and the conductor's reason."""
    yes = ElicitResult(action="accept", content={"approve": True})
    result, asked = forced(escalated(play), yes, version)
    assert not result.is_error, result.content
    (question,) = asked
    for said in (play.task_id, "first", "nobody answers", FORCE["reason"]):
        assert said in question
    assert play.phase(0).status is PhaseStatus.APPROVED
    assert "forced_approval" in play.phase(0).extra


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "answer",
    [
        ElicitResult(action="accept", content={"approve": False}),
        ElicitResult(action="decline"),
        ElicitResult(action="cancel"),
    ],
    ids=["no", "decline", "cancel"],
)
def test_the_user_does_not_agree(play, version, answer):
    """Without the user's consent nothing changes; the conductor learns why, and the next step that
    it is told opens another review."""
    before = escalated(play).now
    result, asked = forced(play, answer, version)
    assert len(asked) == 1
    assert result.is_error
    assert '"not_confirmed"' in result.content[0].text
    assert play.now == before
    assert "submit_phase_for_review opens a new review" in result.content[0].text
    play.service.submit_phase(play.task_id)
    assert play.review.review_id != before.reviews[-1].review_id


@pytest.mark.parametrize("version", VERSIONS)
def test_nobody_can_be_asked(play, version):
    """With a client that cannot ask a user, the conductor decides."""
    result, _ = forced(escalated(play), None, version)
    assert not result.is_error
    assert play.phase(0).status is PhaseStatus.APPROVED


@pytest.mark.parametrize("version", VERSIONS)
def test_the_user_is_not_asked_about_a_refused_call(play, version):
    """The user is not asked about a phase that is not escalated, nor for an agent."""
    yes = ElicitResult(action="accept", content={"approve": True})
    result, asked = forced(play.create("first"), yes, version)
    assert '"phase_closed"' in result.content[0].text
    escalated(play)
    worker = Caller(role=Role.WORKER, task_id=play.task_id, agent_id="w")
    denied, still = forced(play, yes, version, lambda: worker)
    assert '"not_allowed"' in denied.content[0].text
    assert asked == still == []


def test_only_the_phase_that_was_asked_about_is_approved(play):
    """If the phase changes while the question is open, the next escalated phase is not approved."""
    play.create("first", "second").work()
    play.service.abort_review(play.task_id, play.review.review_id, "nobody answers")

    async def user(_context, _params):
        play.service.approve_phase(play.task_id, "I was faster")
        play.work("other")
        play.service.abort_review(play.task_id, play.review.review_id, "nobody answers")
        return ElicitResult(action="accept", content={"approve": True})

    async def run():
        server = build_server(play.service)
        async with Client(server, mode="legacy", elicitation_callback=user) as client:
            of = {"task_id": play.task_id, **FORCE}
            return await conducting.refused(client, "approve_phase_review", **of)

    assert asyncio.run(run())["code"] == "phase_closed"
    assert play.phase(1).status is PhaseStatus.ESCALATED


def test_the_confirmation_is_not_an_argument(play):
    """A model cannot give the confirmation in the user's place."""
    escalated(play)

    async def question(client):
        tools = {t.name: t.input_schema for t in (await client.list_tools()).tools}
        assert "confirmed" not in tools["approve_phase_review"]["properties"]
        of = {"task_id": play.task_id, **FORCE, "confirmed": {"action": "accept"}}
        return await conducting.refused(client, "approve_phase_review", **of)

    async def run():
        async with Client(build_server(play.service)) as client:
            return await question(client)

    assert asyncio.run(run())["code"] == "invalid_input"
