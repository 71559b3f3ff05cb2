"""Which caller may act as which agent, and where the secrets must not be."""

import asyncio
import json
import sys
import time
from contextlib import suppress
from itertools import product
from pathlib import Path

import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError

from orchestrator.agents.callers import (
    CONDUCTOR,
    SECRET,
    Role,
    caller_of,
    check_acts_as,
    is_unverified,
)
from orchestrator.errors import NotAllowed
from orchestrator.mcp.server import build_server
from orchestrator.settings import AgentKind
from registry_api import Delete, Kind, transact
from registry_api.records import ACTIVE_AGENT
from tests.orchestrator import conducting

# It gives its secret to the test alone, and runs until it is killed.
TELLER = (
    "import os, sys, time; out = os.environ['TELL_IN'] + '/' + os.environ['REGISTRY_AGENT_ID'];"
    f"open(out + '.new', 'w').write(os.environ['{SECRET}']);"
    "os.rename(out + '.new', out); time.sleep(600)"
)
SPEAKS = {
    "update_agent_progress": ("agent_id", {"status": "working", "message": "lie"}),
    "report_agent_finding": (
        "agent_id",
        {"finding_type": "issue", "severity": "low", "message": "lie"},
    ),
    "submit_review_verdict": ("reviewer_agent_id", {"verdict": "approved"}),
    "submit_critique": ("agent_id", {"summary": "lie"}),
    "spawn_child_agent": ("parent_agent_id", {"agent_type": "child", "prompt": "lie"}),
}
CONDUCTS = {
    "create_task": {"description": "mine"},
    "deploy_agent": {"agent_type": "more", "prompt": "lie"},
    "kill_agent": {"reason": "lie"},
    "submit_phase_for_review": {},
    "mark_revision_ready": {},
    "abort_stalled_review": {"reason": "lie"},
    "approve_phase_review": {"reason": "lie"},
    "cancel_task": {"reason": "lie"},
    "trigger_health_scan": {},
    "list_tasks": {},
    "get_health_status": {},
}


PARTS = ("", "/progress", "/findings")


@pytest.fixture
def told(tmp_path):
    """The folder in which agents put their secrets: outside the workspace."""
    place = tmp_path.parent / f"{tmp_path.name}-told"
    place.mkdir()
    return place


@pytest.fixture
def teller(opened, told):
    """A Play whose agents are processes that write down their secrets."""
    environment = {"TELL_IN": str(told)}
    kind = AgentKind(argv=(sys.executable, "-c", TELLER), environment=environment, preamble=False)
    return opened("sqlite", kinds={"teller": kind}, default_kind="teller", stop_grace=0.1)


def secret_of(told, agent_id):
    path = told / agent_id
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{agent_id} told nothing"
        time.sleep(0.01)
    return path.read_text()


def environment(play, agent_id, secret):
    """Return the environment to start an agent's own server with; ``play`` gives its task."""
    env = {"REGISTRY_TASK_ID": play.task_id, "REGISTRY_AGENT_ID": agent_id}
    return env if secret is None else env | {SECRET: secret}


def stop(play):
    """End every process of a task."""
    for agent in play.now.agents:
        if agent.status in ACTIVE_AGENT:
            play.service.kill(play.task_id, agent.agent_id, "over")


class Cast:
    """A task in its second review: its reviewers, a reviewer of the first round, workers that have
    ended, and an agent of another task; each with its secret."""

    def __init__(self, play, told):
        self.play = play.create("first")
        self.other = type(play)(play.service).create("elsewhere")
        self.stranger = self.other.deploy("stranger")
        self.dead, self.builder = play.deploy("dead"), play.deploy("builder")
        self.secrets = {}
        self.learn(told, self.dead, self.builder, self.stranger)
        play.service.kill(play.task_id, self.dead, "too slow")
        play.done(self.builder)
        self.old = play.review.reviewers[0]
        self.learn(told, *play.review.reviewers)
        play.say("needs_revision", "needs_revision")
        fixer = play.deploy("fixer")
        self.learn(told, fixer)
        play.service.revision_ready(play.task_id)
        play.done(fixer)
        self.review = play.review
        self.learn(told, *self.review.reviewers)
        self.tasks = dict.fromkeys(self.secrets, play) | {self.stranger: self.other}

    def learn(self, told, *agents):
        self.secrets |= {a: secret_of(told, a) for a in agents}

    def environment(self, agent_id, secret):
        """Return the environment to start an agent's own server with."""
        return environment(self.tasks[agent_id], agent_id, secret)

    def callers(self):
        """Return the environments of a conductor, of honest agents, and of impostors."""
        first, second = self.review.reviewers
        forged = self.secrets[second].rpartition("~")[0] + "~" + "x" * 32
        honest = (first, second, self.old, self.dead, self.builder, self.stranger)
        return [
            {},
            *(self.environment(a, self.secrets[a]) for a in honest),
            *(self.environment(first, secret) for secret in (forged, None, "")),
        ]

    def state(self):
        return self.play.now, self.other.now


