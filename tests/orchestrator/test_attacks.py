"""The findings of an attack on the orchestrator, one test each."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from mcp import Client

from orchestrator import errors
from orchestrator.agents import process_identity
from orchestrator.agents.launchers.process import ProcessLauncher
from orchestrator.health.scan import HealthScan
from orchestrator.mcp.server import build_server
from orchestrator.rules import agents
from orchestrator.rules.findings import FindingType, Severity
from orchestrator.settings import AgentKind, load_orchestrator_settings
from orchestrator.state_db import load_task_snapshot, record_progress
from registry_api import (
    AgentStatus,
    Kind,
    PhaseStatus,
    RecordQuery,
    ReviewStatus,
    TaskStatus,
    all_records,
    load_settings,
    transact,
)
from registry_api.errors import Busy, SettingsError, TaskNotFound
from registry_api.records import ACTIVE_AGENT
from registry_api.workspace.server_cli import listening
from tests import legacy
from tests.orchestrator.test_launching import FOREVER, PYTHON, STUBBORN, log_of, stop_all, until

SLEEPER = {"one": AgentKind(argv=(PYTHON, "-c", FOREVER), preamble=False)}


@pytest.fixture
def sleeping(opened, tmp_path):
    """Return a function that makes a Play on sqlite whose agents sleep; stop them at the end."""

    def make(**options):
        values = {"kinds": SLEEPER, "default_kind": "one", "reviewer_kind": "external", **options}
        return opened("sqlite", **values)

    yield make
    stop_all(tmp_path)


def dead_identity():
    dead = subprocess.Popen(["true"])
    identity = process_identity.identity_of(dead.pid) or f"{dead.pid}:1:{os.uname().nodename}"
    dead.wait()
    return identity


def abandoned(play, monkeypatch, deploy):
    """Run a deployment whose process dies right after the reservation."""
    with monkeypatch.context() as patched:
        patched.setattr(play.service.processes, "owner", dead_identity())
        patched.setattr(play.service.processes, "start", lambda *_: None)
        return deploy()


def identity_of(play, agent):
    return json.loads(play.agent(agent).extra)["process"]


def test_two_scans_start_a_reviewer_once(sleeping, monkeypatch):
    """Of two concurrent scans one starts an abandoned reviewer, and the other fails nothing; it
    once failed the reviewer, its review and its phase."""
    one, other = sleeping(reviewers=1, reviewer_kind=None), sleeping(reviewer_kind=None)
    one.create("only")
    other.task_id = one.task_id
    abandoned(one, monkeypatch, one.work)
    (reviewer,) = one.review.reviewers
    seen = threading.Event()
    process, start = other.service.deployment.process, one.service.processes._start_reviewer

    def slow_process(agent):
        found = process(agent)
        with ThreadPoolExecutor(1) as pool:  # the first scan comes in between
            assert pool.submit(one.scan).result().started == (reviewer,)
        return found

    def slow_start(agent):
        seen.set()
        return start(agent)

    monkeypatch.setattr(one.service.processes, "_start_reviewer", slow_start)
    monkeypatch.setattr(other.service.deployment, "process", slow_process)
    found = other.scan()
    assert seen.is_set()
    assert (found.ended, found.started) == ((), ())
    assert one.agent(reviewer).status is AgentStatus.REVIEWING
    assert one.phase(0).status is PhaseStatus.IN_REVIEW


def test_a_scan_ends_only_the_record_that_it_read(sleeping, monkeypatch):
    """A scan does not end an agent that its owner confirmed after the scan read it."""
    play = sleeping().create("only")
    agent = abandoned(play, monkeypatch, play.deploy)
    process = play.service.deployment.process

    def confirmed_meanwhile(seen):
        found = process(seen)
        at = play.service.now()
        command = agents.ConfirmAgent(
            agent_id=agent,
            identity=process_identity.own_identity(),
            pid=1,
            at=at,
            secret_hash="x",
            reservation=agents.reservation_of(seen),
        )
        transact(play.service.store, play.task_id, lambda s: agents.confirm(s, command))
        return found

    monkeypatch.setattr(play.service.deployment, "process", confirmed_meanwhile)
    assert play.scan().ended == ()
    assert play.agent(agent).status is AgentStatus.RUNNING


def test_a_kind_that_nobody_configured_is_a_setting_that_is_wrong(tmp_path):
    """An unknown reviewer_kind is a settings error; once, a typo left the reviewers of every phase
    waiting without end."""
    env = {"REGISTRY_ORCHESTRATOR_REVIEWER_KIND": "clade"}
    with pytest.raises(SettingsError, match=r"clade.*known: claude, codex, external, gemini"):
        load_orchestrator_settings(load_settings(tmp_path, env={}), env=env)


def test_a_store_that_is_busy_after_the_reservation(sleeping, monkeypatch):
    """A store that is busy after the reservation leaves no agent; once, the agent stayed `running`
    without a process and with a live owner."""
    play = sleeping().create("only")

    def busy(*_args, **_options):
        raise Busy("somebody writes")

    with monkeypatch.context() as patched:
        patched.setattr(play.service.deployment, "start", busy)
        with pytest.raises(Busy):
            play.deploy()
    assert play.now.agents == ()
    assert play.deploy() in play.active()


def test_one_reviewer_that_cannot_be_started_stops_no_other(sleeping, monkeypatch):
    """A reviewer that cannot start fails alone and is replaced; once, its error skipped the next
    reviewer and failed the worker's last report."""
    play = sleeping(reviewers=2, reviewer_kind=None).create("only")
    worker = play.deploy()
    start, failed = play.service.deployment.start, []

    def fails_once(task, agent, *args, **options):
        if not failed:
            failed.append(agent.agent_id)
            raise OSError("no more processes")
        return start(task, agent, *args, **options)

    monkeypatch.setattr(play.service.deployment, "start", fails_once)
    play.done(worker)
    assert play.agent(failed[0]).status is AgentStatus.FAILED
    assert failed[0] not in play.review.reviewers
    states = [play.service.deployment.process(play.agent(r)) for r in play.review.reviewers]
    assert states == ["alive", "alive"]


