"""Concurrent callers: limits hold, a review opens once, and two conductors duplicate nothing."""

import asyncio
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial

import pytest

from orchestrator import errors
from registry_api import load_settings, open_store
from tests.orchestrator import conducting
from tests.proof import times


def at_once(*calls):
    """Run calls at the same moment; return their results or refusals."""
    barrier = threading.Barrier(len(calls))

    def run(call):
        barrier.wait(30)
        try:
            return call()
        except errors.Refused as refusal:
            return refusal

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def test_two_last_agents_open_one_review(opened):
    """Two agents that complete at the same moment open exactly one review."""
    one, other = opened("sqlite"), opened("sqlite")
    for _ in range(times(60, proof=1000)):
        one.create("only")
        other.task_id = one.task_id
        first, second = one.deploy("a"), one.deploy("b")
        at_once(lambda a=first: one.done(a), lambda b=second: other.done(b))
        (review,) = one.now.reviews
        assert one.phase(0).active_review_id == review.review_id
        assert len([a for a in one.now.agents if a.review_id]) == 2


def test_a_hundred_deploys_against_a_limit_of_twenty(opened):
    """Of a hundred concurrent deployments exactly twenty succeed: the limit is checked in the
    transaction that reserves."""
    plays = [opened("sqlite") for _ in range(4)]
    plays[0].create("only")
    for play in plays:
        play.task_id = plays[0].task_id
    results = at_once(*(lambda n=n: plays[n % 4].deploy(f"t{n}") for n in range(100)))
    kinds = Counter(type(r) for r in results)
    assert kinds == {str: 20, errors.LimitReached: 80}
    assert len(plays[0].now.agents) == 20


def test_twenty_deploys_of_one_type(opened):
    """Of twenty concurrent deployments of one type one succeeds; the others name its agent."""
    play = opened("sqlite").create("only")
    results = at_once(*(lambda: play.deploy("same") for _ in range(20)))
    (agent,) = [r for r in results if isinstance(r, str)]
    assert {r.fields["agent_id"] for r in results if isinstance(r, errors.DuplicateAgent)} == {
        agent
    }


def test_two_verdicts_of_two_reviewers_decide_once(opened):
    """Two concurrent verdicts approve the phase once and leave one handover."""
    one, other = opened("sqlite"), opened("sqlite")
    for _ in range(times(20, proof=300)):
        one.create("first", "second")
        other.task_id = one.task_id
        one.work()
        review = one.review
        ends = [
            partial(p.service.verdict, p.task_id, review.review_id, r, "approved")
            for p, r in zip((one, other), review.reviewers, strict=True)
        ]
        at_once(*ends)
        assert [p.status for p in one.now.phases] == ["APPROVED", "ACTIVE"]
        assert len(one.now.handovers) == 1


def test_a_kill_at_the_same_time_as_the_last_report(opened):
    """A kill and a last report end the agent once; a review opens only if the report was first."""
    one, other = opened("sqlite"), opened("sqlite")
    for _ in range(times(20, proof=300)):
        one.create("only")
        other.task_id = one.task_id
        agent = one.deploy()
        at_once(
            lambda a=agent: one.done(a),
            lambda a=agent: other.service.kill(other.task_id, a, "impatient"),
        )
        status = one.agent(agent).status
        assert status in {"completed", "terminated"}
        assert len(one.now.reviews) == (status == "completed")


@pytest.mark.parametrize("phase", [None, 1], ids=["sqlite", "dual1"])
def test_two_conductors_double_nothing(tmp_path, phase):
    """Two conductors on two servers that send the same commands at once duplicate nothing."""
    conducting.configure(tmp_path, default_kind="external", reviewers=2)
    more = {} if phase is None else {"REGISTRY_PHASE": str(phase)}
    env = conducting.environment(tmp_path, **more)

    async def both(clients, tool, **arguments):
        results = await asyncio.gather(*(c.call_tool(tool, arguments) for c in clients))
        return [r.structured_content for r in results if not r.is_error]

    async def play():
        async with conducting.over_stdio(env) as one, conducting.over_stdio(env) as two:
            clients = one, two
            phases = [{"name": "a"}, {"name": "b"}]
            task = await conducting.ask(one, "create_task", description="both", phases=phases)
            of = {"task_id": task["task_id"]}
            for _ in phases:
                (agent,) = await both(clients, "deploy_agent", **of, agent_type="w", prompt="p")
                done = {"agent_id": agent["agent_id"], "status": "completed"}
                assert len(await both(clients, "update_agent_progress", **of, **done)) == 1
                review = (await conducting.ask(two, "get_review_status", **of))["reviews"][0]
                for reviewer in review["waiting_for"]:
                    said = {"review_id": review["review_id"], "reviewer_agent_id": reviewer}
                    await both(clients, "submit_review_verdict", **of, **said, verdict="approved")
            return task["task_id"]

    task_id = asyncio.run(play())
    with closing(open_store(load_settings(tmp_path, env={}))) as store:
        snapshot = store.load(task_id)
    assert snapshot.task.recorded_status == "COMPLETED"
    counted = [len(x) for x in (snapshot.agents, snapshot.reviews, snapshot.verdicts)]
    assert (counted, len(snapshot.handovers)) == ([6, 2, 4], 2)
