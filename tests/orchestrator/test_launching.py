"""Agents as real processes: no process without a record, and no active record without a process."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing

import psutil
import pytest

from orchestrator import errors
from orchestrator.agents import process_identity
from orchestrator.agents.launchers.process import ProcessLauncher
from orchestrator.health.scan import HealthScan
from orchestrator.opening import open_orchestrator
from orchestrator.settings import AgentKind
from registry_api import (
    AgentStatus,
    Kind,
    PhaseStatus,
    RecordQuery,
    all_records,
    load_settings,
    open_store,
)
from registry_api.plugins import Launch
from tests import processes

PYTHON = sys.executable
ECHO = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())"
FOREVER = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); " + FOREVER
BEGUN = (
    "import sys; from orchestrator.opening import open_orchestrator; "
    "from registry_api import load_settings\n"
    "with open_orchestrator(load_settings(sys.argv[1])) as service:\n"
    "    task = service.create_task('x').task.task_id\n"
    "    print(task, service.deploy(task, 'a', 'p').agent_id, flush=True)\n"
    "    sys.stdin.read()\n"
)


def kind(code, **more):
    return {"one": AgentKind(argv=(PYTHON, "-c", code), preamble=False, **more)}


def stop_all(workspace):
    launcher = ProcessLauncher()
    launcher.stop([found.identity for found in launcher.running(workspace)], grace=0.0)


def until(condition, seconds=20):
    """Wait for something that another process does."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
    return found


@pytest.fixture
def running(opened):
    """Return a function that makes a Play on sqlite whose agents run this code; stop the agents."""
    plays = []

    def make(code, **options):
        more = {k: options.pop(k) for k in ("environment", "preamble") if k in options}
        made = {"kinds": kind(code, **more), "default_kind": "one"}
        play = opened("sqlite", **{**made, "reviewer_kind": "external", **options})
        plays.append(play)
        return play

    yield make
    for play in plays:
        stop_all(play.service.settings.workspace)


def left_behind(play, workspace, code):
    """Deploy an agent that runs this code, and kill its orchestrator; return the agent."""
    argv = json.dumps([PYTHON, "-c", code])
    (workspace / "registry.toml").write_text(
        f'[orchestrator]\ndefault_kind = "one"\n[orchestrator.kinds.one]\nargv = {argv}\n'
    )
    first = subprocess.Popen(
        [PYTHON, "-c", BEGUN, str(workspace)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    play.task_id, agent = first.stdout.readline().split()
    first.kill()
    first.communicate()
    return agent


def log_of(play, agent_id):
    return play.reading.output(play.task_id, agent_id, max_bytes=65536, before=None).text


def test_a_prompt_arrives_byte_for_byte(running):
    """A prompt reaches an agent byte for byte on standard input, not by a shell or an argument."""
    play = running(ECHO).create("only")
    prompt = "é\n'\"$(touch x) `id` -rf * \\ {model} #{pane_id} " + "x" * 200_000
    agent = play.service.deploy(play.task_id, "a", prompt).agent_id
    path = play.service.settings.workspace / play.task_id / "logs" / f"{agent}_stream.jsonl"
    until(lambda: path.read_text() == prompt)


def test_the_settings_of_a_server_reach_an_argument_as_toml(opened, monkeypatch):
    """The settings of an agent's server reach an argument as TOML, which codex reads, so that the
    server works on the same store."""
    monkeypatch.setenv("REGISTRY_AGENT_KIND", 'a"b\\c\n')
    show = "import sys, tomllib; print(tomllib.loads('env=' + sys.argv[1])['env'], flush=True)"
    shown = AgentKind(argv=(PYTHON, "-c", show, "{mcp_env}"), preamble=False)
    play = opened("sqlite", kinds={"one": shown}, default_kind="one").create("only")
    agent = play.deploy()
    until(lambda: "REGISTRY_AGENT_KIND" in log_of(play, agent))
    assert "'REGISTRY_AGENT_KIND': 'a\"b\\\\c\\n'" in log_of(play, agent)


def test_an_exit_is_taken_for_what_it_says(running):
    """An agent that exits with code 0 without a last report is completed and its phase goes on; any
    other exit is a failure."""
    play = running("pass").create("only")
    agent = play.deploy()
    until(lambda: play.agent(agent).status is AgentStatus.COMPLETED)
    assert play.phase(0).status is PhaseStatus.IN_REVIEW
    for code, said in (
        ("raise SystemExit(3)", "exit code 3"),
        ("import os; os.abort()", "signal 6"),
    ):
        play = running(code).create("only")
        agent = play.deploy()
        until(lambda p=play, a=agent: p.agent(a).status is AgentStatus.FAILED)
        assert said in json.loads(play.agent(agent).extra)["failure_reason"]


def test_a_program_that_is_not_there(running, opened):
    """A missing program or an unknown kind is refused before anything is reserved."""
    play = opened(kinds={"none": AgentKind(argv=("no-such-program",))}).create("only")
    with pytest.raises(errors.LaunchFailed, match="not installed"):
        play.deploy(kind="none")
    with pytest.raises(errors.UnknownAgentKind, match="nonsense"):
        play.deploy(kind="nonsense")
    assert play.now.agents == ()


def test_a_launch_that_fails_takes_its_reservation_back(running):
    """A launch that fails, here for a link, runs nothing, says why, and removes its reservation."""
    play = running(FOREVER).create("only")
    folder = play.service.settings.workspace / play.task_id
    folder.mkdir(exist_ok=True)
    (folder / "logs").symlink_to("/tmp")
    with pytest.raises(errors.LaunchFailed, match="no part of its path may be a link"):
        play.deploy()
    assert play.now.agents == ()
    assert ProcessLauncher().running(play.service.settings.workspace) == ()


@pytest.mark.parametrize("code", [FOREVER, STUBBORN], ids=["mild", "stubborn"])
def test_a_killed_agent_is_gone(running, code):
    """Killing an agent ends it and every process that it started, even if it ignores SIGTERM."""
    play = running(
        f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {FOREVER!r}]); {code}"
    )
    agent = play.create("only").deploy()
    until(lambda: log_of(play, agent).count("up") == 2)
    play.service.kill(play.task_id, agent, "enough")
    assert play.agent(agent).status is AgentStatus.TERMINATED
    until(lambda: ProcessLauncher().running(play.service.settings.workspace) == ())
    assert not ProcessLauncher().alive(json.loads(play.agent(agent).extra)["process"])