def test_a_start_that_took_too_long_runs_no_second_program(sleeping, monkeypatch):
    """If a scan takes over a start that takes too long, the first one is refused when it would
    confirm, so one program runs; a scan once took over a start that had just been reserved."""
    play = sleeping(reviewers=1, reviewer_kind=None).create("only")
    prepare, taken = play.service.launchers.current.prepare, []

    def slow(launch, ended):
        prepared = prepare(launch, ended)
        if not taken and launch.agent_id.startswith("reviewer-"):
            taken.append(launch.agent_id)
            assert play.scan().started == ()  # it is being started
            real = process_identity.uptime
            with monkeypatch.context() as patched:
                patched.setattr(process_identity, "uptime", lambda: real() + 61)
                assert play.scan().started == (launch.agent_id,)
        return prepared

    monkeypatch.setattr(play.service.launchers.current, "prepare", slow)
    play.done(play.deploy())
    time.sleep(1)  # the cancelled start tells its end: once, that ended the live one
    assert play.review.reviewers == tuple(taken)
    assert play.service.deployment.process(play.agent(taken[0])) == "alive"
    running = ProcessLauncher().running(play.service.settings.workspace)
    until(lambda: [f.agent_id for f in running].count(taken[0]) == 1)
    assert identity_of(play, taken[0]) in {found.identity for found in running}


def test_an_exit_that_nobody_could_note(sleeping, tmp_path):
    """The exit of an agent after its service was closed is found by the next scan; once, the agent
    was `ending` without end, because its owner was alive."""
    play = sleeping().create("only")
    agent = play.deploy()
    until(lambda: "up" in log_of(play, agent))
    again = sleeping()
    again.task_id = play.task_id
    identity = json.loads(play.agent(agent).extra)["process"]
    play.service.store.close()
    stop_all(tmp_path)
    until(lambda: again.service.deployment.process(again.agent(agent)) == "dead")
    assert not ProcessLauncher().alive(identity)
    assert again.scan().ended == (agent,)


def test_many_deploy_at_once(opened, tmp_path):
    """Sixteen concurrent deployments succeed; once, all wrote one file through one temporary name,
    and 28 of 36 failed."""
    kind = AgentKind(argv=(PYTHON, "-c", FOREVER, "{mcp_config}"), preamble=False)
    play = opened("sqlite", kinds={"one": kind}, default_kind="one").create("only")
    try:
        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(lambda n: play.deploy(f"a{n}"), range(16)))) == 16
    finally:
        stop_all(tmp_path)
    config = tmp_path / ".registry" / "mcp.json"
    assert json.loads(config.read_text())["mcpServers"]["orchestrator"]["command"] == PYTHON
    assert config.stat().st_mode & 0o077 == 0
    assert [p.name for p in config.parent.glob("mcp.*")] == ["mcp.json"]


