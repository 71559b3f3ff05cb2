"""A task that runs to its end although its reviewer, its workers, its server and the health daemon
are killed, frozen and silent: real processes, in tmux and without it, in each migration phase."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager, closing
from pathlib import Path

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from orchestrator.agents import process_identity
from registry_api import load_settings, open_migration, open_store
from registry_api.records import ACTIVE_AGENT
from tests.orchestrator import conducting
from tests.orchestrator.playing import launchers
from tests.proof import PROVING

PATIENCE = 180
EACH_TIME = ["process-2-3", "tmux-0-0"]
EVERY = [f"{name}-{n}-{n}" for name in ("process", "tmux") for n in range(5)]
EVERY += ["process-0-4", "tmux-0-4", "process-4-0", "tmux-3-1"]
SILENT = "import sys; print('gave up'); sys.exit(3)"


class Host:
    """A workspace with its server and a health daemon, each of which may be killed."""

    def __init__(self, workspace, launcher, phase):
        self.workspace = workspace
        self.temporary = Path(tempfile.mkdtemp(dir="/tmp"))  # a socket's path must be short
        conducting.configure(
            workspace, reviewers=1, launcher=launcher, health_interval=0.5, end_grace=5.0
        )
        silent = json.dumps([sys.executable, "-c", SILENT])
        with (workspace / "registry.toml").open("a") as file:
            file.write(f"[orchestrator.kinds.silent]\nargv = {silent}\n")
        self.env = conducting.environment(
            workspace,
            REGISTRY_PHASE=str(phase),
            REGISTRY_RETIRE_SECONDS="0",
            TMPDIR=str(self.temporary),
            TMUX_TMPDIR=str(self.temporary),
        )
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.port = taken.getsockname()[1]
        self.processes = {}

    def start(self, name, *command):
        command = [sys.executable, "-m", "orchestrator", *command]
        self.processes[name] = subprocess.Popen(
            command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def serve(self):
        self.start("server", "serve", "--http", f"127.0.0.1:{self.port}")
        assert self.processes["server"].stdout.readline().startswith("http://")

    def watch(self):
        self.start("daemon", "health", "--interval", "0.5", "--json")

    def switch(self, phase):
        command = [sys.executable, "-m", "backends.admin", "switch", str(phase)]
        return subprocess.Popen(
            command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def kill(self, name):
        process = self.processes.pop(name)
        process.kill()
        process.communicate()

    def end(self):
        for name in list(self.processes):
            process = self.processes.pop(name)
            process.terminate()
            process.communicate()

    @asynccontextmanager
    async def client(self):
        token = (self.workspace / ".registry" / "token").read_text()
        bearer = {"Authorization": f"Bearer {token}"}
        url = f"http://127.0.0.1:{self.port}/mcp"
        async with (
            httpx2.AsyncClient(headers=bearer) as http,
            Client(streamable_http_client(url, http_client=http)) as client,
        ):
            yield client

    def snapshot(self, task_id):
        with closing(open_store(load_settings(self.workspace, env={}), read_only=True)) as store:
            return store.load(task_id)

    async def until(self, condition):
        deadline = time.monotonic() + PATIENCE
        while not (found := condition()):
            assert time.monotonic() < deadline, "waited too long"
            await asyncio.sleep(0.1)
        return found

    async def process_of(self, task_id, agent_id):
        """The pid of an agent, once it is recorded."""

        def found():
            agent = self.snapshot(task_id).agent(agent_id)
            identity = json.loads(agent.extra).get("process")
            return identity and process_identity.pid_of(identity)

        return await self.until(found)

    async def reviewer(self, task_id, other_than=""):
        def found():
            for review in self.snapshot(task_id).reviews:
                for name in review.reviewers:
                    if review.status == "in_progress" and name != other_than:
                        return name
            return None

        return await self.until(found)


async def deploy(client, task_id, kind="scripted", agent_type="worker"):
    agent = {"task_id": task_id, "agent_type": agent_type, "prompt": "do your part", "kind": kind}
    return (await conducting.ask(client, "deploy_agent", **agent))["agent_id"]


async def first_phase(host, client, task_id):
    """A reviewer is killed: another one takes its place and finishes."""
    await deploy(client, task_id)
    first = await host.reviewer(task_id)
    os.kill(await host.process_of(task_id, first), signal.SIGKILL)
    await conducting.until(client, task_id, 0, "APPROVED")
    reviewers = [a for a in host.snapshot(task_id).agents if a.review_id]
    said = {a.agent_id: json.loads(a.extra) for a in reviewers}
    assert said[first]["retried_by"] in said
    assert said[first]["failure_reason"].startswith("ended with signal 9")


async def second_phase(host, client, task_id):
    """A worker exits without a word: it has failed, with its last output; another is frozen, and
    goes on when it is woken; the server and the leading daemon are killed meanwhile."""
    gone = await deploy(client, task_id, "silent", "silent")

    def failed():
        agent = host.snapshot(task_id).agent(gone)
        return agent.status == "failed" and json.loads(agent.extra)

    said = await host.until(failed)
    assert (said["failure_reason"], said["last_output"]) == (
        "ended with exit code 3, no final report",
        "gave up",
    )
    frozen = await deploy(client, task_id, agent_type="frozen")
    pid = await host.process_of(task_id, frozen)
    os.kill(pid, signal.SIGSTOP)
    host.kill("server")
    other = await host.until(lambda: leader_is(host, "daemon"))
    assert other
    await asyncio.sleep(1.5)
    assert host.snapshot(task_id).agent(frozen).status in ACTIVE_AGENT
    return frozen, pid


def leader_is(host, name):
    """Whether this program scans: the daemon prints a line for each scan."""
    process = host.processes[name]
    os.set_blocking(process.stdout.fileno(), False)
    return bool(process.stdout.readline())


async def run(host, *, last, first):
    host.serve()
    host.watch()
    async with host.client() as client:
        phases = [{"name": "plan"}, {"name": "build"}, {"name": "polish"}]
        task = await conducting.ask(client, "create_task", description="to the end", phases=phases)
        task_id = task["task_id"]
        await first_phase(host, client, task_id)
        moving = host.switch(last) if last != first else None
        _, pid = await second_phase(host, client, task_id)
    host.serve()
    host.kill("daemon")  # the server's own takes over within the lease
    os.kill(pid, signal.SIGCONT)
    async with host.client() as client:
        await conducting.until(client, task_id, 1, "APPROVED")
        if moving is not None:
            said, _ = await asyncio.to_thread(moving.communicate)
            assert moving.returncode == 0, said
        worker = await deploy(client, task_id)
        await conducting.until(client, task_id, 2, "APPROVED")
        task = await conducting.ask(client, "get_task_status", task_id=task_id)
        assert task["status"] == "COMPLETED"
        assert worker
    return task_id


def running(workspace):
    return [one for made in launchers().all().values() for one in made.running(workspace)]


@pytest.mark.parametrize("how", EVERY if PROVING else EACH_TIME)
def test_a_task_ends_although_everything_dies(tmp_path, how):
    """The task ends COMPLETED; every death is recorded with its reason, and no process, session or
    temporary file is left."""
    launcher, first, last = how.split("-")
    if launcher == "tmux" and not shutil.which("tmux"):
        pytest.skip("tmux is not installed")
    host = Host(tmp_path, launcher, int(first))
    try:
        task_id = asyncio.run(run(host, first=int(first), last=int(last)))
        snapshot = host.snapshot(task_id)
        asyncio.run(host.until(lambda: not running(tmp_path)))  # the last reviewer is ending
    finally:
        host.end()
        left = running(tmp_path)
        for made in launchers().all().values():
            made.stop([one.identity for one in left], grace=0)
    assert snapshot.task.recorded_status == "COMPLETED"
    assert [p.status for p in snapshot.phases] == ["APPROVED"] * 3
    assert sorted(a.status for a in snapshot.agents if a.status != "completed") == ["failed"] * 2
    assert left == []
    sessions = subprocess.run(
        ["sh", "-c", "ps -eo args | grep -c '[t]mux -L.*'\"$0\"", str(host.temporary)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert sessions.stdout.strip() == "0"
    kept = [p for p in host.temporary.rglob("*") if not p.is_dir() and not p.is_socket()]
    shutil.rmtree(host.temporary)
    assert kept == []
    with closing(open_migration(load_settings(tmp_path, env={}))) as migration:
        assert migration.status().record.phase == int(last)
        assert migration.verify().mismatches == ()