def test_agents_outlive_their_orchestrator_and_are_found_again(running, tmp_path):
    """Agents of an orchestrator that was killed live on; the next orchestrator knows whether each
    is alive, and ends the records of dead ones."""
    play = running(FOREVER)
    agent = left_behind(play, tmp_path, FOREVER)
    until(lambda: "up" in log_of(play, agent))
    assert play.service.deployment.process(play.agent(agent)) == "alive"
    assert play.scan().ended == ()
    os.kill(process_identity.pid_of(json.loads(play.agent(agent).extra)["process"]), signal.SIGKILL)
    until(lambda: play.service.deployment.process(play.agent(agent)) == "dead")
    assert play.scan().ended == (agent,)
    assert play.agent(agent).status is AgentStatus.FAILED


@pytest.mark.parametrize(
    ("ending", "status", "reason"),
    [
        ("sys.exit(0)", "completed", "exit code 0"),
        ("sys.exit(3)", "failed", "exit code 3"),
        ("os.kill(os.getpid(), 15)", "failed", "signal 15"),
        ("os.kill(os.getpid(), 9)", "failed", "signal 9"),
    ],
)
def test_an_exit_after_the_servers_end_is_known(running, tmp_path, ending, status, reason):
    """The exit of an agent after its server died is recorded with its code; once, exit code 0
    counted as a failure of the agent and its task."""
    play = running("")
    go = tmp_path / "go"
    code = (
        f"import os, sys, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\n{ending}"
    )
    agent = left_behind(play, tmp_path, code)
    go.touch()
    until(lambda: play.service.deployment.process(play.agent(agent)) == "dead")
    assert play.scan().ended == (agent,)
    assert play.agent(agent).status == status
    assert reason in play.agent(agent).extra
    assert play.now.status == status.upper()


@pytest.mark.parametrize("what", ["link", "folder", "fifo"])
def test_an_invalid_exit_file_stops_no_scan(running, tmp_path, what):
    """An agent that puts something else in place of its exit file stops no scan; once, every scan
    and every start of a server failed."""
    play = running(FOREVER).create("only")
    agent, other = play.deploy("a"), play.deploy("b")
    path = tmp_path / play.task_id / "logs" / f"{agent}_exit"
    path.unlink()
    {"link": lambda: path.symlink_to("/etc/passwd"), "folder": path.mkdir}.get(
        what, lambda: os.mkfifo(path)
    )()
    for one in (agent, other):
        play.service.launchers.current.stop([identity_of(play, one)], grace=0)
    until(lambda: not play.active())
    assert play.scan().ended == ()


def identity_of(play, agent):
    return json.loads(play.agent(agent).extra)["process"]