def test_a_strangers_group_is_not_the_agents():
    """A process group of another program with a dead agent's number is neither alive for us nor
    killed; once it was both."""
    leader = subprocess.Popen(
        ["sh", "-c", "sleep 60 & echo $!; exit 0"], start_new_session=True, stdout=subprocess.PIPE
    )
    child = int(leader.stdout.readline())
    leader.wait()
    leader.stdout.close()
    launcher = ProcessLauncher()
    host = process_identity.own_identity().split(":")[2]
    for identity in (f"{leader.pid}:1", f"{leader.pid}:1:{host}", f"{leader.pid}:1:{host}:word"):
        assert not launcher.alive(identity)
        launcher.stop([identity], grace=0.0)
    os.kill(child, 9)


def test_processes_that_an_agent_leaves_running_are_stopped(opened, tmp_path):
    """A child that an agent leaves running is stopped at the agent's end; once it went on."""
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {FOREVER!r}])"
    kinds = {"one": AgentKind(argv=(PYTHON, "-c", code), preamble=False)}
    play = opened("sqlite", kinds=kinds, default_kind="one", reviewer_kind="external")
    agent = play.create("only").deploy()
    until(lambda: play.agent(agent).status is AgentStatus.COMPLETED)
    until(lambda: ProcessLauncher().running(tmp_path) == ())


def test_a_scan_stops_processes_of_an_ended_agent(opened, tmp_path):
    """A scan stops the processes of an ended agent, found by the variable that they inherit, even
    if their leader is gone."""
    play = opened("sqlite", end_grace=0.0).create("only")
    where = {"REGISTRY_WORKSPACE": str(tmp_path), "REGISTRY_TASK_ID": play.task_id}
    mine = {"REGISTRY_AGENT_ID": "gone", "REGISTRY_AGENT_WORD": "abc"}
    leader = subprocess.Popen(
        ["sh", "-c", "sleep 60 & exit 0"],
        start_new_session=True,
        env={**os.environ, **where, **mine},
    )
    leader.wait()
    assert play.scan().stopped == ("gone",)
    assert ProcessLauncher().running(tmp_path) == ()


def test_a_process_of_an_agent_is_seen_during_its_execve():
    """A process of an agent is seen during its execve, when it shows no environment."""
    again = ["sh", "-c", 'exec "$0" -c "$1" "$0" "$1"', "sh", 'exec "$0" -c "$1" "$0" "$1"']
    leader = subprocess.Popen(
        ["sh", "-c", '"$@" & exit 0', "sh", *again],
        start_new_session=True,
        env={**os.environ, "REGISTRY_AGENT_WORD": "abc"},
    )
    leader.wait()
    launcher, identity = ProcessLauncher(), f"{leader.pid}:gone::abc"
    try:
        assert all(launcher.alive(identity) for _ in range(200))
    finally:
        launcher.stop([identity], grace=5.0)
    assert not launcher.alive(identity)


PHASES = [
    {"id": "p1", "order": 1, "name": "one", "status": "ACTIVE"},
    {"id": "p2", "order": 2, "name": "two", "status": "PENDING"},
]


def phases(*statuses, **more):
    return [{**p, "status": s, **more} for p, s in zip(PHASES, statuses, strict=True)]


def review(status, **more):
    return {
        "review_id": "rev-1",
        "phase_id": "p1",
        "status": status,
        "num_reviewers": 1,
        "reviewers": [{"agent_id": "r1", "status": "reviewing"}],
        "verdicts": [],
        "created_at": "2026-01-04T22:15:30",
        **more,
    }


