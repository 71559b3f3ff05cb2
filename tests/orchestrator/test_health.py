"""Health: the truth about processes is recorded by one daemon a host, and no live one is ended."""

import io
import json
import os
import platform
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psutil
import pytest
from rich.console import Console

from contract_tests import build
from orchestrator import errors
from orchestrator.agents import process_identity
from orchestrator.agents.stream_log import result_of
from orchestrator.cli.agents import agents_table
from orchestrator.health.daemon import HealthDaemon
from orchestrator.health.hosts import lease_name
from orchestrator.health.scan import HealthScan
from orchestrator.queries.agent_rows import agent_rows
from orchestrator.redaction import redacted
from orchestrator.service import Orchestrator
from orchestrator.settings import AgentKind, OrchestratorSettings
from registry_api import (
    Agent,
    AgentStatus,
    PhaseStatus,
    Put,
    ReviewStatus,
    load_settings,
    open_store,
    transact,
)
from registry_api.errors import NotSupported
from registry_api.leases import leases_of
from registry_api.records import is_text
from tests import processes
from tests.orchestrator.playing import launchers, until

PYTHON = sys.executable
FOREVER = "import time; print('up', flush=True); time.sleep(600)"


@pytest.fixture
def working(opened):
    """Return a function that makes a Play on sqlite whose agents run this code."""
    plays = []

    def make(code=FOREVER, **options):
        kinds = {"one": AgentKind(argv=(PYTHON, "-c", code), preamble=False)}
        plays.append(opened("sqlite", **{"kinds": kinds, "default_kind": "one", **options}))
        return plays[-1]

    yield make
    for play in plays:
        for launcher in launchers().all().values():
            found = launcher.running(play.service.settings.workspace)
            launcher.stop([one.identity for one in found], grace=0)


def extra(play, agent):
    return json.loads(play.agent(agent).extra)


def pid_of(play, agent):
    return process_identity.pid_of(extra(play, agent)["process"])


def forgotten(play, monkeypatch):
    """Let this process forget the agents that it started, as another orchestrator would."""
    monkeypatch.setattr("orchestrator.agents.deployment._OURS", set())
    monkeypatch.setattr(play.service.processes, "_process_ended", lambda *_, **__: None)


def test_a_dead_reviewer_is_replaced(working):
    """A reviewer that was killed is replaced, and the second one's verdict decides."""
    play = working(reviewers=1, reviewer_kind=None).create("only")
    play.done(play.deploy())
    (first,) = play.review.reviewers
    until(lambda: "process" in extra(play, first))
    os.kill(pid_of(play, first), signal.SIGKILL)
    second = until(lambda: play.review.reviewers[0] != first and play.review.reviewers[0])
    assert play.phase(0).status is PhaseStatus.IN_REVIEW
    assert extra(play, first)["retried_by"] == second
    assert (extra(play, second)["attempt"], extra(play, second)["retry_of"]) == (2, first)
    assert play.review.num_reviewers == 1
    with pytest.raises(errors.NotAReviewer):
        play.service.verdict(play.task_id, play.review.review_id, first, "approved")
    play.approve()
    assert play.phase(0).status is PhaseStatus.APPROVED


def test_a_reviewer_that_dies_again_and_again_escalates(working):
    """Two replacements, then the phase is escalated; each attempt tells its last output."""
    play = working("print('no network'); raise SystemExit(7)", reviewers=1, reviewer_kind="one")
    play = play.create("only")
    agent = play.service.deploy(play.task_id, "worker", "x", kind="external").agent_id
    play.done(agent)
    until(lambda: play.phase(0).status is PhaseStatus.ESCALATED)
    (review,) = play.now.reviews
    assert review.status is ReviewStatus.FAILED
    attempts = sorted(
        (json.loads(a.extra) for a in play.now.agents if a.review_id),
        key=lambda said: said.get("attempt", 1),
    )
    assert [said.get("attempt", 1) for said in attempts] == [1, 2, 3]
    assert {said["failure_reason"] for said in attempts} == {
        "ended with exit code 7, no final report"
    }
    assert {said["last_output"] for said in attempts} == {"no network"}


