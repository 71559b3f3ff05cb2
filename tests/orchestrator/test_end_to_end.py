"""End to end, without mocks: a conductor, a server and agents, each its own process."""

import asyncio
import subprocess
import sys
from contextlib import closing

import pytest

from registry_api import AgentStatus, Kind, RecordQuery, load_settings, open_migration, open_store
from tests.orchestrator import conducting
from tests.proof import PROVING

STDIO, HTTP = conducting.over_stdio, conducting.over_http
STORES = {
    "sqlite": {},
    "json": {"REGISTRY_BACKEND": "json", "REGISTRY_PHASE": "0"},
    **{f"dual{n}": {"REGISTRY_PHASE": str(n)} for n in range(5)},
    "lmdb": {"REGISTRY_BACKEND": "lmdb"},
}
MEMORY = {"REGISTRY_BACKEND": "memory"}  # one process: over HTTP alone
TRANSPORTS = {"stdio": STDIO, "http": HTTP}
EACH_TIME = ["sqlite-stdio", "sqlite-http", "dual1-http", "dual3-stdio"]
EVERY = [f"{store}-{transport}" for store in STORES for transport in TRANSPORTS]


@pytest.mark.parametrize("where", EVERY if PROVING else EACH_TIME)
def test_a_task_runs_to_its_end(tmp_path, where):
    """A task of three phases, with a rejected review, a revision round and handovers, ends
    COMPLETED with no agent left."""
    store, _, transport = where.partition("-")
    conducting.configure(tmp_path, reviewers=2)
    env = conducting.environment(tmp_path, **STORES[store])

    async def play():
        async with TRANSPORTS[transport](env) as client:
            return await conducting.conduct(client)

    ended_well(tmp_path, asyncio.run(play()), **STORES[store])


@pytest.mark.skipif(not PROVING, reason="make proof")
def test_a_task_runs_to_its_end_in_memory(tmp_path):
    """The same task ends over HTTP on memory, where all agents share the server's one process."""
    conducting.configure(tmp_path, reviewers=2)
    env = conducting.environment(tmp_path, **MEMORY)

    async def play():
        async with HTTP(env) as client:
            task_id = await conducting.conduct(client)
            return await conducting.ask(client, "get_task_status", task_id=task_id)

    task = asyncio.run(play())
    assert (task["status"], task["agents_by_status"]) == ("COMPLETED", {"completed": 12})


@pytest.mark.parametrize(
    ("first", "last", "transport"),
    [(0, 4, "stdio"), *([(0, 4, "http"), (4, 0, "stdio"), (3, 1, "http")] if PROVING else [])],
)
def test_a_task_runs_while_its_registry_moves(tmp_path, first, last, transport):
    """The task ends while an operator switches the phase, without a restart or a code change."""
    conducting.configure(tmp_path, reviewers=1)
    more = {"REGISTRY_PHASE": str(first), "REGISTRY_RETIRE_SECONDS": "0"}
    env = conducting.environment(tmp_path, **more)
    switch = [sys.executable, "-m", "backends.admin", "switch", str(last)]

    async def move():
        process = await asyncio.create_subprocess_exec(
            *switch, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()

    async def play():
        async with TRANSPORTS[transport](env) as client:
            return await conducting.conduct(client, between=move)

    ended_well(tmp_path, asyncio.run(play()))
    with closing(open_migration(load_settings(tmp_path, env={}))) as migration:
        assert migration.status().record.phase == last
        assert migration.verify().mismatches == ()


def ended_well(workspace, task_id, **env):
    chosen = {"REGISTRY_BACKEND": env["REGISTRY_BACKEND"]} if "REGISTRY_BACKEND" in env else {}
    with closing(open_store(load_settings(workspace, env=chosen))) as store:
        snapshot = store.load(task_id)
        counts = store.counts()
        reports = store.list_records(Kind.PROGRESS, RecordQuery(task_id=task_id)).items
    assert snapshot.status == snapshot.task.recorded_status == "COMPLETED"
    assert [p.status for p in snapshot.phases] == ["APPROVED"] * 3
    assert [p.revision_round for p in snapshot.phases] == [0, 1, 0]
    assert len(snapshot.reviews) == 4
    assert len(snapshot.handovers) == 3
    assert {a.status for a in snapshot.agents} == {AgentStatus.COMPLETED}
    assert (counts.active_agents, counts.active_tasks) == (0, 0)
    assert len(reports) == 8
    for agent in snapshot.agents:
        if agent.review_id is None:
            prompt = (workspace / task_id / f"agent_prompt_{agent.agent_id}.txt").read_bytes()
            assert prompt.endswith(b'"quoted" $(touch canary)\n')
            log = (workspace / task_id / "logs" / f"{agent.agent_id}_stream.jsonl").read_text()
            assert log == "done\n"
    assert not list(workspace.rglob("canary"))