def test_a_note_that_cannot_be_written_fails_nobody(tmp_path):
    """With a full disk the end of an agent is still reported."""
    names = ("prompt", "log", "errors")
    files = [os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in names]
    files.append(os.open(tmp_path, os.O_RDONLY))
    codes, ended = [], threading.Event()
    full = os.open("/dev/full", os.O_WRONLY)
    launch = Launch(
        task_id="t",
        agent_id="a",
        argv=(PYTHON, "-c", ""),
        files=tuple(files),
        cwd=tmp_path,
        prompt=tmp_path / "prompt",
        log=tmp_path / "log",
        errors=tmp_path / "errors",
        environment={},
        exit_file=full,
    )
    prepared = ProcessLauncher().prepare(launch, lambda code: (codes.append(code), ended.set()))
    prepared.go()
    assert ended.wait(30)
    assert codes == [0]
    for fd in (*files, full):
        os.close(fd)


def test_an_agent_outlives_the_process_that_waits_for_it(running):
    """An agent whose parent process was killed goes on, and no scan stops it."""
    play = running(FOREVER).create("only")
    agent = play.deploy()
    pid = process_identity.pid_of(identity_of(play, agent))
    os.kill(psutil.Process(pid).ppid(), signal.SIGKILL)
    until(lambda: psutil.Process(pid).ppid() != os.getpid() and play.scan() is not None)
    assert play.service.deployment.process(play.agent(agent)) == "alive"
    assert play.agent(agent).status is AgentStatus.RUNNING
    os.kill(pid, signal.SIGKILL)
    until(lambda: play.agent(agent).status is AgentStatus.FAILED)