def test_a_reviewer_that_is_ended_on_purpose_is_not_replaced(working):
    """Killing a reviewer, or its own report that it failed, replaces nobody."""
    for ended in (
        lambda play, name: play.service.kill(play.task_id, name, "enough"),
        lambda play, name: play.report(name, "failed"),
    ):
        play = working(reviewers=1, reviewer_kind=None).create("only")
        play.done(play.service.deploy(play.task_id, "worker", "x", kind="external").agent_id)
        (first,) = play.review.reviewers
        ended(play, first)
        assert play.phase(0).status is PhaseStatus.ESCALATED
        assert sum(a.review_id is not None for a in play.now.agents) == 1


def test_an_exit_without_a_word_tells_the_last_output(working):
    """A worker that exits without a word is failed with the end of its output, without secrets."""
    secret = "ghp_" + "a" * 36
    code = f"import sys; print('trying {secret}', file=sys.stderr); raise SystemExit(1)"
    play = working(code).create("only")
    agent = play.deploy()
    until(lambda: play.agent(agent).status is AgentStatus.FAILED)
    assert extra(play, agent)["last_output"] == "trying [secret]"


@pytest.mark.parametrize(
    ("line", "code", "status", "reason"),
    [
        ({"type": "result", "is_error": False, "result": "ok"}, 0, "completed", "exit code 0"),
        ({"type": "result", "is_error": True, "result": "no credit"}, 0, "failed", "no credit"),
        ({"type": "result", "is_error": False}, 2, "failed", "exit code 2"),
        ({"type": "turn.failed", "error": {"message": "quota"}}, 0, "failed", "quota"),
        ({"type": "turn.completed"}, 0, "completed", "exit code 0"),
        ({"type": "result", "status": "error", "error": {"message": "x"}}, 0, "failed", "error: x"),
    ],
)
def test_the_result_line_of_a_log_counts(working, line, code, status, reason):
    """An agent whose program reports an error has failed, whatever its exit code."""
    text = json.dumps(line)
    play = working(f"print({text!r}); print('and more'); raise SystemExit({code})").create("only")
    agent = play.deploy()
    until(lambda: play.agent(agent).status is not AgentStatus.RUNNING)
    assert play.agent(agent).status == status
    reasons = extra(play, agent)
    assert reason in (reasons.get("failure_reason") or reasons.get("completion_reason"))


def test_a_result_counts_if_the_exit_code_is_lost(working, monkeypatch, tmp_path):
    """Of an agent whose exit code nobody recorded, the result line decides."""
    play = working(f'print(\'{{"type": "result"}}\', flush=True); {FOREVER}').create("only")
    forgotten(play, monkeypatch)
    agent = play.deploy()
    until(lambda: (tmp_path / play.task_id / "logs" / f"{agent}_stream.jsonl").stat().st_size > 10)
    pid = pid_of(play, agent)
    os.kill(psutil.Process(pid).ppid(), signal.SIGKILL)  # who waits for it
    os.kill(pid, signal.SIGKILL)
    until(lambda: play.service.deployment.process(play.agent(agent)) == "dead")
    play.scan()
    assert play.agent(agent).status is AgentStatus.COMPLETED
    assert extra(play, agent)["completion_reason"] == "its log ends with a result, no final report"


def test_result_lines_are_found_in_any_log():
    """Invalid, cut and foreign lines are passed over, from the end."""
    good = b'{"type":"result","is_error":false,"result":"fine"}'
    assert result_of(good + b'\n{"type":"other"}\n{"result": [}\n\xff\n').text == "fine"
    deep = b'{"type":"result","x":' + b"[" * 100_000
    assert result_of(good + b"\n" + deep).text == "fine"
    odd = result_of(b'{"type":"result","is_error":true,"result":"a\\ud800b\\u0000c"}')
    assert is_text(odd.text)
    assert odd.text.startswith("a")
    for none in (b"", b'{"type":"resu', b"result", b'{"a":"result"}', b'{"type":["result"]}', b"{"):
        assert result_of(none) is None


