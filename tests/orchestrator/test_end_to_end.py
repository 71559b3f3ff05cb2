"""The whole of it, nothing mocked: a conductor, a server, agents, each a process of its own."""

import asyncio
import subprocess
import sys
from contextlib import closing

import pytest

from registry_api import AgentStatus, Kind, RecordQuery, load_settings, open_migration, open_store
from tests.orchestrator import conducting

STDIO, HTTP = conducting.over_stdio, conducting.over_http


def phases_of(workspace, phase):
    return {"REGISTRY_PHASE": str(phase)} if phase is not None else {}


@pytest.mark.parametrize(
    ("phase", "transport"),
    [
        pytest.param(None, STDIO, id="sqlite-stdio"),
        pytest.param(None, HTTP, id="sqlite-http"),
        pytest.param(1, HTTP, id="dual1-http"),
        pytest.param(3, STDIO, id="dual3-stdio"),
    ],
)
def test_a_task_runs_to_its_end(tmp_path, phase, transport):
    """Three phases, a rejected review, a revision round, handovers, COMPLETED; no agent is left."""
    conducting.configure(tmp_path, reviewers=2)
    env = conducting.environment(tmp_path, **phases_of(tmp_path, phase))

    async def play():
        async with transport(env) as client:
            return await conducting.conduct(client)

    ended_well(tmp_path, asyncio.run(play()))


def test_a_task_runs_while_its_registry_moves(tmp_path):
    """The same, while an operator switches from 0 to 4 in the middle: no restart, no code edit."""
    conducting.configure(tmp_path, reviewers=1)
    env = conducting.environment(tmp_path, REGISTRY_PHASE="0", REGISTRY_RETIRE_SECONDS="0")
    switch = [sys.executable, "-m", "backends.admin", "switch", "4"]

    async def move():
        process = await asyncio.create_subprocess_exec(
            *switch, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()

    async def play():
        async with STDIO(env) as client:
            return await conducting.conduct(client, between=move)

    task_id = asyncio.run(play())
    ended_well(tmp_path, task_id)
    with closing(open_migration(load_settings(tmp_path, env={}))) as migration:
        assert migration.status().record.phase == 4
        assert migration.verify().mismatches == ()


def ended_well(workspace, task_id):
    with closing(open_store(load_settings(workspace, env={}))) as store:
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