def test_a_reviewer_whose_owner_died_half_way_is_started(running, monkeypatch):
    """A reviewer whose owner died while starting it is started by a scan, although the owner's
    files exist; once, they prevented the start and the phase was escalated."""
    play = running(FOREVER, reviewers=1, reviewer_kind=None).create("only")
    dead = subprocess.Popen(["true"])
    identity = process_identity.identity_of(dead.pid) or f"{dead.pid}:1"
    dead.wait()
    monkeypatch.setattr(play.service.processes, "owner", identity)
    monkeypatch.setattr(play.service.processes, "start", lambda *_: None)
    play.done(play.deploy())
    monkeypatch.undo()
    (reviewer,) = play.review.reviewers
    folder = play.service.settings.workspace / play.task_id
    for name in (f"agent_prompt_{reviewer}.txt", f"logs/{reviewer}_exit"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("left")
    assert play.scan().started == (reviewer,)
    assert play.service.deployment.process(play.agent(reviewer)) == "alive"


def test_a_process_that_dies_between_reserving_and_starting(running, monkeypatch):
    """A scan by another process removes the reservation of a process that is dead before its agent
    started, and starts a reviewer in its place."""
    play = running(FOREVER, reviewers=1, reviewer_kind=None).create("only")
    dead = subprocess.Popen(["true"])
    identity = process_identity.identity_of(dead.pid) or f"{dead.pid}:1"
    dead.wait()
    monkeypatch.setattr(play.service.processes, "owner", identity)
    monkeypatch.setattr(play.service.processes, "start", lambda *_: None)
    agent = play.deploy()
    monkeypatch.undo()
    assert play.reading.health().agents[0].process == "never started"
    assert play.scan().ended == (agent,)
    monkeypatch.setattr(play.service.processes, "owner", identity)
    monkeypatch.setattr(play.service.processes, "start", lambda *_: None)
    second = play.deploy("b")
    play.done(second)
    monkeypatch.undo()
    (reviewer,) = play.review.reviewers
    assert play.scan().started == (reviewer,)
    assert play.service.deployment.process(play.agent(reviewer)) == "alive"
    assert play.scan().started == ()


def test_a_process_without_a_record_is_stopped(running):
    """A scan stops an agent that goes on after its end, and one without a record in its task, but
    not one of an unknown task: a server on the wrong store once stopped every agent."""
    play = running(FOREVER, stop_grace=0.0, end_grace=0.0).create("only")
    agent = play.deploy()
    until(lambda: "up" in log_of(play, agent))
    play.report(agent, "failed")
    assert play.scan().stopped == (agent,)
    workspace = play.service.settings.workspace
    where = {"REGISTRY_WORKSPACE": str(workspace), "REGISTRY_AGENT_ID": "stray"}
    strays = [
        subprocess.Popen(
            [PYTHON, "-c", FOREVER],
            env={**os.environ, **where, "REGISTRY_TASK_ID": task_id},
            start_new_session=True,
            stdout=subprocess.PIPE,
        )
        for task_id in (play.task_id, "TASK-none")
    ]
    for stray in strays:
        stray.stdout.readline()
    assert play.scan().stopped == ("stray",)
    strays[0].communicate(timeout=10)
    assert strays[1].poll() is None
    strays[1].kill()
    strays[1].communicate()


def test_a_starter_that_is_never_told_runs_nothing(tmp_path):
    """A prepared launch whose parent dies or cancels it does not run the program."""
    names = ("prompt", "log", "errors")
    files = [os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in names]
    files.append(os.open(tmp_path, os.O_RDONLY))
    ended = threading.Event()
    codes = []
    prepared = ProcessLauncher().prepare(
        Launch(
            task_id="t",
            agent_id="a",
            argv=(PYTHON, "-c", "print('ran')"),
            files=tuple(files),
            cwd=tmp_path,
            prompt=tmp_path / "prompt",
            log=tmp_path / "log",
            errors=tmp_path / "errors",
            environment={},
        ),
        lambda code: (codes.append(code), ended.set()),
    )
    assert ProcessLauncher().alive(prepared.identity)
    for fd in files:
        os.close(fd)
    prepared.cancel()
    assert ended.wait(20)
    assert codes == [125]
    assert (tmp_path / "log").read_text() == ""
    assert not ProcessLauncher().alive(prepared.identity)


@pytest.mark.parametrize("identity", ["", "1:1", "0:5", "-5:1", "x:y", "99999999999:1", "2", "٣:1"])
def test_invalid_process_identities(identity):
    """With an invalid process identity nothing is alive and nothing is stopped."""
    launcher = ProcessLauncher()
    assert not launcher.alive(identity)
    launcher.stop([identity], grace=0.0)


def test_a_reused_pid_is_not_the_agent():
    """Another process with the agent's pid is neither alive for us nor stopped."""
    launcher = ProcessLauncher()
    other = f"{os.getpid()}:1"
    assert not launcher.alive(other)
    launcher.stop([other], grace=0.0)


def test_the_environment_of_a_kind(running, tmp_path):
    """An agent gets its kind's variables, its ids and its task's folder."""
    code = "import os; print(os.environ['MINE'], os.environ['REGISTRY_AGENT_ID'], os.getcwd())"
    play = running(code, environment={"MINE": "yes"})
    play.create("only", client_cwd=str(tmp_path))
    agent = play.deploy()
    until(lambda: log_of(play, agent))
    assert log_of(play, agent) == f"yes {agent} {tmp_path}\n"


def test_the_output_is_read_from_its_end(running):
    """Output is read in parts from its end, never as a whole."""
    play = running("print('a' * 10_000 + 'z')").create("only")
    agent = play.deploy()
    until(lambda: play.agent(agent).status is AgentStatus.COMPLETED)
    last = play.reading.output(play.task_id, agent, max_bytes=100, before=None)
    assert (last.text, last.start, last.size) == ("a" * 98 + "z\n", 9902, 10_002)
    before = play.reading.output(play.task_id, agent, max_bytes=20_000, before=last.start)
    assert (before.text, before.start) == ("a" * 9902, 0)


def test_killed_at_every_moment_of_a_deployment(tmp_path):
    """After an orchestrator is killed while it deploys, each live agent has a record, and after a
    scan each active record has a process."""
    argv = json.dumps([PYTHON, "-c", FOREVER])
    (tmp_path / "registry.toml").write_text(
        f'[orchestrator]\ndefault_kind = "one"\n[orchestrator.kinds.one]\nargv = {argv}\n'
    )
    launcher = ProcessLauncher()
    settings = load_settings(tmp_path, env={})
    try:
        for n in range(12):
            ready = processes.event()
            process = processes.start(deploying, str(tmp_path), n, ready)
            assert ready.wait(60)
            time.sleep(random.uniform(0, 0.5))
            process.kill()
            process.join()
            with closing(open_store(settings)) as store:
                records = [
                    (a.agent_id, json.loads(a.extra).get("process"))
                    for t in store.list_tasks().items
                    for a in store.load(t.task_id).agents
                ]
            for found in launcher.running(tmp_path):
                assert (found.agent_id, found.identity) in records
        with open_orchestrator(settings) as service:
            HealthScan(service).run()
            active = list(all_records(service.store, Kind.AGENT, RecordQuery(active=True)))
            alive = {(found.agent_id, found.identity) for found in launcher.running(tmp_path)}
        assert len(active) >= 6
        assert {(a.agent_id, json.loads(a.extra)["process"]) for a in active} == alive
    finally:
        stop_all(tmp_path)


def deploying(workspace, n, ready):
    """Deploy agents until killed; with an even ``n`` not before the first one, on any host."""
    with open_orchestrator(load_settings(workspace, env={})) as service:
        task_id = service.create_task(f"n{n}").task.task_id
        for m in range(15):
            if m == n % 2:
                ready.set()
            service.deploy(task_id, f"a{m}", "p")