def test_silence_kills_nobody(opened, working):
    """A worker that is stopped for a time is silent, and no scan ends it."""
    play = working(max_runtime=3600).create("only")
    agent = play.deploy()
    os.kill(pid_of(play, agent), signal.SIGSTOP)
    later = datetime.now(UTC) + timedelta(days=2)
    play.service.now = lambda: later
    assert play.scan().corrections == 0
    (line,) = play.reading.health().agents
    assert (line.process, line.silent_seconds > 86_400) == ("alive", True)
    os.kill(pid_of(play, agent), signal.SIGCONT)
    assert play.agent(agent).status is AgentStatus.RUNNING


@pytest.mark.parametrize("days", [-1, 1])
def test_a_step_of_the_clock_ends_nobody(working, monkeypatch, days):
    """When the clock jumps by a day, agents that run and agents that are being started are left
    alone, although the deadlines are seconds."""
    play = working(max_runtime=3600, launch_deadline=60).create("only")
    agent = play.deploy()
    reserving = []
    with monkeypatch.context() as patched:
        patched.setattr(play.service.processes, "start", lambda *given: reserving.append(given))
        starting = play.deploy("b")
    later = datetime.now(UTC) + timedelta(days=days)
    play.service.now = lambda: later
    play.service.deployment._now = lambda: later
    with monkeypatch.context() as patched:  # it is started by another process
        other = subprocess.Popen([PYTHON, "-c", FOREVER], stdout=subprocess.PIPE)
        patched.setattr(play.service.deployment, "owner", lambda: "not this one")
        assert play.scan().corrections == 0
        assert play.service.deployment.process(play.agent(starting)) == "starting"
        other.kill()
        other.communicate()
    assert play.agent(agent).status is AgentStatus.RUNNING
    assert play.agent(starting).status is AgentStatus.RUNNING


def test_an_agent_that_is_never_started(working, monkeypatch):
    """A reservation is "starting" until the launch deadline, then it never started and its record
    says so, although its owner lives."""
    play = working(launch_deadline=60).create("only")
    with monkeypatch.context() as patched:
        patched.setattr(play.service.processes, "start", lambda *_: None)
        agent = play.deploy()
    monkeypatch.setattr(play.service.deployment, "owner", lambda: "not this one")
    assert play.service.deployment.process(play.agent(agent)) == "starting"
    real = process_identity.uptime
    monkeypatch.setattr(process_identity, "uptime", lambda: real() + 61)
    assert play.service.deployment.process(play.agent(agent)) == "never started"
    assert play.scan().ended == (agent,)
    assert extra(play, agent)["failure_reason"].startswith("never started")


def test_an_agent_that_runs_for_too_long_is_stopped(working, monkeypatch):
    """After max_runtime an agent is ended and stopped, by the age of its process; 0 is never."""
    play = working(max_runtime=3600).create("only")
    agent = play.deploy()
    assert play.scan().overdue == ()
    real = process_identity.uptime
    monkeypatch.setattr(process_identity, "uptime", lambda: real() + 3600)
    unlimited = working(max_runtime=0)
    unlimited.task_id = play.task_id
    assert unlimited.scan().overdue == ()
    assert play.scan().overdue == (agent,)
    assert play.agent(agent).status is AgentStatus.TERMINATED
    assert "max_runtime" in extra(play, agent)["termination_reason"]
    until(lambda: play.service.deployment.process(play.agent(agent)) == "dead")


