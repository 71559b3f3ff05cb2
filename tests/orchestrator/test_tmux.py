"""Agents in tmux: people can attach to them, and the user's own tmux is left alone."""

import json
import os
import shutil
import subprocess
import sys
import tempfile

import pytest

from orchestrator.settings import AgentKind
from registry_api import AgentStatus
from tests.orchestrator.playing import launchers, until

pytestmark = pytest.mark.skipif(not shutil.which("tmux"), reason="tmux is not installed")
FOREVER = "import time; print('up', flush=True); time.sleep(600)"


def tmux(server, *arguments):
    command = ["tmux", "-L", server, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout


@pytest.fixture
def in_tmux(opened):
    """Return a function that makes a Play on sqlite whose agents run this code in tmux."""
    plays = []

    def make(code, *, launcher="tmux", **options):
        kinds = {"one": AgentKind(argv=(sys.executable, "-c", code), preamble=False)}
        options = {"kinds": kinds, "default_kind": "one", "reviewer_kind": "external", **options}
        plays.append(opened("sqlite", launcher=launcher, **options))
        return plays[-1]

    yield make
    for play in plays:
        for launcher in launchers().all().values():
            found = launcher.running(play.service.settings.workspace)
            launcher.stop([one.identity for one in found], grace=0)


def extra(play, agent):
    return json.loads(play.agent(agent).extra)


def server_of(play, agent):
    command = extra(play, agent)["attach"]
    assert command[:2] == ["tmux", "-L"]
    return command[2]


def test_a_person_can_attach(in_tmux):
    """The record holds the launcher, the session and the command that attaches; the terminal shows
    what the agent prints, and the session ends with the agent."""
    play = in_tmux("import sys, time; print('one'); print('two', file=sys.stderr); " + FOREVER)
    agent = play.create("only").deploy()
    said = extra(play, agent)
    server = server_of(play, agent)
    assert (said["launcher"], said["session"]) == ("tmux", f"agent_{agent}")
    assert said["attach"][3:] == ["attach-session", "-t", f"=agent_{agent}"]
    shown = until(
        lambda: (
            (p := tmux(server, "capture-pane", "-p", "-t", f"=agent_{agent}:"))
            and "two" in p
            and "up" in p
            and p
        )
    )
    assert "one" in shown
    play.service.kill(play.task_id, agent, "enough")
    until(lambda: tmux(server, "list-sessions") == "")


def test_an_attached_person_can_interrupt(in_tmux):
    """Ctrl-C in the terminal interrupts the agent, and its record says so."""
    play = in_tmux(FOREVER).create("only")
    agent = play.deploy()
    server = server_of(play, agent)
    until(lambda: "up" in tmux(server, "capture-pane", "-p", "-t", f"=agent_{agent}:"))
    tmux(server, "send-keys", "-t", f"=agent_{agent}:", "C-c")
    until(lambda: play.agent(agent).status is AgentStatus.FAILED)
    assert extra(play, agent)["failure_reason"] == "ended with signal 2, no final report"


def test_the_end_of_the_tmux_server_is_recorded(in_tmux):
    """When tmux's server is killed under ten agents, each is recorded as ended with the reason."""
    play = in_tmux(FOREVER).create("only")
    agents = [play.deploy(f"a{n}") for n in range(10)]
    server = server_of(play, agents[0])
    pid = int(tmux(server, "display-message", "-p", "#{pid}"))
    os.kill(pid, 9)
    until(lambda: not play.active())
    play.scan()
    reasons = {extra(play, agent)["failure_reason"] for agent in agents}
    assert reasons == {
        "ended with signal 1 (its terminal was closed, or its starter killed), no final report"
    }


def test_the_end_of_the_tmux_server_is_found_by_a_scan(in_tmux, tmp_path):
    """The same for agents whose orchestrator has died: one scan of the next one records them."""
    play = in_tmux(FOREVER)
    (tmp_path / "registry.toml").write_text(
        '[orchestrator]\nlauncher = "tmux"\ndefault_kind = "one"\n[orchestrator.kinds.one]\n'
        f"argv = {json.dumps([sys.executable, '-c', FOREVER])}\n"
    )
    code = (
        "import sys; from orchestrator.opening import open_orchestrator; "
        "from registry_api import load_settings\n"
        "with open_orchestrator(load_settings(sys.argv[1])) as service:\n"
        "    task = service.create_task('x').task.task_id\n"
        "    names = [service.deploy(task, f'a{n}', 'p').agent_id for n in range(10)]\n"
        "    print(task, *names, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    play.task_id, *agents = first.stdout.readline().split()
    first.kill()
    first.communicate()
    assert {play.service.deployment.process(play.agent(a)) for a in agents} == {"alive"}
    tmux(server_of(play, agents[0]), "kill-server")
    until(lambda: {play.service.deployment.process(play.agent(a)) for a in agents} == {"dead"})
    assert sorted(play.scan().ended) == sorted(agents)
    reasons = {extra(play, agent)["failure_reason"] for agent in agents}
    assert reasons == {
        "ended with signal 1 (its terminal was closed, or its starter killed), no final report"
    }


def test_a_change_of_the_setting_ends_no_agent(in_tmux):
    """Agents are judged and stopped by the launcher that started them; once, a scan after a change
    of the setting failed them all."""
    play = in_tmux(FOREVER).create("only")
    agent = play.deploy()
    other = in_tmux(FOREVER, launcher="process")
    other.task_id = play.task_id
    assert other.service.deployment.process(other.agent(agent)) == "alive"
    assert other.scan().ended == ()
    second = other.deploy("b")
    assert extra(other, second)["launcher"] == "process"
    assert play.scan() == play.scan()
    for name in (agent, second):
        play.service.kill(play.task_id, name, "enough")
        until(lambda n=name: play.service.deployment.process(play.agent(n)) != "alive")


def test_a_launcher_that_is_not_installed_judges_nobody(in_tmux):
    """An agent of a launcher that is not installed here is neither ended nor stopped."""
    play = in_tmux(FOREVER).create("only")
    agent = play.deploy()
    forgotten = play.service.launchers
    forgotten._factories = {"process": forgotten._factories["process"]}
    forgotten._made = {"process": forgotten._factories["process"]()}
    assert play.service.deployment.process(play.agent(agent)) == "elsewhere"
    assert play.scan().ended == ()
    assert play.service.deployment.stop([play.agent(agent)]) == ()
    assert play.agent(agent).status is AgentStatus.RUNNING


def test_the_users_own_tmux_is_left_alone(in_tmux, monkeypatch, tmp_path):
    """Agents are in a server of the registry's own: the user's sees nothing, agents do not find it
    by the environment, and no secret is in the environment of the server."""
    folder = tempfile.mkdtemp(dir="/tmp")  # a socket's path must be short
    monkeypatch.setenv("TMUX_TMPDIR", folder)
    long = tmp_path / ("long" * 20)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    monkeypatch.setenv("TMUX", "/tmp/users-own,1,0")
    monkeypatch.setenv("REGISTRY_AGENT_SECRET", "a-parents-secret")
    play = in_tmux("import os; print(os.environ.get('TMUX')); " + FOREVER).create("only")
    agent = play.deploy()
    until(lambda: "up" in play.reading.output(play.task_id, agent, max_bytes=99, before=None).text)
    assert "None" in play.reading.output(play.task_id, agent, max_bytes=99, before=None).text
    assert tmux("default", "list-sessions") == ""
    shown = tmux(server_of(play, agent), "show-environment", "-g")
    assert "TMUX_TMPDIR" in shown
    assert "SECRET" not in shown
    play.service.kill(play.task_id, agent, "enough")
    shutil.rmtree(folder)


def test_without_tmux_it_says_what_to_do(in_tmux, monkeypatch):
    """Without tmux the deployment is refused with what to do, and nothing is reserved."""
    play = in_tmux(FOREVER).create("only")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Exception, match="install it, or use the launcher 'process'"):
        play.deploy()
    assert play.now.agents == ()
