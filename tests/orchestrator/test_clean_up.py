"""Agents' processes are ended as whole trees, and nobody else's process is signalled, ever."""

import json
import os
import random
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest

from orchestrator import errors
from orchestrator.agents.launchers import process_tree
from orchestrator.agents.launchers.process import ProcessLauncher
from orchestrator.health.daemon import HealthDaemon
from orchestrator.settings import AgentKind
from registry_api import load_settings
from registry_api.migration import MigrationPhase
from registry_api.opening import open_migration
from registry_api.workspace import STATE_DIR, instance_of
from tests import legacy
from tests.orchestrator.playing import launchers, until
from tests.proof import times

# What an agent may leave behind: in its session, in one of its own, orphaned, without environment.
FAMILIES = (
    "sleep 600 & echo up; wait",
    "setsid sleep 600 & echo up; wait",
    "env -i sleep 600 & echo up; wait",
    "(setsid sleep 600 &) ; echo up; sleep 600",
    "(sleep 600 &) ; echo up; exit 0",
    "trap '' TERM; sleep 600 & echo up; wait; wait",
    "sh -c 'trap \"\" TERM HUP; sleep 600 & wait; wait' & echo up; wait",
    "echo up; exec sleep 600",
)
# A decoy writes a line when it is told to end, and goes on.
DECOY = "trap 'echo signalled' TERM HUP INT CONT; echo up; while :; do sleep 600 & wait; done"


@pytest.fixture
def decoys(tmp_path):
    """Foreign processes that look like agents: by name, environment, workspace and number."""
    other = tmp_path / "other"
    other.mkdir()
    here = {"REGISTRY_WORKSPACE": str(tmp_path), "REGISTRY_AGENT_ID": "a"}
    copied = {**here, "REGISTRY_INSTANCE": "of-a-copy", "REGISTRY_TASK_ID": "t"}
    elsewhere = {**here, "REGISTRY_WORKSPACE": str(other), "REGISTRY_TASK_ID": "t"}
    started = []
    for n, more in enumerate(({}, copied, elsewhere, {"REGISTRY_AGENT_WORD": "other"})):
        told = tmp_path / f"decoy{n}"
        with told.open("wb") as out:
            process = subprocess.Popen(
                ["sh", "-c", DECOY, f"claude agent_a --agent-id a {tmp_path}"],
                env={**os.environ, **more},
                stdout=out,
                start_new_session=n % 2 == 0,
            )
        started.append((process, told))
    for _, told in started:
        until(lambda t=told: t.read_text() == "up\n")
    yield started
    for process, _ in started:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        process.wait()


def tagged(identity):
    """The live processes with an agent's tag."""
    tag = identity.rpartition(":")[2]
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("REGISTRY_AGENT_WORD") == tag:
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_any_clean_up_ends_the_agent_and_nobody_else(opened, tmp_path, decoys):
    """Of many agents with families of any kind, each is ended with all that it started; the decoys
    get no signal."""
    rng = random.Random(11)
    kinds = {
        f"k{n}": AgentKind(argv=("sh", "-c", code), preamble=False)
        for n, code in enumerate(FAMILIES)
    }
    limits = {"max_agents": 10_000, "max_concurrent": 1000}
    play = opened("sqlite", kinds=kinds, default_kind="k0", stop_grace=0.2, **limits).create("only")
    rounds = times(60, proof=1000)
    for n in range(rounds):
        agent = play.service.deploy(
            play.task_id, f"a{n}", "x", kind=f"k{rng.randrange(len(FAMILIES))}"
        ).agent_id
        identity = json.loads(play.agent(agent).extra)["process"]
        log = tmp_path / play.task_id / "logs" / f"{agent}_stream.jsonl"
        until(lambda p=log: p.read_text() == "up\n")
        with suppress(errors.AgentEnded):  # it may have ended before
            play.service.kill(play.task_id, agent, "enough")
        until(lambda i=identity: not tagged(i), seconds=10)
    for process, told in decoys:
        assert process.poll() is None
        assert told.read_text() == "up\n"
    assert play.active() == set()


def test_a_scan_stops_no_decoy(opened, tmp_path, decoys):
    """A scan stops what a copy, another workspace or another program started as little as a kill
    does."""
    play = opened("sqlite", end_grace=0.0, stop_grace=0.0).create("only")
    assert play.scan().stopped == ()
    assert instance_of(tmp_path / STATE_DIR) != "of-a-copy"
    for process, told in decoys:
        assert process.poll() is None
        assert told.read_text() == "up\n"