def test_an_agent_of_the_conductor_has_a_deadline(working):
    """An agent that its conductor runs is ended after twice max_runtime by the time of day, so a
    clock that is a day ahead ends none; one that a legacy program runs is never ended."""
    ahead = [timedelta()]
    play = working(now=lambda: datetime.now(UTC) + ahead[0], reviewers=1, reviewer_kind="external")
    play = play.create("only")
    agent = play.service.deploy(play.task_id, "worker", "x", kind="external").agent_id
    foreign = Agent(
        task_id=play.task_id,
        agent_id="foreign",
        status=AgentStatus.RUNNING,
        started_at=datetime(2025, 10, 1, tzinfo=UTC),
    )
    transact(play.service.store, play.task_id, lambda _: (Put(foreign),))
    ahead[0] = timedelta(days=1, hours=1)
    assert play.scan().overdue == ()
    ahead[0] = timedelta(days=2, hours=1)
    assert play.scan().overdue == (agent,)
    assert play.agent(agent).status is AgentStatus.TERMINATED
    assert "twice max_runtime" in extra(play, agent)["termination_reason"]
    assert play.agent("foreign").status is AgentStatus.RUNNING


def test_a_failed_agent_is_retried(working):
    """A retry is a new record with the same prompt, type, kind and phase; the attempt before it
    stays ended, and what it still says is kept and refused."""
    play = working("import sys; print(sys.stdin.read()); raise SystemExit(3)").create("only")
    first = play.service.deploy(play.task_id, "worker", "é do it", effort="high").agent_id
    until(lambda: play.agent(first).status is AgentStatus.FAILED)
    second = play.service.retry(play.task_id, first).agent_id
    until(lambda: play.agent(second).status is AgentStatus.FAILED)
    said = extra(play, second)
    assert (said["attempt"], said["retry_of"], said["effort"]) == (2, first, "high")
    assert said["last_output"] == "é do it"
    assert play.agent(second).type == "worker"
    assert play.agent(second).phase_index == 0
    with pytest.raises(errors.NotRetryable, match=second):
        play.service.retry(play.task_id, first)
    with pytest.raises(errors.AgentEnded):
        play.report(first, "working", "still here", 10)
    third = play.service.retry(play.task_id, second).agent_id
    assert extra(play, third)["attempt"] == 3
    lines = {line.agent_id: line for line in play.reading.task(play.task_id).agents_ended}
    assert (lines[first].attempt, lines[first].retried_by) == (None, second)
    assert (lines[second].attempt, lines[second].retried_by) == (2, third)


def test_what_cannot_be_retried(working):
    """An active agent, a completed one, a reviewer, and one whose prompt is gone: each refusal
    says what to do, and nothing is reserved."""
    play = working(reviewers=1, reviewer_kind="external").create("only")
    active, gone = play.deploy("a"), play.deploy("b")
    with pytest.raises(errors.NotRetryable, match="is running"):
        play.service.retry(play.task_id, active)
    play.service.kill(play.task_id, gone, "enough")
    prompt = play.service.settings.workspace / play.task_id / f"agent_prompt_{gone}.txt"
    prompt.unlink()
    with pytest.raises(errors.LaunchFailed, match="was removed"):
        play.service.retry(play.task_id, gone)
    play.done(active)
    with pytest.raises(errors.NotRetryable, match="is completed"):
        play.service.retry(play.task_id, active)
    (reviewer,) = play.review.reviewers
    with pytest.raises(errors.NotRetryable, match="is a reviewer"):
        play.service.retry(play.task_id, reviewer)
    assert len(play.now.agents) == 3


def test_a_retry_that_cannot_start_can_be_made_again(working, monkeypatch):
    """A retry whose launch fails frees the attempt before it, and counts against no limit."""
    play = working(max_agents=1).create("only")
    first = play.deploy()
    play.service.kill(play.task_id, first, "enough")
    with monkeypatch.context() as patched:
        patched.setattr(
            play.service.launchers.current, "prepare", lambda *_: (_ for _ in ()).throw(OSError(""))
        )
        with pytest.raises(errors.LaunchFailed):
            play.service.retry(play.task_id, first)
    assert "retried_by" not in extra(play, first)
    second = play.service.retry(play.task_id, first).agent_id
    assert extra(play, second)["attempt"] == 2
    with pytest.raises(errors.LimitReached):
        play.deploy("another")


