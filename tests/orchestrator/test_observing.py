"""The log, the metrics and the unit file: what they tell is so, and no secret is in them."""

import json
import logging
import os
import shlex
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest

from orchestrator.cli import main
from orchestrator.health.daemon import HealthDaemon
from orchestrator.log_output import configure_log
from orchestrator.metrics import Metrics
from orchestrator.settings import AgentKind
from tests.orchestrator import conducting
from tests.orchestrator.test_health import SECRETS

PYTHON = sys.executable


@pytest.fixture
def log():
    """Restore the logging of this process."""
    root, ours = logging.getLogger(), logging.getLogger("registry_backend")
    before = root.handlers[:], root.level, ours.level
    yield ours
    root.handlers[:], level, own = before
    root.setLevel(level)
    ours.setLevel(own)


def test_every_commit_is_in_the_log(opened, log, capsys):
    """At level info each record that was committed is a line with task, actor and changeset."""
    configure_log(level="info", as_json=True)
    play = opened().create("only")
    agent = play.deploy()
    play.report(agent, "working", "half", 50)
    play.done(agent)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {line["task"] for line in lines} == {play.task_id}
    said = [line["event"] for line in lines]
    assert f"{agent}: working, 50%: half" in said
    assert f"agent {agent} is completed" in said
    feed = {str(c.changeset.id) for c in play.service.store.changes()}
    assert {line["changeset"] for line in lines} == feed
    assert {line["actor"] for line in lines} == {"create_task", "deploy_agent", agent}


@pytest.mark.parametrize("as_json", [True, False])
def test_no_secret_is_in_the_log(opened, log, capsys, as_json):
    """Secrets of every known form, prompts and control characters do not reach the log, neither
    from a message, nor from a field, nor from a traceback."""
    configure_log(level="info", as_json=as_json)
    play = opened().create("only")
    agent = play.service.deploy(play.task_id, "worker", "a prompt with the word canary").agent_id
    for secret in SECRETS:
        play.report(agent, "working", f"uses {secret} now", 50)
        log.warning("a field", extra={"where": f"x {secret} y", "prompt": "canary", "n": 3})
        try:
            raise ValueError(secret)
        except ValueError:
            log.exception("failed")
    log.warning("steers \x1b[2J the terminal")
    text = capsys.readouterr().err
    for secret in SECRETS:
        assert secret not in text
        assert json.dumps(secret)[1:-1] not in text
    assert "canary" not in text
    assert "[secret]" in text
    assert "\x1b[2J" not in text


def test_metrics_count_what_happens(opened):
    """Starts and ends of agents, calls, scans and what is active now are counted."""
    kinds = {"one": AgentKind(argv=(PYTHON, "-c", "raise SystemExit(1)"), preamble=False)}
    play = opened("sqlite", kinds=kinds, default_kind="one", observer=Metrics)
    metrics = play.service.observer
    play.create("only")
    agent = play.deploy()
    play.deploy("other", kind="external")
    deadline = time.monotonic() + 60
    while agent in play.active():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with metrics.call("list_tasks") as tell:
        tell("ok")
    HealthDaemon(play.service, interval=1).turn()
    told = numbers(metrics.text())
    assert told['registry_orchestrator_agents_started_total{launcher="process"}'] == 1
    assert told['registry_orchestrator_agents_ended_total{status="failed"}'] == 1
    assert told['registry_orchestrator_call_seconds_count{outcome="ok",tool="list_tasks"}'] == 1
    assert told["registry_orchestrator_scan_seconds_count"] == 1
    assert told["registry_orchestrator_health_leader"] == 1
    assert told["registry_orchestrator_active_agents"] == 1
    assert told["registry_orchestrator_active_tasks"] == 1
    assert "registry_epoch" in told


def numbers(text):
    pairs = (line.rpartition(" ") for line in text.decode().splitlines() if line[:1] != "#")
    return {name: float(value) for name, _, value in pairs}


@contextmanager
def program(workspace, *command):
    process = subprocess.Popen(
        [PYTHON, "-m", "orchestrator", *command],
        env=conducting.environment(workspace),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=60)


def fetched(url, token=None):
    request = urllib.request.Request(url)
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, b""


def test_a_server_and_a_daemon_show_their_metrics(tmp_path):
    """/metrics answers with the operator's or a reader's token, and nobody without one."""
    with program(tmp_path, "serve", "--http", "127.0.0.1:0") as server:
        at = server.stdout.readline().strip().removesuffix("/mcp") + "/metrics"
        check_metrics(tmp_path, at)
    with program(tmp_path, "health", "--interval", "0.2", "--metrics", "127.0.0.1:0") as daemon:
        at = daemon.stderr.readline().split()[-1]
        check_metrics(tmp_path, at)
        assert fetched(at + "/more", "x")[0] == 404


def check_metrics(workspace, at):
    token = (workspace / ".registry" / "token").read_text().strip()
    status, text = fetched(at, token)
    assert status == 200
    assert "registry_orchestrator_health_leader" in numbers(text)
    for wrong in (None, "", "x", token[:-1], "é"):
        with_latin = wrong.encode().decode("latin-1") if wrong else wrong
        assert fetched(at, with_latin)[0] == 401


@pytest.mark.parametrize("address", ["0.0.0.0:1", "127.0.0.1", "127.0.0.1:99999", "example.org:80"])
def test_a_metrics_address_that_is_refused(tmp_path, monkeypatch, capsys, address):
    """Only loopback, and only an address."""
    monkeypatch.setenv("REGISTRY_WORKSPACE", str(tmp_path))
    monkeypatch.setattr("orchestrator.cli.health.configure_log_from", lambda _: None)
    assert main(["health", "--metrics", address]) == 2
    assert "127.0.0.1" in capsys.readouterr().err


def test_the_unit_file_starts_this_workspace(tmp_path, monkeypatch, capsys):
    """The unit's command starts a server of the workspace, whatever its name is, and systemd ends
    no agent with it."""
    place = tmp_path / 'a "b" $HOME %n ü'
    place.mkdir()
    assert main(["service", "--workspace", str(place), "--http", "127.0.0.1:0"]) == 0
    unit = capsys.readouterr().out
    assert "KillMode=process" in unit
    (line,) = [one for one in unit.splitlines() if one.startswith("ExecStart=")]
    words = line.removeprefix("ExecStart=").replace("%%", "%").replace("$$", "$")
    command = shlex.split(words)
    assert str(place) in command
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        assert (place / ".registry" / "token").exists()
    finally:
        process.terminate()
        process.communicate(timeout=60)
    if shutil.which("systemd-analyze"):
        if "nonsense" not in verified(unit.replace("=process", "=nonsense"), tmp_path):
            pytest.skip("systemd-analyze verifies nothing here")
        assert verified(unit, tmp_path) == ""


def verified(unit, folder):
    """What systemd says about a unit of a user; nothing if it is right."""
    path = folder / "registry-orchestrator.service"
    path.write_text(unit)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", path],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},  # without one it verifies nothing
    )
    return "".join(line for line in done.stderr.splitlines() if path.name in line)


def test_a_line_break_forges_no_line_and_a_long_text_hides_no_secret(log, capsys):
    """A message with a line break is one line of the log, and a secret that is cut is removed
    before the cut."""
    configure_log(level="info", as_json=False)
    log.info("%s", "done\n2026-01-01T00:00:00Z [error] agent x was killed")
    secret = "ghp_" + "a" * 36
    log.info("%s", "x" * 1980 + " " + secret)
    text = capsys.readouterr().err
    assert len(text.splitlines()) == 2
    assert "ghp_" not in text
