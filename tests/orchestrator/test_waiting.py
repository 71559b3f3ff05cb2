"""A conductor waits instead of polling: which changes end a wait, its cost, and no lost change."""

import asyncio
import json
import threading
import time
from contextlib import closing

import anyio
import pytest
from mcp import Client

from orchestrator.mcp.server import build_server
from orchestrator.rules.reviews import VerdictWord
from registry_api import load_settings, open_migration
from registry_api.errors import CursorExpired, Unavailable
from tests.orchestrator import conducting
from tests.proof import PROVING


def waited(play, question):
    """Run a question against the server of a Play."""

    async def run():
        with anyio.fail_after(240):
            async with Client(build_server(play.service)) as client:
                return await question(client)

    return asyncio.run(run())


async def wait(client, play, **more):
    return await conducting.ask(client, "wait_for", task_id=play.task_id, **more)


async def soon(call, *arguments):
    """Call something once a wait has begun; a wait that returns at once would not see it."""
    await anyio.sleep(0.6)
    await anyio.to_thread.run_sync(lambda: call(*arguments))


async def both(client, play, call, *arguments, **more):
    """Wait, and call something meanwhile; return the answer.

    It waits from a cursor, so that a change before the wait has begun is reported too: hosts are
    slow.
    """
    answers = []
    if not more.get("cursor"):
        more["cursor"] = (await wait(client, play, **more | {"seconds": 0}))["cursor"]

    async def waiting():
        answers.append(await wait(client, play, **more))

    async with anyio.create_task_group() as group:
        group.start_soon(waiting)
        group.start_soon(soon, call, *arguments)
    return answers[0]


def verdict(play, reviewer):
    """Have one reviewer of the open review approve."""
    play.service.verdict(play.task_id, play.review.review_id, reviewer, VerdictWord.APPROVED)


def test_it_returns_at_once_without_active_agents(play):
    """Without active agents wait_for returns at once, and the next step says what to do."""
    play.create("only")

    async def question(client):
        began = time.monotonic()
        answer = await wait(client, play)
        return answer, time.monotonic() - began

    answer, took = waited(play, question)
    assert answer["next_step"] == "deploy_agent"
    assert answer["task_status"] == "INITIALIZED"
    assert "changes" not in answer
    assert took < 30


@pytest.mark.parametrize("backend", ["memory", "json", "sqlite"])
def test_it_returns_for_each_change_a_conductor_must_know(opened, backend):
    """An agent's end, its review, each verdict and the phase's approval end a wait."""
    play = opened(backend).create("first", "second")
    agent = play.deploy()

    async def question(client):
        ended = await both(client, play, play.done, agent, cursor="")
        assert f"agent {agent} completed" in "\n".join(ended["changes"])
        assert ended["phase_status"] == "IN_REVIEW"
        assert any(line.startswith("review ") for line in ended["changes"])
        review = play.review
        first, second = review.reviewers
        cursor = ended["cursor"]
        said = await both(client, play, verdict, play, first, cursor=cursor)
        assert f"verdict {review.review_id} {first} approved" in said["changes"]
        approved = await both(client, play, verdict, play, second, cursor=said["cursor"])
        assert "phase 0 APPROVED" in approved["changes"]
        assert "phase 1 ACTIVE" in approved["changes"]
        assert approved["next_step"] == "deploy_agent"

    waited(play, question)


def test_nothing_between_two_waits_is_missed(play):
    """A wait from a cursor reports the changes since that cursor at once."""
    play.create("only")
    agents = [play.deploy(name) for name in ("a", "b")]

    async def question(client):
        first = await wait(client, play, seconds=0)
        assert "changes" not in first
        await anyio.to_thread.run_sync(play.done, agents[0])
        second = await wait(client, play, cursor=first["cursor"])
        assert second["changes"] == [f"agent {agents[0]} completed"]
        third = await wait(client, play, cursor=second["cursor"], seconds=0.3)
        assert "changes" not in third
        assert third["cursor"] == second["cursor"]
        assert "wait_for again" in third["next_step"]

    waited(play, question)


def test_reports_end_a_wait_only_on_request(play):
    """A progress report ends a wait only on request; a blocked agent always does."""
    play.create("only")
    agent = play.deploy()

    def report():
        play.report(agent, message="half of it")

    def blocked():
        play.service.report(play.task_id, agent, "blocked", "no key", 50)

    async def question(client):
        first = await wait(client, play, seconds=0)
        quiet = await both(client, play, report, cursor=first["cursor"], seconds=2)
        assert "changes" not in quiet
        start = await wait(client, play, seconds=0, progress=True)
        told = await both(client, play, report, cursor=start["cursor"], seconds=30, progress=True)
        assert any("half of it" in line for line in told["changes"])
        stuck = await both(client, play, blocked, cursor=first["cursor"], seconds=30)
        assert stuck["changes"] == [f"agent {agent} blocked"]

    waited(play, question)


def test_a_phase_is_waited_for_alone(play):
    """A wait for one phase does not end for changes of other phases."""
    play.create("first", "second")
    play.work()
    play.approve()
    agent = play.deploy()

    async def question(client):
        done = await wait(client, play, phase_index=0)
        assert done["phase_status"] == "APPROVED"
        woken = await both(client, play, play.done, agent, phase_index=1)
        assert woken["phase_status"] == "IN_REVIEW"
        refusal = await conducting.refused(client, "wait_for", task_id=play.task_id, phase_index=7)
        assert refusal["code"] == "phase_not_found"

    waited(play, question)