def test_one_daemon_scans_at_a_time(working):
    """Of two daemons one holds the lease of the host; after it stops the other takes over."""
    play = working().create("only")
    one = HealthDaemon(play.service, interval=0.1)
    two = HealthDaemon(play.service, interval=0.1)
    assert one.turn() is not None
    assert two.turn() is None
    assert (one.leads, two.leads) == (True, False)
    one.stop()
    one.run()
    assert two.turn() is not None


def leading(workspace, ready):
    """Run a daemon until it is killed."""
    from orchestrator.opening import open_orchestrator
    from registry_api import load_settings

    with open_orchestrator(load_settings(workspace, env={})) as service:
        daemon = HealthDaemon(
            service, interval=0.1, lease_seconds=2.0, told=lambda _scan: ready.set()
        )
        daemon.run()


def test_another_daemon_takes_over_from_a_killed_one(working, tmp_path):
    """When the leader is killed another one scans within the time of its lease."""
    play = working().create("only")
    agent = play.deploy()
    ready = processes.event()
    leader = processes.start(leading, str(tmp_path), ready)
    assert ready.wait(60)
    other = HealthDaemon(play.service, interval=0.1, lease_seconds=2.0)
    assert other.turn() is None
    token = leases_of(play.service.store).lease_holder(lease_name(process_identity.host())).token
    leader.kill()
    leader.join()
    until(lambda: other.turn() is not None)
    assert other._lease.token > token
    assert play.agent(agent).status is AgentStatus.RUNNING


def test_a_daemon_that_lost_its_lease_corrects_nothing(working, monkeypatch):
    """A daemon that slept past its lease stops in the middle of its scan."""
    play = working().create("only")
    forgotten(play, monkeypatch)
    agents = [play.deploy(f"a{n}") for n in range(3)]
    for agent in agents:
        os.kill(pid_of(play, agent), signal.SIGKILL)
        until(lambda a=agent: play.service.deployment.process(play.agent(a)) == "dead")
    now = [0.0]
    daemon = HealthDaemon(play.service, interval=0.1, clock=lambda: now[0], lease_seconds=5.0)
    real, seen = play.service.deployment.process, []

    def slept(agent):
        seen.append(agent.agent_id)
        if len(seen) == 1:  # the host is suspended; another daemon takes the lease
            now[0] += 60.0
            leases_of(play.service.store).release_lease(daemon._lease)
            HealthDaemon(play.service, interval=0.1)._renew()
        return real(agent)

    monkeypatch.setattr(play.service.deployment, "process", slept)
    found = daemon.turn()
    assert (found.looked_at, len(found.ended)) == (2, 1)


def test_a_daemon_outlives_what_fails(working, monkeypatch):
    """A scan that fails is tried again, whatever it raised."""
    play = working().create("only")
    scans, failing = [], [OSError("no disk"), errors.AgentNotFound("x", next_step="y")]

    def run(self, task_id=None, **_):
        if failing:
            raise failing.pop()
        scans.append(task_id)
        raise SystemExit

    monkeypatch.setattr(HealthScan, "run", run)
    with pytest.raises(SystemExit):
        HealthDaemon(play.service, interval=0.01).run()
    assert scans == [None]


def test_agents_of_a_lost_host(working, monkeypatch):
    """An agent of another host is lost while no daemon of that host holds a lease; its record is
    left alone, and it goes on when the daemon is back."""
    play = working().create("only")
    agent = play.deploy()
    here = process_identity.host()
    monkeypatch.setattr(process_identity, "_place", lambda: "aaaaaaaaaaaa.bbbbbbbbbbbb.4026531836")
    assert process_identity.host() == "aaaaaaaaaaaa"
    assert play.scan().corrections == 0
    answer = play.reading.health()
    assert [(line.process, line.host) for line in answer.agents] == [("lost", platform.node())]
    console = Console(file=io.StringIO(), width=200)
    console.print(agents_table(agent_rows(play.service)))
    assert f"lost on {platform.node()}" in console.file.getvalue()
    assert answer.next_step is None
    leases = leases_of(play.service.store)
    lease = leases.acquire_lease(lease_name(here), "its-daemon", seconds=60)
    assert play.reading.health().healthy == 1
    leases.release_lease(lease)
    assert play.agent(agent).status is AgentStatus.RUNNING