def test_a_number_that_was_reused_is_not_signalled(decoys):
    """An identity whose number now belongs to a decoy, with or without a tag, signals nobody."""
    for process, told in decoys:
        start = psutil.Process(process.pid).create_time()
        for identity in (
            f"{process.pid}:1",
            f"{process.pid}:1:machine.boot.1",
            f"{process.pid}:1:machine.boot.1:tag",
            f"{process.pid}:gone::tag",
        ):
            for launcher in launchers().all().values():
                assert not launcher.alive(identity)
                launcher.stop([identity], grace=0.0)
        assert psutil.Process(process.pid).create_time() == start
        assert told.read_text() == "up\n"


def test_a_child_agent_outlives_its_parent(opened, tmp_path):
    """Ending an agent does not end an agent that its own server deployed."""
    argv = (sys.executable, "-c", DEPLOYING, str(tmp_path))
    kinds = {"parent": AgentKind(argv=argv, preamble=False)}
    play = opened("sqlite", kinds=kinds, default_kind="parent", stop_grace=0.5).create("only")
    (tmp_path / "registry.toml").write_text(
        '[orchestrator]\ndefault_kind = "one"\n[orchestrator.kinds.one]\n'
        'argv = ["sh", "-c", "echo up; sleep 600"]\npreamble = false\n'
    )
    parent = play.deploy("parent")
    child = until(lambda: [a for a in play.now.agents if a.type == "child"])[0].agent_id
    log = tmp_path / play.task_id / "logs" / f"{child}_stream.jsonl"
    until(lambda: log.exists() and log.read_text() == "up\n")
    play.service.kill(play.task_id, parent, "enough")
    time.sleep(0.5)
    assert play.service.deployment.process(play.agent(child)) == "alive"
    play.service.kill(play.task_id, child, "enough")
    until(lambda: ProcessLauncher().running(tmp_path) == ())


DEPLOYING = """
import os, sys, time
from orchestrator.opening import open_orchestrator
from registry_api import load_settings
with open_orchestrator(load_settings(sys.argv[1], env={})) as service:
    service.deploy(os.environ["REGISTRY_TASK_ID"], "child", "x",
                   parent=os.environ["REGISTRY_AGENT_ID"])
    time.sleep(600)
"""


@pytest.mark.parametrize("backend", ["json", "sqlite", "phase 2", "phase 3"])
def test_a_daemon_leaves_no_growth(opened, tmp_path, backend):
    """A day of scans, its clock injected, leaves memory, descriptors, threads and files as they
    were; in phase 3 it also looks for late writes."""
    if backend.startswith("phase"):
        legacy.write_task(tmp_path, "TASK-1")
        with closing(open_migration(load_settings(tmp_path, env={}))) as migration:
            migration.switch(MigrationPhase(int(backend[-1])), actor="operator")
        backend = "auto"
    play = opened(backend).create("only")
    play.deploy()
    now = [0.0]
    daemon = HealthDaemon(play.service, interval=10, clock=lambda: now[0])

    def turns(count):
        for _ in range(count):
            now[0] += 10
            assert daemon.turn() is not None

    def used():
        me = psutil.Process()
        files = sum(1 for _ in Path(tmp_path).rglob("*"))
        return me.memory_info().rss, me.num_fds(), me.num_threads(), files

    turns(100)
    memory, *before = used()
    turns(times(400, proof=8640))
    after, *now_used = used()
    assert now_used == before
    assert after - memory < 8 * 2**20


def test_ended_agents_are_looked_for_once(opened, monkeypatch):
    """Cancelling a task looks once for what its ended agents have left; once, it looked once for
    each of them, which took seconds for forty."""
    kinds = {"one": AgentKind(argv=("true",), preamble=False)}
    play = opened("sqlite", kinds=kinds, default_kind="one", auto_review=False).create("only")
    waiting = play.deploy("waiting", kind="external")
    for n in range(5):
        play.deploy(f"a{n}")
    until(lambda: play.active() == {waiting})
    looks, real = [], process_tree._Processes

    def counted():
        looks.append(1)
        return real()

    monkeypatch.setattr(process_tree, "_Processes", counted)
    play.service.cancel_task(play.task_id, "enough")
    assert len(looks) == 1
