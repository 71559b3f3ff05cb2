"""Any commands in any order: only legal transitions happen, and the invariants hold."""

import random
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.service import Orchestrator
from orchestrator.settings import OrchestratorSettings
from registry_api import (
    AgentStatus,
    PhaseStatus,
    ReviewStatus,
    TaskStatus,
    load_settings,
    open_store,
)
from registry_api.errors import InvalidInput, Refused
from registry_api.records import (
    ACTIVE_AGENT,
    PHASE_TRANSITIONS,
    TASK_TRANSITIONS,
    TERMINAL_AGENT,
    TERMINAL_TASK,
)
from tests.orchestrator.playing import Play, launchers
from tests.proof import times

WORDS = ["working", "blocked", "completed", "failed", "error", "reviewing"]
VERDICTS = ["approved", "approved", "approved", "needs_revision", "rejected"]


NUMBERS = st.integers(0, 999)  # the draw does not depend on the number of choices


def anyone(play, draw):
    agents = sorted(play.now.agents, key=lambda a: (a.started_at, a.agent_id))
    number = draw(NUMBERS)
    return agents[number % len(agents)].agent_id if agents else "nobody"


def any_review(play, draw):
    reviews = sorted(play.now.reviews, key=lambda r: r.created_at)
    number = draw(NUMBERS)
    return reviews[number % len(reviews)].review_id if reviews else "none"


def give(play, draw):
    number, word = draw(NUMBERS), draw(st.sampled_from(VERDICTS))
    newest = max(play.now.reviews, key=lambda r: r.created_at, default=None)
    reviewer = newest.reviewers[number % len(newest.reviewers)] if newest else "nobody"
    review_id = newest.review_id if newest else "none"
    play.service.verdict(play.task_id, review_id, reviewer, word)


COMMANDS = {
    "deploy": lambda p, d: p.deploy(d(st.sampled_from("abc")), phase_index=d(indexes)),
    "child": lambda p, d: p.deploy(d(st.sampled_from("xy")), parent=anyone(p, d)),
    "report": lambda p, d: p.report(anyone(p, d), d(st.sampled_from(WORDS))),
    "kill": lambda p, d: p.service.kill(p.task_id, anyone(p, d), "r"),
    "submit": lambda p, d: p.service.submit_phase(p.task_id, phase_index=d(indexes)),
    "ready": lambda p, d: p.service.revision_ready(p.task_id, phase_index=d(indexes)),
    "verdict": give,
    "critique": lambda p, d: p.service.critique(p.task_id, any_review(p, d), anyone(p, d), "c"),
    "abort": lambda p, d: p.service.abort_review(p.task_id, any_review(p, d), "r"),
    "force": lambda p, d: p.service.approve_phase(p.task_id, "r", phase_index=d(indexes)),
    "scan": lambda p, d: p.scan(),
}
LIKELY = [*COMMANDS, *["deploy"] * 4, *["report"] * 6, *["verdict"] * 8, *["ready"] * 2]
indexes = st.sampled_from([None, None, None, 0, 1, 2])


def reached(table, before, after):
    """Return whether the table leads from one status to another within one command."""
    seen, edge = {before}, {before}
    while edge:
        edge = {n for s in edge for n in table[s]} - seen
        seen |= edge
    return after in seen


def refused(command, play, draw):
    """Run a command; return its refusal, None if it succeeded."""
    try:
        command(play, draw)
    except (Refused, InvalidInput) as refusal:
        return refusal
    return None