def test_deaths_are_recorded_within_an_interval(working, monkeypatch):
    """Each of 40 deaths that only a daemon sees is recorded by its next scan."""
    play = working(max_concurrent=50, max_agents=50).create("only")
    forgotten(play, monkeypatch)
    agents = [play.deploy(f"a{n}") for n in range(40)]
    daemon = HealthDaemon(play.service, interval=0.2)
    thread = threading.Thread(target=daemon.run)
    thread.start()
    try:
        for agent in agents:
            os.kill(pid_of(play, agent), random.choice([signal.SIGKILL, signal.SIGTERM]))
        until(lambda: not play.active())
    finally:
        daemon.stop()
        thread.join()
    assert {play.agent(a).status for a in agents} == {AgentStatus.FAILED}


SECRETS = [
    "AKIA" + "A" * 16,
    "ASIA" + "B" * 16,
    "ghp_" + "c" * 36,
    "github_pat_" + "d" * 40,
    "glpat-" + "e" * 20,
    "xoxb-" + "1" * 12 + "-abcdef",
    "AIza" + "f" * 35,
    "sk_live_" + "g" * 24,
    "npm_" + "h" * 36,
    "pypi-" + "i" * 60,
    "hf_" + "j" * 34,
    "sk-ant-api03-" + "k" * 40,
    "sk-proj-" + "l" * 40,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0." + "m" * 30,
    "TASK-20260101-000000-abcdef01~worker-1~" + "n" * 32,
    "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----",
]
NAMED = [
    ("Authorization: Bearer ", "o" * 30, ""),
    ("postgresql://me:", "p4ss", "@host/db"),
    ("REGISTRY_AGENT_SECRET=", "q" * 20, " done"),
    ('{"api_key": "', "r" * 20, '"}'),
    ("password: ", "hunter22", ", next"),
]


@pytest.mark.parametrize("secret", SECRETS, ids=lambda s: s[:10])
def test_secrets_are_recognised_by_their_form(secret):
    """Each kind of token is removed wherever it stands, and what is around it is kept."""
    assert redacted(f"before '{secret}', after") == "before '[secret]', after"


@pytest.mark.parametrize(("before", "secret", "after"), NAMED)
def test_secrets_are_recognised_by_their_name(before, secret, after):
    """What follows the name of a secret is removed, the name is kept."""
    assert redacted(f"x {before}{secret}{after}") == f"x {before}[secret]{after}"


def test_what_is_no_secret_stays():
    """Words, ids, paths and code are not changed, and a long text takes no time."""
    for text in (
        "the task TASK-20260101-000000-abcdef01 has 3 agents",
        "sk-1, skip, task-ant, https://example.org/a?b=c, user@host",
        "token budget of 2000; secrets are hidden",
        "f(x) = key[1:2]",
    ):
        assert redacted(text) == text
    began = time.process_time()
    for long in ("a" * 200_000, "token" * 40_000, "eyJ" * 60_000, "x-" * 100_000, "a+" * 100_000):
        redacted(long)
    assert time.process_time() - began < 20


def test_an_agent_that_left_a_process_has_ended(working, monkeypatch):
    """A scan records the end of an agent whose program has exited, and stops the process that it
    left; once, without its orchestrator, it was alive without end."""
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {FOREVER!r}])"
    play = working(code, auto_review=False).create("only")
    monkeypatch.setattr(play.service.processes, "_process_ended", lambda *_, **__: None)
    agent = play.deploy()
    until(lambda: play.service.deployment.process(play.agent(agent)) == "dead")
    assert play.scan().ended == (agent,)
    assert play.agent(agent).status is AgentStatus.COMPLETED
    until(lambda: launchers().current.running(play.service.settings.workspace) == ())