def test_a_feed_that_cannot_be_read_holds_nobody(play, monkeypatch):
    """A wait whose feed cannot be read ends at its time limit, with the task's current state."""
    play.create("only")
    agent = play.deploy()

    def broken(*_args, **_options):
        raise Unavailable("the disk is away", next_step="Mount it")

    monkeypatch.setattr(play.service.store, "changes", broken)

    async def question(client):
        first = await wait(client, play, seconds=0)
        play.done(agent)
        return await wait(client, play, seconds=2, cursor=first["cursor"])

    assert waited(play, question)["changes"]


def test_a_feed_that_starts_over_loses_no_change(play, monkeypatch):
    """A change committed between losing a cursor and getting a new one ends the wait too."""
    play.create("only")
    agents = [play.deploy(name) for name in ("a", "b")]
    changes, raised = play.service.store.changes, []

    def expired(after=None, **options):
        if after is not None and not raised and options.get("limit") == 500:
            raised.append(after)
            play.done(agents[0])
            raise CursorExpired("too old", next_step="Begin anew")
        return changes(after, **options)

    async def question(client):
        first = await wait(client, play, seconds=0)
        monkeypatch.setattr(play.service.store, "changes", expired)
        return await wait(client, play, cursor=first["cursor"])

    answer = waited(play, question)
    assert raised
    assert answer["changes"] == [f"agent {agents[0]} completed"]


def test_an_unknown_task_is_refused(play):
    """A wait for an unknown task is refused at once, as in any other tool."""
    refusal = waited(play, lambda c: conducting.refused(c, "wait_for", task_id="TASK-none"))
    assert refusal["code"] == "task_not_found"


def test_a_waiting_client_is_told_that_time_passes(play, monkeypatch):
    """A client that sends a progress token is notified while it waits, and so does not give up."""
    monkeypatch.setattr("orchestrator.mcp.waiting._PROGRESS_INTERVAL", 0.2)
    play.create("only")
    play.deploy()
    told = []

    async def heard(progress, total, message):
        told.append((progress, total))

    async def question(client):
        arguments = {"task_id": play.task_id, "seconds": 5}
        return await client.call_tool("wait_for", arguments, progress_callback=heard)

    answer = waited(play, question)
    assert not answer.is_error
    assert len(told) >= 3
    assert all(total == 5 for _, total in told)
    assert [p for p, _ in told] == sorted(p for p, _ in told)


def test_fifty_wait_and_hold_no_thread(opened, monkeypatch):
    """Fifty waits hold no thread, and one change ends them all with one load and one follower."""
    play = opened("sqlite").create("only")
    agent = play.deploy()
    loads = []
    load = play.service.store.load

    def counted(task_id, **options):
        if not options:  # only whole tasks: the report itself loads one agent
            loads.append(threading.get_ident())
        return load(task_id, **options)

    monkeypatch.setattr(play.service.store, "load", counted)

    async def question(client):
        answers = []

        cursor = (await wait(client, play, seconds=0))["cursor"]

        async def waiting():
            answers.append(await wait(client, play, cursor=cursor))

        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(waiting)
            await anyio.sleep(1.0)
            for _ in range(20):
                await conducting.ask(client, "get_task_status", task_id=play.task_id)
            assert not answers
            loads.clear()
            await soon(play.done, agent)
        return answers

    answers = waited(play, question)
    assert len(answers) == 50
    assert {json.dumps(a) for a in answers} == {json.dumps(answers[0])}
    assert len(loads) <= 10  # two for the report, one for all waits, some to spare


def test_it_wakes_across_a_switch(opened, tmp_path):
    """A wait goes on across a switch, which changes the feed's id, and ends at the next change."""
    play = opened("dual").create("only")
    agent = play.deploy()

    def switched():
        with closing(open_migration(load_settings(tmp_path, env={}))) as migration:
            for phase in (1, 2, 3):
                migration.switch(phase, actor="test")
        play.done(agent)

    answer = waited(play, lambda client: both(client, play, switched, seconds=45))
    assert any(agent in line for line in answer["changes"])


@pytest.mark.parametrize("polls", [False, *([True] if PROVING else [])])
def test_a_conductor_that_follows_each_next_step(tmp_path, polls, record_property):
    """A conductor that waits completes three phases, one of them rejected once, with at most 40
    calls and 15,000 tokens of answers."""
    conducting.configure(tmp_path, reviewers=2)
    names = ["plan", "build, flawed at first", "polish"]

    async def run():
        async with conducting.over_stdio(conducting.environment(tmp_path)) as client:
            conductor = conducting.StepFollower(client, polls=polls)
            return await conductor.conduct(names), conductor

    task, conductor = asyncio.run(run())
    record_property("calls", conductor.calls)
    record_property("tokens", conductor.tokens)
    print(f"{conductor.calls} calls, {conductor.tokens:.0f} tokens")
    assert task["status"] == "COMPLETED"
    if not polls:  # polling takes more on a slow host: only printed, for comparison
        assert conductor.calls <= 40
        assert conductor.tokens <= 15_000
