"""The commands for people: what they say is so, and what agents write cannot steer a terminal."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.cli import main
from orchestrator.rules.findings import FindingType, Severity
from orchestrator.settings import AgentKind
from registry_api import Agent, AgentStatus, PhaseStatus, Put, new_changeset, transact
from tests.orchestrator.playing import launchers, until

PYTHON = sys.executable
FOREVER = "import time; print('up', flush=True); time.sleep(600)"
HOSTILE = "half \x1b[2J\x1b]0;title\x07 done\r\nsecond [red]line[/red] \x9b31m"


@pytest.fixture
def working(opened, tmp_path):
    """Return a function that makes a Play whose agents run this code; the commands use it too."""

    def make(code=FOREVER, *, launcher="process"):
        argv = [PYTHON, "-c", code]
        (tmp_path / "registry.toml").write_text(
            f'[orchestrator]\nlauncher = "{launcher}"\ndefault_kind = "one"\n'
            'reviewer_kind = "external"\nstop_grace = 1.0\n[orchestrator.kinds.one]\n'
            f"preamble = false\nargv = {json.dumps(argv)}\n"
        )
        kinds = {"one": AgentKind(argv=argv, preamble=False)}
        return opened("sqlite", launcher=launcher, kinds=kinds, default_kind="one")

    yield make
    for launcher in launchers().all().values():
        launcher.stop([one.identity for one in launcher.running(tmp_path)], grace=0)


@pytest.fixture
def say(tmp_path, monkeypatch, capsys):
    """Return a function that runs a command and returns its exit code and output."""
    monkeypatch.setenv("REGISTRY_WORKSPACE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "160")

    def run(*tokens):
        capsys.readouterr()
        code = main([str(token) for token in tokens])
        return code, capsys.readouterr().out

    return run


def told(say, *tokens):
    code, out = say(*tokens, "--json")
    assert code == 0, out
    return json.loads(out)


def test_what_they_show_is_so(working, say):
    """Tasks, a task, agents and an agent are shown as they are recorded, also as JSON."""
    play = working().create("plan", "build")
    agent, other = play.deploy("builder"), play.deploy("tester")
    play.report(agent, "working", "half of it", 50)
    play.report(other, "failed", "cannot", 10)
    assert told(say, "tasks")["tasks"][0]["active_agents"] == 1
    assert told(say, "task", play.task_id)["agents_by_status"] == {"working": 1, "failed": 1}
    (row,) = told(say, "agents")["agents"]
    assert (row["agent_id"], row["process"], row["message"]) == (agent, "alive", "half of it")
    assert [r["agent_id"] for r in told(say, "agents", "--all")["agents"]] == [agent, other]
    found = told(say, "agent", agent)
    assert (found["status"], found["progress"]) == ("working", 50)
    assert found["reports"][0]["message"] == "half of it"
    for command in (["tasks"], ["task", play.task_id], ["agents", "--all"], ["agent", agent]):
        code, out = say(*command)
        assert code == 0
        assert play.task_id in out or agent in out
    assert "50%" in say("agents")[1]


def test_an_empty_workspace(say):
    """Where nothing is, each list says so or is empty."""
    assert "create_task creates the first one" in say("tasks")[1]
    assert say("agents") == (0, "No active agents\n")
    assert say("tail", "--history") == (0, "")
    assert say("health", "--once") == (0, "0 active agent(s) checked\n")


@pytest.mark.parametrize(
    ("tokens", "code", "next_step"),
    [
        (("task", "TASK-none"), "task_not_found", ""),
        (("agent", "nobody"), "agent_not_found", "agents --all"),
        (("kill", "nobody"), "agent_not_found", "agents --all"),
        (("cancel", "TASK-none"), "task_not_found", ""),
        (("tasks", "--cursor", "zzz"), "invalid_query", "cursor"),
    ],
)
def test_a_refusal_says_what_to_do(say, tokens, code, next_step):
    """A refusal is one JSON object with --json, and its exit code is 1."""
    exit_code, out = say(*tokens, "--json")
    error = json.loads(out)["error"]
    assert (exit_code, error["code"]) == (1, code)
    assert next_step in error["next"]


def test_agents_of_one_name_need_their_task(working, say):
    """An id that agents of two tasks have is refused until the task is named."""
    play = working()
    tasks = []
    for _ in range(2):
        play.create("only")
        tasks.append(play.task_id)
    for task_id in tasks:
        agent = Agent(task_id=task_id, agent_id="same-1", status=AgentStatus.COMPLETED)
        head = play.service.store.head(task_id).revision
        play.service.store.commit(new_changeset(task_id, (Put(agent),), expected=head))
    code, out = say("agent", "same-1", "--json")
    assert (code, json.loads(out)["error"]["next"]) == (1, "Name the task with --task")
    assert told(say, "agent", "same-1", "--task", tasks[1])["task_id"] == tasks[1]


def test_an_agent_without_any_sign_of_life_is_the_most_silent(working, say):
    """top counted it as not silent and listed it last, while status and dashboard said silent."""
    play = working().create("only")
    head = play.service.store.head(play.task_id).revision
    old = play.service.now() - timedelta(days=1)
    agents = [
        Agent(task_id=play.task_id, agent_id="day", status=AgentStatus.RUNNING, last_update=old),
        Agent(task_id=play.task_id, agent_id="never", status=AgentStatus.RUNNING),
    ]
    puts = tuple(map(Put, agents))
    play.service.store.commit(new_changeset(play.task_id, puts, expected=head))
    assert "2 active agents, 2 of them silent" in say("top", "--count", "1")[1]
    assert [row["agent_id"] for row in told(say, "agents")["agents"]] == ["never", "day"]
    assert [line.agent_id for line in play.reading.health().agents] == ["never", "day"]


def test_what_agents_write_steers_no_terminal(working, say):
    """No command prints a control character that an agent wrote, or takes it as markup."""
    play = working().create("pl\x1b[31man")
    agent = play.deploy()
    play.report(agent, "working", HOSTILE, 50)
    play.add_finding(agent, HOSTILE, FindingType.INSIGHT, Severity.HIGH)
    play.report(agent, "failed", HOSTILE, 50)
    for command in (
        ["tasks"],
        ["task", play.task_id],
        ["agents", "--all"],
        ["agent", agent],
        ["top", "--count", "1"],
        ["tail", "--history"],
    ):
        code, out = say(*command)
        assert code == 0
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", out), (command, out)
    assert "[red]line[/red]" in say("agent", agent)[1]


def test_killing_and_cancelling(working, say):
    """kill says what it stopped, cancel ends the task; a second kill is refused."""
    play = working(
        f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {FOREVER!r}])\n" + FOREVER
    )
    play.create("only")
    agent, other = play.deploy("a"), play.deploy("b")
    until(lambda: play.reading.output(play.task_id, agent, max_bytes=99, before=None).size >= 6)
    done = told(say, "kill", agent, "--reason", "it loops")
    assert (done["status"], done["signalled"], done["left"]) == ("terminated", 2, [])
    assert json.loads(play.agent(agent).extra)["termination_reason"] == "it loops"
    assert say("kill", agent)[0] == 1
    assert told(say, "cancel", play.task_id)["status"] == "CANCELLED"
    assert play.agent(other).status is AgentStatus.TERMINATED
    until(lambda: launchers().current.running(play.service.settings.workspace) == ())


def test_approving_and_retrying(working, say):
    """approve force-approves an escalated phase with a reason; retry starts the next attempt."""
    play = working().create("only", "next")
    failed = play.deploy("a")
    play.service.kill(play.task_id, failed, "enough")
    again = told(say, "retry", failed)
    assert again["attempt"] == 2
    play.done(again["agent_id"])
    play.service.abort_review(play.task_id, play.review.review_id, "nobody answers")
    assert play.phase(0).status is PhaseStatus.ESCALATED
    assert say("approve", play.task_id)[0] == 2  # without a reason
    assert told(say, "approve", play.task_id, "--reason", "checked by hand")["status"] == "ACTIVE"
    assert play.phase(0).status is PhaseStatus.APPROVED
    assert json.loads(play.phase(0).extra)["force_reason"] == "checked by hand"


def test_logs_are_followed_to_the_end(working, tmp_path):
    """logs -f prints what is there and what is added, byte for byte, and ends with the agent."""
    go = tmp_path / "go"
    code = (
        f"import os, time\nprint('one', flush=True)\n"
        f"while not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
        "print('two\\x1b[31m', flush=True)"
    )
    play = working(code).create("only")
    agent = play.deploy()
    command = [PYTHON, "-m", "orchestrator", "logs", agent, "-f", "--workspace", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"one\n"
    go.touch()
    out, errors = process.communicate(timeout=60)
    assert (out, errors, process.returncode) == (b"two\x1b[31m\n", b"", 0)


def test_tail_tells_what_happens(working, tmp_path):
    """tail prints each report, finding and end as it is recorded."""
    play = working().create("only")
    command = [PYTHON, "-m", "orchestrator", "tail", "--json", "--workspace", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    agent = play.deploy()
    # It may have begun before the agent, or after: until it says something the agent reports.
    os.set_blocking(process.stdout.fileno(), False)
    until(lambda: play.report(agent, "working", "hello", 5) and process.stdout.readline())
    os.set_blocking(process.stdout.fileno(), True)
    play.report(agent, "failed", "the end", 5)
    for line in process.stdout:
        event = json.loads(line)
        if event["what"].startswith(f"agent {agent} is failed"):
            break
    process.terminate()
    process.communicate()
    assert event["task_id"] == play.task_id
    assert event["who"] == agent


@pytest.mark.skipif(not shutil.which("tmux"), reason="tmux is not installed")
def test_attaching(working, say, tmp_path, monkeypatch):
    """attach runs the launcher's command, not one that somebody wrote into the record."""
    play = working(launcher="tmux").create("only")
    agent = play.deploy()
    calls = []
    monkeypatch.setattr(os, "execvpe", lambda *given: calls.append(given))
    monkeypatch.setenv("TMUX", "/tmp/users-own,1,0")
    extra = json.loads(play.agent(agent).extra)
    with_another = {**extra, "attach": ["touch", "/tmp/owned"]}
    changed = replace(play.agent(agent), extra=json.dumps(with_another))
    transact(play.service.store, play.task_id, lambda _: (Put(changed),))
    say("attach", agent)
    ((program, command, environment),) = calls
    assert (program, list(command)) == ("tmux", extra["attach"])
    assert "TMUX" not in environment
    process = working().create("only").deploy()
    code, _ = say("attach", process)
    assert code == 1


def test_completion_and_help_need_nothing_slow():
    """The help imports neither mcp nor a store: it is what a shell's completion calls."""
    code = (
        "import sys; from orchestrator.cli import main; main(['--help']); "
        "print([n for n in ('mcp', 'sqlalchemy', 'psutil', 'rich.live') if n in sys.modules])"
    )
    done = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", ["tasks", "task", "agents", "agent", "tail"])
def test_a_terminal_that_shows_less(working, tmp_path, command):
    """With an encoding that lacks what agents wrote, commands show something in its place."""
    play = working().create("plän")
    agent = play.deploy()
    play.report(agent, "working", "hälf of it \N{SNOWMAN}", 50)
    more = {
        "task": [play.task_id],
        "agent": [agent],
        "agents": ["--all"],
        "tail": ["--history"],
    }.get(command, [])
    done = subprocess.run(
        [PYTHON, "-m", "orchestrator", command, *more, "--workspace", str(tmp_path)],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout


def test_an_argument_that_is_no_text(tmp_path):
    """An argument with bytes that are not UTF-8 is refused with a sentence."""
    command = [PYTHON, "-m", "orchestrator", "cancel", "TASK-1", "--reason", b"\xff"]
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert b"not valid text" in done.stderr