def test_a_log_that_no_record_can_hold_stops_no_scan(working, monkeypatch):
    """Whatever an agent writes as its result, its end is recorded, and so are those of others;
    once, one line kept every server from starting."""
    line = r'{"type":"result","is_error":true,"result":"a\ud800b\u0000"}'
    odd = f"print({line!r})"
    play = working(odd).create("only")
    forgotten(play, monkeypatch)
    agents = [play.deploy(name) for name in ("a", "b")]
    for agent in agents:
        until(lambda a=agent: play.service.deployment.process(play.agent(a)) == "dead")
    monkeypatch.setattr(
        play.service.deployment.files,
        "last_output",
        lambda agent: 1 / 0 if agent.agent_id == agents[0] else None,
    )
    assert play.scan().ended == (agents[1],)
    assert "program ended with an error: a" in extra(play, agents[1])["failure_reason"]
    monkeypatch.undo()
    forgotten(play, monkeypatch)
    assert play.scan().ended == (agents[0],)


def test_a_result_counts_if_only_the_starter_was_killed(working):
    """If the process that waits for an agent is killed, the agent's result line decides; once, the
    starter's own death counted as the agent's."""
    line = json.dumps({"type": "result"})
    code = f"import time; time.sleep(1); print({line!r})"
    play = working(code).create("only")
    agent = play.deploy()
    os.kill(psutil.Process(pid_of(play, agent)).ppid(), signal.SIGKILL)
    until(lambda: play.agent(agent).status is not AgentStatus.RUNNING)
    assert play.agent(agent).status is AgentStatus.COMPLETED
    assert extra(play, agent)["completion_reason"] == "its log ends with a result, no final report"


def test_a_retry_finds_the_prompt_of_an_earlier_attempt(working, monkeypatch, tmp_path):
    """If the retrying process died before it wrote the prompt, the next attempt reads the one
    before; a prompt that is no text is refused."""
    play = working("import sys; print(sys.stdin.read()); raise SystemExit(3)").create("only")
    first = play.deploy()
    until(lambda: play.agent(first).status is AgentStatus.FAILED)
    with monkeypatch.context() as patched:
        patched.setattr(play.service.processes, "start", lambda *_: None)
        second = play.service.retry(play.task_id, first).agent_id
    play.service.kill(play.task_id, second, "never started")
    third = play.service.retry(play.task_id, second).agent_id
    until(lambda: play.agent(third).status is AgentStatus.FAILED)
    assert extra(play, third)["last_output"] == "work"
    prompt = tmp_path / play.task_id / f"agent_prompt_{third}.txt"
    assert not list(prompt.parent.glob("*.new"))
    prompt.write_bytes(b"\xff")
    prompt.with_name(f"agent_prompt_{first}.txt").unlink()
    with pytest.raises(errors.LaunchFailed, match="was removed"):
        play.service.retry(play.task_id, third)


def test_a_retry_nests_no_less(working):
    """A retry whose parent has ended keeps its depth, so that no limit is by-passed."""
    play = working(max_depth=2).create("only")
    parent = play.deploy("parent")
    child = play.deploy("child", parent=parent)
    play.service.kill(play.task_id, child, "enough")
    play.service.kill(play.task_id, parent, "enough")
    again = play.service.retry(play.task_id, child).agent_id
    assert (play.agent(again).parent, play.agent(again).depth) == ("orchestrator", 2)
    with pytest.raises(errors.LimitReached):
        play.deploy("deeper", parent=again)