@pytest.fixture
def cast(teller, told):
    made = Cast(teller, told)
    yield made
    stop(made.play)
    stop(made.other)


def connected(play, env, question):
    """Run a question with a client of a server that is started with this environment."""

    async def run():
        server = build_server(play.service, caller=lambda: caller_of(play.service.store, env=env))
        async with Client(server) as client:
            return await question(client)

    return asyncio.run(run())


def test_nobody_speaks_as_another(cast):
    """No caller can act as another agent, with any tool."""
    before, tried = cast.state(), 0

    async def attack(client):
        nonlocal tried
        for target, (tool, (as_whom, more)) in product(cast.tasks, SPEAKS.items()):
            own = env.get("REGISTRY_AGENT_ID") == target
            if own and env.get(SECRET) == cast.secrets[target]:
                continue
            if not env and tool == "spawn_child_agent":
                continue  # a conductor deploys agents anywhere
            arguments = {"task_id": cast.tasks[target].task_id, as_whom: target, **more}
            if "review" in tool or "critique" in tool:
                arguments["review_id"] = cast.review.review_id
            refusal = await conducting.refused(client, tool, **arguments)
            assert refusal["code"] == "not_allowed", (env, tool, target, refusal)
            tried += 1

    for env in cast.callers():
        connected(cast.play, env, attack)
    assert tried >= 200
    assert cast.state() == before


def test_no_agent_gets_a_conductors_tool(cast):
    """An agent neither sees nor can call a conductor's tool, whatever secret it has."""
    before = cast.state()
    known = {
        "task_id": cast.play.task_id,
        "agent_id": cast.builder,
        "review_id": cast.review.review_id,
    }

    async def attack(client):
        listed = {t.name for t in (await client.list_tools()).tools}
        assert not listed & set(CONDUCTS)
        assert {"get_task_context", *SPEAKS} - {"spawn_child_agent"} <= listed
        for tool, more in CONDUCTS.items():
            given = {k: v for k, v in known.items() if k in every[tool]} | more
            refusal = await conducting.refused(client, tool, **given)
            assert refusal["code"] == "not_allowed", (env, tool, refusal)

    async def properties(client):
        return {t.name: t.input_schema["properties"] for t in (await client.list_tools()).tools}

    every = connected(cast.play, {}, properties)
    for env in cast.callers()[1:]:
        connected(cast.play, env, attack)
    assert cast.state() == before


def test_agents_read_their_own_task(cast):
    """An agent reads the resources of its own task, a conductor those of all tasks."""
    own, other = cast.play.task_id, cast.other.task_id
    places = ["tasks://list", *(f"task://{t}{p}" for t in (own, other) for p in PARTS)]

    async def read(client):
        seen = set()
        for place in places:
            with suppress(MCPError):
                await client.read_resource(place)
                seen.add(place)
        return seen

    for env in cast.callers():
        mine = env.get("REGISTRY_TASK_ID")
        allowed = {p for p in places if p.startswith(f"task://{mine}")} if env else set(places)
        assert connected(cast.play, env, read) == allowed, env


def test_an_agent_speaks_as_itself(teller, told):
    """A worker reports, adds a finding and starts a child; a reviewer gives its verdict."""
    play = teller.create("first")
    worker = play.deploy("worker")
    secret = secret_of(told, worker)

    def as_agent(agent_id, secret, question):
        return connected(play, environment(play, agent_id, secret), question)

    async def work(client):
        me = {"task_id": play.task_id, "agent_id": worker}
        await conducting.ask(
            client, "report_agent_finding", **me, **SPEAKS["report_agent_finding"][1]
        )
        child = await conducting.ask(
            client,
            "spawn_child_agent",
            task_id=play.task_id,
            parent_agent_id=worker,
            agent_type="child",
            prompt="help",
        )
        play.service.kill(play.task_id, child["agent_id"], "enough")
        return await conducting.ask(client, "update_agent_progress", **me, status="completed")

    async def judge(client):
        return await conducting.ask(
            client,
            "submit_review_verdict",
            task_id=play.task_id,
            review_id=play.review.review_id,
            reviewer_agent_id=first,
            verdict="approved",
        )

    try:
        done = as_agent(worker, secret, work)
        assert done["review_opened"]
        first = play.review.reviewers[0]
        as_agent(first, secret_of(told, first), judge)
        (said,) = play.now.verdicts
        assert said.reviewer_id == first
        (line,) = play.reading.reviews(play.task_id).reviews[0].verdicts
        assert not line.unverified
    finally:
        stop(play)