def check(before, after):
    """Assert the invariants that hold after each command."""
    if before is not None:
        assert reached(TASK_TRANSITIONS, before.task.recorded_status, after.task.recorded_status)
        for phase in before.phases:
            now = after.phase(phase.phase_index)
            assert reached(PHASE_TRANSITIONS, phase.status, now.status)
            assert now.revision_round - phase.revision_round in {0, 1}
        for agent in before.agents:
            now = after.agent(agent.agent_id)
            if agent.status in TERMINAL_AGENT:
                assert now == agent
        kept = {v.verdict_id: v for v in after.verdicts}
        assert all(kept[v.verdict_id] == v for v in before.verdicts)
    recorded = after.task.recorded_status
    assert recorded == after.status or (
        recorded is TaskStatus.ACTIVE and after.status is TaskStatus.INITIALIZED
    )
    open_reviews = [r for r in after.reviews if r.status is ReviewStatus.IN_PROGRESS]
    in_review = [p for p in after.phases if p.status is PhaseStatus.IN_REVIEW]
    if after.status not in TERMINAL_TASK:
        assert [r.review_id for r in open_reviews] == [p.active_review_id for p in in_review]
    else:
        assert not open_reviews
        assert not [a for a in after.agents if a.status in ACTIVE_AGENT]
    for review in after.reviews:
        said = Counter(v.reviewer_id for v in after.verdicts if v.review_id == review.review_id)
        assert set(said) <= set(review.reviewers)
        assert not said or max(said.values()) == 1
        waiting = [r for r in review.reviewers if after.agent(r).status in ACTIVE_AGENT]
        assert bool(waiting) == (review.status is ReviewStatus.IN_PROGRESS)
    approved = [p.phase_index for p in after.phases if p.status is PhaseStatus.APPROVED]
    assert approved == list(range(len(approved)))
    assert sorted(h.from_phase_index for h in after.handovers) == approved
    assert sum(p.status is not PhaseStatus.PENDING for p in after.phases) <= len(approved) + 1
    current = after.task.current_phase_index
    assert current == min(len(approved), len(after.phases) - 1)


@settings(max_examples=times(60, proof=1500), deadline=None)
@given(st.data())
def test_any_commands_in_any_order(data):
    """Each command succeeds or is refused, a refusal changes nothing, and the invariants hold."""
    with tempfile.TemporaryDirectory() as folder:
        place = load_settings(Path(folder), env={}, backend="memory")
        options = OrchestratorSettings(
            default_kind="external", reviewers=2, max_concurrent=4, max_agents=9, max_depth=2
        )
        with_store = open_store(place)
        play = Play(Orchestrator(with_store, launchers(), settings=place, options=options))
        play.create("one", "two", "three")
        check(None, play.now)
        for _ in range(data.draw(st.integers(5, 40))):
            before = play.now
            command = COMMANDS[data.draw(st.sampled_from(LIKELY))]
            refusal = refused(command, play, data.draw)
            assert refusal is None or refusal.next_step
            if refusal is not None and refusal.code != "agent_ended":  # its report is kept
                assert play.now == before
            check(before, play.now)
        with_store.close()


def test_a_task_can_always_be_brought_to_an_end(opened):
    """From any state that a random walk reaches, a conductor can bring the task to COMPLETED."""
    chance = random.Random(7)
    for _ in range(times(15, proof=200)):
        play = opened(max_agents=1000, max_concurrent=100).create("one", "two")
        for _ in range(chance.randrange(1, 30)):
            refused(COMMANDS[chance.choice(LIKELY)], play, partial(drawn, chance))
        for n in range(60):
            if play.now.status in TERMINAL_TASK:
                break
            go_on(play, n)
        assert play.now.status is TaskStatus.COMPLETED


def drawn(chance, strategy):
    return chance.randrange(999) if strategy is NUMBERS else chance.choice(strategy.elements)


def go_on(play, n):
    """Do the next thing that a conductor would do."""
    phase = play.phase(play.now.task.current_phase_index)
    for agent in play.now.agents:
        if agent.status in ACTIVE_AGENT and agent.review_id is None:
            play.done(agent.agent_id)
            return
    match phase.status:
        case PhaseStatus.ACTIVE | PhaseStatus.REVISION_NEEDED:
            play.work(f"n{n}")
        case PhaseStatus.FIXING:
            play.service.revision_ready(play.task_id)
        case PhaseStatus.IN_REVIEW:
            review = play.review
            waiting = [r for r in review.reviewers if play.agent(r).status in ACTIVE_AGENT]
            play.service.verdict(play.task_id, review.review_id, waiting[0], "approved")
        case PhaseStatus.ESCALATED:
            play.service.approve_phase(play.task_id, "must go on")


@pytest.mark.parametrize("status", list(AgentStatus))
def test_statuses_that_an_agent_can_report(play, status):
    """An agent can report every status of its own; a status that only others set is refused."""
    play.create("only")
    agent = play.deploy()
    others = {AgentStatus.KILLED, AgentStatus.TERMINATED, AgentStatus.PHASE_COMPLETED}
    others |= {AgentStatus.UNKNOWN}
    if status in others:
        with pytest.raises(InvalidInput):
            play.report(agent, status)
    else:
        assert play.report(agent, status).status is status