R1 = {"id": "r1", "type": "reviewer", "status": "running", "phase_index": -1, "review_id": "rev-1"}
DONE = {"id": "w", "type": "worker", "status": "completed", "phase_index": 0}
LEFT = {
    "awaiting a review that is not there": {"phases": phases("AWAITING_REVIEW", "PENDING")},
    "a review that is pending": {
        "phases": phases("UNDER_REVIEW", "PENDING", active_review_id="rev-1"),
        "reviews": [review("pending")],
        "agents": [DONE, R1],
    },
    "a reviewer that is no agent": {
        "phases": phases("UNDER_REVIEW", "PENDING", active_review_id="rev-1"),
        "reviews": [review("in_progress")],
        "agents": [DONE],
    },
    "a phase that does not name its review": {
        "phases": phases("UNDER_REVIEW", "PENDING"),
        "reviews": [review("in_progress")],
        "agents": [DONE, R1],
    },
    "a review that is over": {
        "phases": phases("UNDER_REVIEW", "PENDING", active_review_id="rev-1"),
        "reviews": [review("completed", final_verdict="approved")],
        "agents": [DONE],
    },
    "nothing was opened": {"phases": phases("PENDING", "PENDING")},
    "the next was not opened": {"phases": phases("APPROVED", "PENDING")},
    "an index past the end": {"phases": phases("APPROVED", "ACTIVE"), "current_phase_index": 7},
    "no index": {"phases": phases("APPROVED", "ACTIVE"), "current_phase_index": None},
    "the older dialect": {
        "phases": [{"id": "p1", "order": 1, "name": "one", "status": "awaiting_review"}],
        "version": 3,
    },
}


@pytest.mark.parametrize("left", LEFT)
def test_tasks_that_legacy_programs_left_can_be_brought_to_an_end(opened, tmp_path, left):
    """A task in a state that a legacy program left reaches COMPLETED by following each next step;
    once, every command on it was refused."""
    keys = {"current_phase_index": 0, **LEFT[left]}
    legacy.write_task(tmp_path, "TASK-1", **keys)
    play = opened("auto", reviewers=1)
    play.task_id = "TASK-1"
    for n in range(30):
        step = play.reading.task("TASK-1").next_step
        if play.now.status is TaskStatus.COMPLETED:
            break
        take(play, step, n)
    assert play.now.status is TaskStatus.COMPLETED
    assert play.reading.task("TASK-1").next_step.startswith("Nothing is left")


def take(play, step, n):
    """Do the first thing that a next step names."""
    waiting = [a for a in play.now.agents if a.status in ACTIVE_AGENT and a.review_id is None]
    if step.startswith("Wait for its agents"):
        play.done(waiting[0].agent_id)
    elif step.startswith("deploy_agent"):
        play.deploy(f"n{n}")
    elif step.startswith("submit_phase_for_review"):
        play.service.submit_phase("TASK-1")
    elif step.startswith("Wait for the verdicts"):
        opens = {ReviewStatus.IN_PROGRESS, ReviewStatus.PENDING}
        (found,) = [r for r in play.now.reviews if r.status in opens]
        play.service.verdict("TASK-1", found.review_id, found.reviewers[0], "approved")
    else:
        raise AssertionError(step)


def test_a_review_with_an_unknown_reviewer_can_be_aborted(opened, tmp_path):
    """A review with an unknown reviewer, which can get no verdict, can be aborted."""
    legacy.write_task(tmp_path, "TASK-1", **LEFT["a reviewer that is no agent"])
    play = opened("auto")
    play.task_id = "TASK-1"
    play.service.abort_review("TASK-1", "rev-1", "nobody is there")
    assert play.phase(0).status is PhaseStatus.ESCALATED


def test_output_stays_inside_when_folders_are_swapped(sleeping, tmp_path, tmp_path_factory):
    """Output stays in the workspace if the logs folder becomes a link before the start; once, paths
    were looked up again and the output was written outside."""
    outside = tmp_path_factory.mktemp("outside")
    play = sleeping().create("only")
    prepare = play.service.launchers.current.prepare

    def swap(launch, ended):
        logs = tmp_path / play.task_id / "logs"
        logs.rename(tmp_path / "kept")
        logs.symlink_to(outside)
        return prepare(launch, ended)

    play.service.launchers.current.prepare = swap
    agent = play.deploy()
    kept = tmp_path / "kept" / f"{agent}_stream.jsonl"
    until(lambda: kept.read_text() == "up\n")
    assert list(outside.iterdir()) == []