def test_secrets_are_nowhere_but_with_their_agents(teller, told, tmp_path):
    """A secret is in no prompt, log, document, database or answer; the record holds a hash."""
    play = teller.create("first")
    worker = play.deploy("worker")
    secret = secret_of(told, worker)
    play.report(worker, message="begun")
    word = secret.rpartition("~")[2].encode()
    try:
        answers = [
            play.reading.task(play.task_id),
            play.reading.health(),
            play.reading.output(play.task_id, worker, max_bytes=1000, before=None),
        ]
        assert not any(word in a.model_dump_json().encode() for a in answers)
        assert len(json.loads(play.agent(worker).extra)["secret_sha256"]) == 64
        files = [path for path in Path(tmp_path).rglob("*") if path.is_file()]
        assert len(files) > 5
        assert not [path for path in files if word in path.read_bytes()]
        assert not [p for p in Path("/proc").glob("[0-9]*/cmdline") if word in read(p)]
    finally:
        stop(play)


def read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_agents_without_a_secret_report_as_before(play):
    """Agents without a secret, which run elsewhere or come from an earlier version, can report, and
    their reports and verdicts are marked as unverified."""
    play.create("first")
    agent = play.agent(play.deploy("outside"))
    assert is_unverified(agent)
    for env in ({}, environment(play, agent.agent_id, None)):
        caller = caller_of(play.service.store, env=env)
        check_acts_as(caller, play.task_id, agent.agent_id, agent)
    (line,) = play.reading.task(play.task_id).agents_active
    assert line.unverified
    play.done(agent.agent_id)
    play.approve()
    verdicts = play.reading.reviews(play.task_id).reviews[0].verdicts
    assert [v.unverified for v in verdicts] == [True, True]


def test_a_worker_does_not_vote_for_a_reviewer_that_only_a_document_names(cast):
    """A worker cannot vote for a reviewer that a legacy document names but that has no record."""
    store, play = cast.play.service.store, cast.play
    ghost = cast.review.reviewers[0]
    transact(store, play.task_id, lambda _: (Delete(Kind.AGENT, ghost),), actor="test")
    arguments = {
        "task_id": play.task_id,
        "review_id": cast.review.review_id,
        "reviewer_agent_id": ghost,
        "verdict": "approved",
    }

    async def vote(client):
        return await conducting.refused(client, "submit_review_verdict", **arguments)

    env = cast.environment(cast.builder, cast.secrets[cast.builder])
    assert connected(play, env, vote)["code"] == "not_allowed"


def test_an_agents_server_that_knows_nothing_reads_nothing(play):
    """An agent's server whose client passed on no variable reads no task: its own is unknown."""
    play.create("first")

    async def read(client):
        return await conducting.refused(client, "get_task_status", task_id=play.task_id)

    async def run():
        store = play.service.store
        server = build_server(play.service, caller=lambda: caller_of(store, agent=True, env={}))
        async with Client(server) as client:
            return await read(client)

    refusal = asyncio.run(run())
    assert refusal["code"] == "not_allowed"
    assert SECRET in refusal["next_step"]


def test_an_agent_that_is_being_started_is_nobodys(teller):
    """No caller may act as an agent before its confirmation, when it has no hash yet."""
    play = teller.create("first")
    seen = []
    start = play.service.deployment.start

    def reserved(task, agent, order, prompt, *, ended):
        seen.append(agent)
        return start(task, agent, order, prompt, ended=ended)

    play.service.deployment.start = reserved
    try:
        play.deploy("worker")
        with pytest.raises(NotAllowed):
            check_acts_as(CONDUCTOR, play.task_id, seen[0].agent_id, seen[0])
    finally:
        stop(play)


def test_a_server_for_an_agent_is_never_a_conductors(play):
    """A server started for an agent never gets a conductor's role, even if its client passed on no
    secret, an empty one, or an unexpanded variable name."""
    store = play.service.store
    for env in ({}, {SECRET: f"${{{SECRET}}}"}, {SECRET: ""}):
        assert caller_of(store, agent=True, env=env).role is Role.UNPROVEN
    assert caller_of(store, env={}).role is Role.CONDUCTOR