def test_a_damaged_identity_breaks_no_list(working):
    """An agent whose process names no host is listed with the others."""
    play = working().create("only")
    agent = play.deploy()
    for text in ("5:1:a b!/.x.y", "5:1:" + "a" * 500 + ".b.c", "5:1:..", "\x1b[2J:1:a.b.c"):
        odd = Agent(task_id=play.task_id, agent_id="odd", extra=json.dumps({"process": text}))
        transact(play.service.store, play.task_id, lambda _, o=odd: (Put(o),))
        assert agent not in [line.agent_id for line in play.reading.health().agents]
        assert play.scan().ended in {(), ("odd",)}


def test_a_persons_session_is_not_an_agents(working, tmp_path):
    """An agent that a person runs in a terminal is never stopped, nor is anything of that session;
    once, the whole session was signalled."""
    play = working(end_grace=0.0).create("only")
    agent = play.service.deploy(play.task_id, "a", "x", kind="external").agent_id
    env = {
        "REGISTRY_WORKSPACE": str(tmp_path),
        "REGISTRY_TASK_ID": play.task_id,
        "REGISTRY_AGENT_ID": agent,
    }
    words = " ".join(f"{name}='{value}'" for name, value in env.items())
    shell = subprocess.Popen(
        ["sh", "-c", f"env {words} sleep 600 & echo up; wait"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    shell.stdout.readline()
    try:
        play.report(agent, "failed")
        assert play.scan().stopped == ()
        env["REGISTRY_AGENT_ID"] = "nobody"
        words = " ".join(f"{name}='{value}'" for name, value in env.items())
        stray = subprocess.Popen(
            ["sh", "-c", f"env {words} sleep 600 & wait"], start_new_session=True
        )
        until(lambda: play.scan().stopped == ("nobody",))
        stray.wait(timeout=30)
        assert shell.poll() is None
        assert len(psutil.Process(shell.pid).children()) == 1
    finally:
        for child in psutil.Process(shell.pid).children():
            child.kill()
        shell.communicate()


def test_a_store_without_leases_is_scanned(tmp_path):
    """A store that has no leases has one process, whose daemon scans; once, no server started."""
    settings = load_settings(tmp_path, env={}, backend="sqlite")
    options = OrchestratorSettings(default_kind="external")
    with closing(open_store(settings, gated=False)) as store:
        with pytest.raises(NotSupported):
            leases_of(store)
        service = Orchestrator(store, launchers(), settings=settings, options=options)
        daemon = HealthDaemon(service, interval=0.1)
        assert daemon.turn() is not None
        assert daemon.leads
        daemon.stop()
        daemon.run()


def test_attempts_that_name_each_other_are_no_endless_search(working, tmp_path):
    """A damaged record that names itself as the attempt before it is refused as any without a
    prompt."""
    play = working().create("only")
    agent = play.deploy()
    play.service.kill(play.task_id, agent, "enough")
    (tmp_path / play.task_id / f"agent_prompt_{agent}.txt").unlink()
    damaged = replace(play.agent(agent), extra=json.dumps(extra(play, agent) | {"retry_of": agent}))
    transact(play.service.store, play.task_id, lambda _: (Put(damaged),))
    with pytest.raises(errors.LaunchFailed, match="was removed"):
        play.service.retry(play.task_id, agent)


@pytest.mark.parametrize("backend", ["sqlite", "json"])
def test_the_daemon_compacts_the_feed_hourly(tmp_path, backend):
    """Expired lines of tasks that nobody writes to are dropped, where the store can do that."""
    settings = load_settings(tmp_path, env={}, backend=backend)
    ago = timedelta(days=40)
    with closing(open_store(settings, now=lambda: datetime.now(UTC) - ago)) as store:
        store.commit(build.aged("old", build.creating("old").ops, 40, expected=0))
        store.commit(build.aged("old", [Put(build.report("old"))], 40))
    with closing(open_store(settings)) as store:
        options = OrchestratorSettings(default_kind="external")
        service = Orchestrator(store, launchers(), settings=settings, options=options)
        HealthDaemon(service, interval=0.1, clock=lambda: 0.0).turn()
        kept = [c.revision for c in store.changes(task_id="old")]
        assert kept == ([2] if backend == "sqlite" else [1, 2])