def test_a_failed_launch_does_not_end_a_task_without_phases(opened):
    """A failed launch does not fail a task without phases; once, its only agent had failed, so that
    the advice to try again was refused."""
    kinds = {
        "needy": AgentKind(argv=(PYTHON, "--model", "{model}")),
        "gone": AgentKind(argv=("no-such-program",)),
    }
    play = opened("memory", kinds=kinds).create()
    for kind, why in (("needy", "needs a model"), ("gone", "not installed")):
        with pytest.raises(errors.LaunchFailed, match=why):
            play.deploy(kind=kind)
    assert (play.now.agents, play.now.status) == ((), TaskStatus.INITIALIZED)
    play.deploy(kind="external")


def test_agents_reach_a_server_that_listens_everywhere():
    """Agents of a server on 0.0.0.0 get an address that the server accepts; once they got 0.0.0.0,
    which its own list of hosts refused."""
    with listening("0.0.0.0", 0) as (_, url):
        assert url.startswith("http://127.0.0.1:")


def test_a_report_that_meets_a_kill_is_kept(opened, monkeypatch):
    """The report of an agent that is killed between the read and the change is kept."""
    play = opened("memory").create("only")
    agent = play.deploy()
    only, killed = play.service.transactions.only, []

    def kill_after_the_look(task_id, agent_id):
        snapshot = only(task_id, agent_id)
        if not killed:
            killed.append(True)
            play.service.kill(task_id, agent_id, "now")
        return snapshot

    monkeypatch.setattr(play.service.transactions, "only", kill_after_the_look)
    with pytest.raises(errors.AgentEnded, match="the report is kept"):
        play.done(agent)
    (entry,) = [e for e in play.now.latest if e.agent_id == agent]
    assert (entry.message, play.agent(agent).status) == ("did it", AgentStatus.TERMINATED)


def test_what_is_found_after_a_kill_is_kept_but_not_passed_on(play):
    """A killed agent that runs on is told to stop; no other agent acts on what it finds."""
    play.create("first", "second")
    killed, other = play.deploy("killed"), play.deploy("other")
    play.add_finding(killed, "before the kill", severity=Severity.HIGH)
    play.service.kill(play.task_id, killed, "wrong way")
    with pytest.raises(errors.AgentEnded, match="the finding is kept") as refused:
        play.add_finding(killed, "after the kill", severity=Severity.HIGH)
    assert refused.value.next_step.startswith("Stop")
    play.done(other)
    play.add_finding(other, "after the report", severity=Severity.HIGH)
    for n in range(250):  # more than are looked at
        with pytest.raises(errors.AgentEnded):
            play.add_finding(killed, f"after the kill {n}", severity=Severity.HIGH)
    found = {f.message for f in all_records(play.service.store, Kind.FINDING, RecordQuery())}
    assert {"after the report", "after the kill", "before the kill"} <= found
    alone = play.reading.context(play.task_id).text  # there is no handover yet
    play.approve()
    (handover,) = play.now.handovers
    for passed_on in (alone, play.reading.context(play.task_id).text, str(handover)):
        assert "before the kill" in passed_on
        assert "after the report" in passed_on
        assert "after the kill" not in passed_on


def called(play, tool, **arguments):
    async def run():
        async with Client(build_server(play.service)) as client:
            return await client.call_tool(tool, arguments)

    return asyncio.run(run())


def code_of(result):
    return json.loads(result.content[0].text)["code"]


def test_answers_stay_small_whatever_was_said(play):
    """An answer stays below 20,000 characters whatever agents report; five findings of 1 MiB each
    made one of ten MiB."""
    play.create("only")
    worker = play.deploy()
    for _ in range(5):
        play.add_finding(worker, "x" * 2**20)
    play.report(worker, message="y" * 2**20)
    play.done(worker)
    review = play.review
    for reviewer in review.reviewers:
        long = {"notes": "z" * 2**20, "findings_json": json.dumps(["f" * 2**20])}
        play.service.verdict(play.task_id, review.review_id, reviewer, "rejected", **long)
    of = {"task_id": play.task_id}
    for tool, more in (
        ("get_task_findings", {}),
        ("get_review_status", {"review_id": review.review_id}),
        ("get_task_status", {}),
        ("get_phase_status", {}),
        ("get_task_context", {}),
    ):
        assert len(called(play, tool, **of, **more).content[0].text) < 20_000, tool


