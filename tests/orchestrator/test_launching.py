"""Agents as real processes: none without a record, no record at work without one."""

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

from orchestrator import errors, process_identity
from orchestrator.health import HealthScan
from orchestrator.launchers.process import ProcessLauncher
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
from registry_api.launching import Launch
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
    """Wait for what another process does."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
    return found


@pytest.fixture
def running(opened):
    """Return a maker of plays on sqlite whose agents run this code; they are stopped at the end."""
    interleavings = []

    def make(code, **options):
        more = {k: options.pop(k) for k in ("environment", "preamble") if k in options}
        made = {"kinds": kind(code, **more), "default_kind": "one"}
        play = opened("sqlite", **{**made, "reviewer_kind": "external", **options})
        interleavings.append(play)
        return play

    yield make
    for play in interleavings:
        stop_all(play.service.settings.workspace)


def left_behind(play, workspace, code):
    """Have an orchestrator deploy an agent that runs this code, and kill it; return the agent."""
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
    """By standard input, never through a shell or an argument."""
    play = running(ECHO).create("only")
    prompt = "é\n'\"$(touch x) `id` -rf * \\ {model} #{pane_id} " + "x" * 200_000
    agent = play.service.deploy(play.task_id, "a", prompt).agent_id
    path = play.service.settings.workspace / play.task_id / "logs" / f"{agent}_stream.jsonl"
    until(lambda: path.read_text() == prompt)


def test_the_settings_of_a_server_reach_an_argument_as_toml(opened, monkeypatch):
    """As codex reads them: the server that it starts must work on the same store."""
    monkeypatch.setenv("REGISTRY_AGENT_KIND", 'a"b\\c\n')
    show = "import sys, tomllib; print(tomllib.loads('env=' + sys.argv[1])['env'], flush=True)"
    shown = AgentKind(argv=(PYTHON, "-c", show, "{mcp_env}"), preamble=False)
    play = opened("sqlite", kinds={"one": shown}, default_kind="one").create("only")
    agent = play.deploy()
    until(lambda: "REGISTRY_AGENT_KIND" in log_of(play, agent))
    assert "'REGISTRY_AGENT_KIND': 'a\"b\\\\c\\n'" in log_of(play, agent)


def test_an_exit_is_taken_for_what_it_says(running):
    """Code 0 without a last report: completed, and the phase goes on; anything else failed."""
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
    """Refused before anything is reserved; the same for a kind that nobody configured."""
    play = opened(kinds={"none": AgentKind(argv=("no-such-program",))}).create("only")
    with pytest.raises(errors.LaunchFailed, match="not installed"):
        play.deploy(kind="none")
    with pytest.raises(errors.UnknownAgentKind, match="nonsense"):
        play.deploy(kind="nonsense")
    assert play.now.agents == ()


def test_a_launch_that_fails_takes_its_reservation_back(running):
    """A folder that is a link: nothing runs, the record says why, and the place is free."""
    play = running(FOREVER).create("only")
    folder = play.service.settings.workspace / play.task_id
    folder.mkdir(exist_ok=True)
    (folder / "logs").symlink_to("/tmp")
    with pytest.raises(errors.LaunchFailed, match="no part of it be a link"):
        play.deploy()
    assert play.now.agents == ()
    assert ProcessLauncher().running(play.service.settings.workspace) == ()


@pytest.mark.parametrize("code", [FOREVER, STUBBORN], ids=["mild", "stubborn"])
def test_a_killed_agent_is_gone(running, code):
    """With all that it started; one that ignores the request too."""
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
    """Started by a process that is then killed: the next one knows whether they live, and how to
    stop them."""
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
    """An agent that exited with 0 after its server had died was failed for good, and its task."""
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
def test_an_exit_file_that_is_none_stops_no_scan(running, tmp_path, what):
    """An agent put something else in its place; every scan, and every start of a server, failed."""
    play = running(FOREVER).create("only")
    agent, other = play.deploy("a"), play.deploy("b")
    path = tmp_path / play.task_id / "logs" / f"{agent}_exit"
    path.unlink()
    {"link": lambda: path.symlink_to("/etc/passwd"), "folder": path.mkdir}.get(
        what, lambda: os.mkfifo(path)
    )()
    for one in (agent, other):
        play.service.deployment._launcher.stop([identity_of(play, one)], grace=0)
    until(lambda: not play.active())
    assert play.scan().ended == ()


def identity_of(play, agent):
    return json.loads(play.agent(agent).extra)["process"]


def test_a_note_that_cannot_be_written_fails_nobody(tmp_path):
    """The disk is full: how the agent ended is told all the same."""
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


def test_an_agent_outlives_what_waits_for_it(running):
    """Somebody killed its parent: it works on, and is stopped by nobody."""
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
    """The files that the owner had made stood in the way, and its phase was escalated."""
    play = running(FOREVER, reviewers=1, reviewer_kind=None).create("only")
    dead = subprocess.Popen(["true"])
    identity = process_identity.identity_of(dead.pid) or f"{dead.pid}:1"
    dead.wait()
    monkeypatch.setattr(play.service, "_owner", identity)
    monkeypatch.setattr(play.service, "_start", lambda *_: None)
    play.done(play.deploy())
    monkeypatch.undo()
    (reviewer,) = play.review.reviewers
    folder = play.service.settings.workspace / play.task_id
    for name in (f"agent_prompt_{reviewer}.txt", f"logs/{reviewer}_exit"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("left")
    assert play.scan().started == (reviewer,)
    assert play.service.deployment.process(play.agent(reviewer)) == "alive"


def test_whoever_dies_between_reserving_and_starting(running, monkeypatch):
    """The reservation stays behind without a process; a scan by another takes it back. A reviewer
    is started in its place."""
    play = running(FOREVER, reviewers=1, reviewer_kind=None).create("only")
    dead = subprocess.Popen(["true"])
    identity = process_identity.identity_of(dead.pid) or f"{dead.pid}:1"
    dead.wait()
    monkeypatch.setattr(play.service, "_owner", identity)
    monkeypatch.setattr(play.service, "_start", lambda *_: None)
    agent = play.deploy()
    monkeypatch.undo()
    assert play.reading.health().agents[0].process == "abandoned"
    assert play.scan().ended == (agent,)
    monkeypatch.setattr(play.service, "_owner", identity)
    monkeypatch.setattr(play.service, "_start", lambda *_: None)
    second = play.deploy("b")
    play.done(second)
    monkeypatch.undo()
    (reviewer,) = play.review.reviewers
    assert play.scan().started == (reviewer,)
    assert play.service.deployment.process(play.agent(reviewer)) == "alive"
    assert play.scan().started == ()


def test_a_process_without_a_record_is_stopped(running):
    """An agent that goes on after its end, and one that is on no record of its task; one of a task
    that is not known is left alone: a server on the wrong store stopped everybody's agents.
    """
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
    """Its parent dies, or changes its mind: the program does not run."""
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
def test_marks_that_are_none(identity):
    """What a foreign program wrote there: nothing is alive, nothing is stopped."""
    launcher = ProcessLauncher()
    assert not launcher.alive(identity)
    launcher.stop([identity], grace=0.0)


def test_a_pid_used_anew_is_not_the_agent():
    """Another process of that number is neither alive for us nor stopped."""
    launcher = ProcessLauncher()
    other = f"{os.getpid()}:1"
    assert not launcher.alive(other)
    launcher.stop([other], grace=0.0)


def test_the_environment_of_a_kind(running, tmp_path):
    """A kind's own variables, the ids, the folder of the task; nothing of another agent's."""
    code = "import os; print(os.environ['MINE'], os.environ['REGISTRY_AGENT_ID'], os.getcwd())"
    play = running(code, environment={"MINE": "yes"})
    play.create("only", client_cwd=str(tmp_path))
    agent = play.deploy()
    until(lambda: log_of(play, agent))
    assert log_of(play, agent) == f"yes {agent} {tmp_path}\n"


def test_the_output_is_read_from_its_end(running):
    """In parts, backwards; never the whole of it."""
    play = running("print('a' * 10_000 + 'z')").create("only")
    agent = play.deploy()
    until(lambda: play.agent(agent).status is AgentStatus.COMPLETED)
    last = play.reading.output(play.task_id, agent, max_bytes=100, before=None)
    assert (last.text, last.start, last.size) == ("a" * 98 + "z\n", 9902, 10_002)
    before = play.reading.output(play.task_id, agent, max_bytes=20_000, before=last.start)
    assert (before.text, before.start) == ("a" * 9902, 0)


def test_killed_at_every_moment_of_a_deployment(tmp_path):
    """An orchestrator killed while it deploys: afterwards each live agent has a record, and after a
    scan each record at work has a process."""
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
    """Every other one is killed after its first deployment, however slow the host is."""
    with open_orchestrator(load_settings(workspace, env={})) as service:
        task_id = service.create_task(f"n{n}").task.task_id
        for m in range(15):
            if m == n % 2:
                ready.set()
            service.deploy(task_id, f"a{m}", "p")