def test_a_page_is_cut_by_size_and_goes_on(play):
    """A page is cut by size and its cursor goes on there; a hundred findings were 80,000 tokens."""
    play.create("only")
    worker = play.deploy()
    data = json.dumps({"path": "p" * 1900})
    said = [f"{n} " + '"\\u2028' * 900 for n in range(60)]
    for message in said:
        play.service.add_finding(
            play.task_id,
            worker,
            message,
            finding_type=FindingType.ISSUE,
            severity=Severity.LOW,
            data=data,
        )
    found, cursor, pages = [], "", 0
    while cursor is not None:
        of = {"task_id": play.task_id, "limit": 100, "cursor": cursor}
        text = called(play, "get_task_findings", **of).content[0].text
        assert len(text) < 80_000
        page = json.loads(text)
        found += [f["message"].split()[0] for f in page["findings"]]
        cursor, pages = page.get("next_cursor"), pages + 1
    assert found == [str(n) for n in reversed(range(60))]
    assert pages > 2


@pytest.mark.parametrize("backend", ["memory", "json", "sqlite"])
def test_numbers_that_are_kept_as_they_were_written(opened, backend):
    """Findings with a small float, a long integer or a number beyond all floats can be read."""
    play = opened(backend).create("first")
    agent = play.deploy()
    numbers = '{"rate": 1e-05, "at": 1790000000000000000, "price": 1.10, "far": 1e999}'
    play.service.add_finding(
        play.task_id,
        agent,
        "numbers",
        finding_type=FindingType.ISSUE,
        severity=Severity.LOW,
        data=numbers,
    )
    play.done(agent)
    result = called(play, "get_task_findings", task_id=play.task_id)
    (found,) = json.loads(result.content[0].text)["findings"]
    assert found["data"] == {"rate": 1e-05, "at": 1790000000000000000, "price": 1.1, "far": "1e999"}
    assert result.structured_content["findings"][0]["data"] == found["data"]
    review = play.review
    verdict = {"review_id": review.review_id, "reviewer_agent_id": review.reviewers[0]}
    said = {"verdict": "rejected", "findings": [{"message": "slow", "seconds": 1e-05}]}
    answer = called(play, "submit_review_verdict", task_id=play.task_id, **verdict, **said)
    assert not answer.is_error, answer.content


def test_a_handover_and_a_context_are_cut_by_size(play):
    """A handover and a context are cut by their escaped size: control characters are six times as
    long when they are written."""
    play.create("first", "second")
    agent = play.deploy()
    for kind in FindingType:
        for _ in range(25):
            play.add_finding(agent, "\x01" * 5000, kind=kind, severity=Severity.HIGH)
    play.report(agent, "completed", "\x02" * 5000, 100)
    play.approve()
    of = {"task_id": play.task_id}
    for tool, more in (("get_phase_handover", {}), ("get_task_context", {"max_tokens": 15_000})):
        result = called(play, tool, **of, **more)
        assert not result.is_error, tool
        assert 1000 < len(result.content[0].text) < 80_000, tool


def test_an_answer_that_cannot_be_cut_is_refused(play, monkeypatch):
    """A query with too large an answer is refused; a command that changed something answers."""
    monkeypatch.setattr("orchestrator.mcp.server._LONGEST_ANSWER", 50)
    play.create("only")
    assert code_of(called(play, "get_task_status", task_id=play.task_id)) == "too_large"
    assert not called(play, "create_task", description="x").is_error


def test_the_output_of_an_agent_is_cut_by_size(opened, tmp_path):
    """An agent's output is cut by its escaped size, up to six times as long, and the omitted part
    can be read by its position."""
    play = opened("sqlite").create("only")
    agent = play.deploy()
    logs = tmp_path / play.task_id / "logs"
    logs.mkdir(parents=True)
    (logs / f"{agent}_stream.jsonl").write_bytes(bytes(range(32)) * 1024)
    of = {"task_id": play.task_id, "agent_id": agent, "max_bytes": 32_768}
    text = called(play, "get_agent_output", **of).content[0].text
    assert len(text) < 80_000
    answer = json.loads(text)
    assert answer["start"] + len(answer["text"].encode()) == answer["size"]
    before = json.loads(
        called(play, "get_agent_output", **of, before=answer["start"]).content[0].text
    )
    assert before["start"] < answer["start"]


@pytest.mark.parametrize(
    ("tool", "more"),
    [
        ("create_task", {"description": "  \n"}),
        ("create_task", {"description": ""}),
        ("create_task", {"description": "x", "phases": [{"name": " "}]}),
        ("deploy_agent", {"agent_type": "a", "prompt": ""}),
        ("deploy_agent", {"agent_type": "a b", "prompt": "x"}),
        ("deploy_agent", {"agent_type": "", "prompt": "x"}),
        ("cancel_task", {"reason": " "}),
    ],
)
def test_blank_texts_are_refused(play, tool, more):
    """Blank descriptions, phase names, prompts, types and reasons are refused."""
    play.create("only")
    of = {} if tool == "create_task" else {"task_id": play.task_id}
    assert code_of(called(play, tool, **of, **more)) == "invalid_input"
    assert play.now.agents == ()


def test_a_misspelt_phase_is_refused(play):
    """A phase with an unknown key, or an empty or too long name, is refused; once, unknown keys
    were dropped and an empty name accepted."""
    for phase in ({"name": "a", "descripton": "b"}, {"name": ""}, {"name": "x" * 201}):
        result = called(play, "create_task", description="x", phases=[phase])
        assert code_of(result) == "invalid_input"


def test_every_failure_has_a_code(opened, tmp_path, monkeypatch):
    """An unknown tool, a log that is a FIFO and an internal error each have a code."""
    play = opened("sqlite").create("only")
    agent = play.deploy()
    assert code_of(called(play, "nonsense")) == "unknown_tool"
    logs = tmp_path / play.task_id / "logs"
    logs.mkdir(parents=True)
    os.mkfifo(logs / f"{agent}_stream.jsonl")
    of = {"task_id": play.task_id, "agent_id": agent}
    assert code_of(called(play, "get_agent_output", **of)) == "unavailable"

    def broken(*_args, **_options):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("orchestrator.queries.reading.Reading.task", broken)
    result = called(play, "get_task_status", task_id=play.task_id)
    assert code_of(result) == "internal"
    assert "secret" not in result.content[0].text


def test_unknown_tasks_and_phases_are_refused(play):
    """An unknown task or phase is refused; once, they gave `0 active` and an empty answer."""
    for ask in (play.reading.health, HealthScan(play.service).run):
        with pytest.raises(TaskNotFound):
            ask("TASK-none")
    play.create("only")
    for ask in (play.reading.reviews, play.reading.context):
        with pytest.raises(errors.PhaseNotFound):
            ask(play.task_id, phase_index=77)


def test_a_task_without_active_agents_is_not_silent(play):
    """A task without active agents, right after a verdict, is not silent."""
    play.create("one", "two")
    play.work()
    play.approve()
    assert not play.reading.task(play.task_id).silent


def test_next_steps_without_automatic_reviews(opened):
    """Without automatic reviews the next step names submit_phase_for_review; once, it promised a
    review that nothing opened."""
    play = opened("memory", auto_review=False).create("only")
    agent = play.deploy()
    assert play.reading.task(play.task_id).next_step.endswith("then submit_phase_for_review")
    play.done(agent)
    assert play.reading.task(play.task_id).next_step == "submit_phase_for_review"
    play.service.submit_phase(play.task_id)
    play.say("rejected", "rejected")
    play.work("fixer")
    assert play.reading.task(play.task_id).next_step.startswith("submit_phase_for_review")
    play.service.submit_phase(play.task_id)
    play.approve()
    assert play.now.status is TaskStatus.COMPLETED


def test_another_hosts_agents_are_left_alone(sleeping, monkeypatch):
    """A scan leaves alone agents of another host, whose processes it cannot see; once, a scan in
    one container failed every agent of the other."""
    play = sleeping().create("only")
    agent = play.deploy()
    monkeypatch.setattr(process_identity, "_place", lambda: "another.machine.1")
    other = sleeping()
    other.task_id = play.task_id
    assert other.service.deployment.process(other.agent(agent)) == "elsewhere"
    assert other.scan().ended == ()
    assert [line.process for line in other.reading.health().agents] == ["lost"]


def test_agents_are_stopped_together(opened, tmp_path):
    """Cancelling stops all agents together; once it waited for each stubborn agent in turn."""
    kinds = {"one": AgentKind(argv=(PYTHON, "-c", STUBBORN), preamble=False)}
    play = opened("sqlite", kinds=kinds, default_kind="one", stop_grace=0.2).create("only")
    names = [play.deploy(f"a{n}") for n in range(4)]
    for name in names:
        until(lambda n=name: "up" in log_of(play, n))
    stop, calls = play.service.launchers.current.stop, []

    def counted(stopped, **options):
        calls.append(list(stopped))
        return stop(calls[-1], **options)

    play.service.launchers.current.stop = counted
    play.service.cancel_task(play.task_id, "enough")
    assert len(calls[0]) == 4
    assert ProcessLauncher().running(tmp_path) == ()


def test_a_revision_whose_only_fixer_failed_is_not_reviewed(play):
    """A revision whose only fixer failed is not reviewed; once, agents of earlier rounds counted as
    done, and the unfixed phase was reviewed again."""
    play.create("only")
    play.work()
    play.say("rejected", "rejected")
    fixer = play.deploy("fixer")
    play.service.revision_ready(play.task_id)
    play.report(fixer, "failed")
    assert play.phase(0).status is PhaseStatus.FIXING
    play.work("better")
    assert play.phase(0).status is PhaseStatus.IN_REVIEW


def test_verdicts_of_strangers_do_not_count(opened, tmp_path):
    """A verdict without a reviewer, kept by a legacy program, does not count."""
    keys = LEFT["a review that is pending"]
    stray = {"verdict": "rejected", "findings": [], "submitted_at": "2026-01-04T22:15:31"}
    reviews = [review("in_progress", verdicts=[stray])]
    legacy.write_task(tmp_path, "TASK-1", current_phase_index=0, **(keys | {"reviews": reviews}))
    play = opened("auto")
    play.task_id = "TASK-1"
    play.service.verdict("TASK-1", "rev-1", "r1", "approved")
    assert [p.status for p in play.now.phases] == ["APPROVED", "ACTIVE"]


@pytest.mark.parametrize(
    ("word", "status"),
    [("terminated", "failed"), ("KILLED", "failed"), ("phase_completed", "completed")],
)
def test_other_statuses_in_the_legacy_function(tmp_path, monkeypatch, word, status):
    """The legacy function accepts statuses that an agent cannot report itself."""
    monkeypatch.setenv("REGISTRY_ORCHESTRATOR_DEFAULT_KIND", "external")
    legacy.write_task(tmp_path, "TASK-1", agents=[{"id": "a", "status": "running"}])
    record_progress(tmp_path, "TASK-1", "a", "2030-01-01T00:00:00", word, "over", 50)
    (agent,) = load_task_snapshot(tmp_path, "TASK-1")["agents"]
    assert (agent["status"], agent["message"]) == (status, "over")


def test_an_agents_own_server_does_not_stop_itself(opened, tmp_path):
    """A scan by an agent's own server does not stop its own session, even if the agent has ended;
    once, it ended in the middle of an answer."""
    play = opened("sqlite", end_grace=0.0).create("only")
    agent = play.deploy()
    play.report(agent, "failed")
    env = {"REGISTRY_WORKSPACE": str(tmp_path), "REGISTRY_TASK_ID": play.task_id}
    code = (
        "from orchestrator.opening import open_orchestrator\n"
        "from orchestrator.health.scan import HealthScan\n"
        "from registry_api import load_settings\n"
        "with open_orchestrator(load_settings()) as service:\n"
        "    print(HealthScan(service).run().stopped)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **env, "REGISTRY_AGENT_ID": agent},
        start_new_session=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "()\n"), done.stderr


def test_the_exit_of_a_launch_that_never_ran_is_ignored(sleeping, monkeypatch):
    """The exit of a launch that could not be confirmed is nobody's; once, it was noted as a failure
    before the reservation was removed, which left the agent on record and a task without phases
    FAILED."""
    play = sleeping().create()
    noted = []

    def busy(*_args, **_options):
        raise Busy("somebody writes")

    monkeypatch.setattr(play.service.processes, "_process_ended", lambda *_, **__: noted.append(1))
    monkeypatch.setattr("orchestrator.agents.deployment.transact", busy)
    with pytest.raises(errors.LaunchFailed, match="somebody writes"):
        play.deploy()
    until(lambda: not ProcessLauncher().running(play.service.settings.workspace))
    time.sleep(0.5)
    assert noted == []
    assert play.now.agents == ()
    assert play.now.status is not TaskStatus.FAILED
