"""A copied or renamed workspace, or a renamed host: which processes belong to its agents."""

import json
import os
import shutil
import subprocess
from contextlib import closing

import pytest

from backends.admin.cli import main
from orchestrator.agents import deployment, process_identity
from orchestrator.agents.launchers.process import ProcessLauncher
from orchestrator.service import Orchestrator
from orchestrator.settings import OrchestratorSettings
from registry_api import load_settings, open_store
from registry_api.errors import BackendMismatch
from registry_api.records import ACTIVE_AGENT, TaskStatus
from registry_api.workspace import copied_from, instance_of
from tests import legacy
from tests.orchestrator.playing import Play, launchers
from tests.processes import wait_until

KINDS = {"sleeper": {"argv": ["sleep", "600"]}}


@pytest.fixture
def opened():
    """Return a function that makes a Play over a workspace whose agents sleep; stop the agents."""
    plays = []

    def make(workspace):
        settings = load_settings(workspace, env={})
        values = {"default_kind": "sleeper", "kinds": KINDS, "stop_grace": 0.5, "reviewers": 1}
        options = OrchestratorSettings.model_validate(values)
        store = open_store(settings)
        play = Play(Orchestrator(store, launchers(), settings=settings, options=options))
        plays.append((play, store))
        return play

    yield make
    for play, store in plays:
        with closing(store):
            for found in ProcessLauncher().running(play.service.settings.workspace):
                ProcessLauncher().stop([found.identity], grace=0)


@pytest.fixture
def workspace(tmp_path):
    root = tmp_path / "original"
    root.mkdir()
    return root


def is_alive(play, agent):
    return process_identity.alive(json.loads(play.agent(agent).extra)["process"])


def copied(workspace, name="copy"):
    return shutil.copytree(workspace, workspace.with_name(name), symlinks=True)


def over(opened, play, workspace):
    other = opened(workspace)
    other.task_id = play.task_id
    return other


def test_a_copy_leaves_the_originals_agents_alone(opened, workspace):
    """A scan, a cancelled task and a stopped agent in a copy leave the original's agent alive, and
    the copy's own records show the cancellation."""
    play = opened(workspace).create("only")
    agent = play.deploy()
    copy = over(opened, play, copied(workspace))
    assert copy.service.deployment.process(copy.agent(agent)) == "elsewhere"
    found = copy.scan()
    assert (found.ended, found.stopped) == ((), ())
    copy.service.cancel_task(copy.task_id, "of the copy")
    assert copy.now.status is TaskStatus.CANCELLED
    assert copy.agent(agent).status not in ACTIVE_AGENT
    assert copy.scan().stopped == ()
    assert is_alive(play, agent)
    assert play.scan().ended == ()
    play.service.cancel_task(play.task_id, "of the original")
    assert not is_alive(play, agent)


def test_a_renamed_workspace_keeps_its_agents(opened, workspace):
    """A workspace renamed with ``mv`` finds its agents alive, and can stop them."""
    play = opened(workspace).create("only")
    agent = play.deploy()
    identity = json.loads(play.agent(agent).extra)["process"]
    play.service.store.close()
    there = workspace.rename(workspace.with_name("renamed"))
    renamed = over(opened, play, there)
    assert renamed.service.deployment.process(renamed.agent(agent)) == "alive"
    running = ProcessLauncher().running(there)
    assert [r.agent_id for r in running] == [agent]
    assert renamed.scan().ended == ()
    renamed.service.cancel_task(play.task_id, "enough")
    assert not process_identity.alive(identity)


def test_a_renamed_host_knows_which_agents_are_dead(opened, workspace, monkeypatch):
    play = opened(workspace).create("only")
    dead, living = play.deploy("one"), play.deploy("two")
    monkeypatch.setattr("platform.node", lambda: "renamed-host")
    os.kill(process_identity.pid_of(json.loads(play.agent(dead).extra)["process"]), 9)
    other = over(opened, play, workspace)
    assert other.service.deployment.process(other.agent(living)) == "alive"
    wait_until(lambda: other.scan() and other.agent(dead).status not in ACTIVE_AGENT)
    assert other.agent(living).status in ACTIVE_AGENT


def test_after_a_reboot_every_agent_is_dead_also_in_a_copy(opened, workspace, monkeypatch):
    """After a reboot every agent is dead, also in a copy: its pid may be another process's."""
    play = opened(workspace).create("only")
    agent = play.deploy()
    machine, boot, space = process_identity._place().split(".")
    monkeypatch.setattr(process_identity, "_HOST_SPACE", space)  # as in an unknown container
    copy = over(opened, play, copied(workspace))
    monkeypatch.setattr(process_identity, "_place", lambda: f"{machine}.other{boot[5:]}.{space}")
    for one in (play, copy):
        assert one.service.deployment.process(one.agent(agent)) == "dead"


def test_a_backup_put_back_in_its_place_keeps_its_agents(opened, workspace, monkeypatch):
    """A backup restored at the same path, with another inode, stops agents that are still alive,
    even ones whose program has not started, and finds dead the agents that ended meanwhile."""
    play = opened(workspace).create("only")
    ended, agent = play.deploy("one"), play.deploy("two")
    identity = json.loads(play.agent(agent).extra)["process"]
    play.service.store.close()
    there = copied(workspace)
    shutil.rmtree(workspace)
    there.rename(workspace)
    again = over(opened, play, workspace)
    os.kill(process_identity.pid_of(json.loads(again.agent(ended).extra)["process"]), 9)
    assert again.service.deployment.process(again.agent(agent)) == "alive"
    monkeypatch.setattr(deployment, "_CARE", 0)  # its starter is alive: this process
    wait_until(lambda: again.scan() and again.agent(ended).status not in ACTIVE_AGENT)
    again.service.cancel_task(play.task_id, "enough")
    assert not process_identity.alive(identity)


def test_process_identities_of_earlier_versions_are_read(monkeypatch):
    """Process identities of earlier versions, which end with a host name, are still read."""
    pid, birth, _ = process_identity.own_identity().split(":")
    monkeypatch.setattr("platform.node", lambda: "node1.example.com")
    for place, here in (("node1.example.com", True), ("node2.example.com", False)):
        assert process_identity.is_here(f"{pid}:{birth}:{place}") is here
        assert process_identity.alive(f"{pid}:{birth}:{place}") is here
        assert not process_identity.of_earlier_boot(f"{pid}:{birth}:{place}")


def test_doctor_recognises_a_copy(opened, workspace, capsys):
    """Doctor names the original of a copy, and a command that makes the copy its own registry."""
    opened(workspace).create("only")
    copy = copied(workspace)
    assert copied_from(workspace / ".registry") is None
    assert copied_from(copy / ".registry") == str(workspace)
    assert main(["doctor", "--json", "--workspace", str(copy)]) == 3
    issues = json.loads(capsys.readouterr().out)["issues"]
    (found,) = [i for i in issues if i["check"] == "instance"]
    assert str(workspace) in found["what"]
    command = found["next"].partition(": ")[2]
    subprocess.run(command, shell=True, check=True)
    before = instance_of(copy / ".registry")
    opened(copy)
    assert instance_of(copy / ".registry") not in {"", before, instance_of(workspace / ".registry")}
    assert main(["doctor", "--workspace", str(copy)]) == 0


def test_git_takes_nothing_of_the_registrys_own_folder(opened, workspace):
    """``git add .`` adds nothing of ``.registry``; it once took the operator's token, and two
    clones merged their feeds."""
    legacy.write_task(workspace, "TASK-1")
    opened(workspace).create("only")
    (workspace / ".registry" / "token").write_text("secret")
    for command in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", "-C", workspace, *command], check=True)
    listed = ["git", "-C", workspace, "ls-files"]
    taken = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split()
    assert "TASK-1/AGENT_REGISTRY.json" in taken
    assert [name for name in taken if name.startswith(".registry")] == []


@pytest.mark.parametrize(
    ("command", "listed"),
    [("status", False), *((c, True) for c in ("status", "verify", "doctor", "switch", "plan"))],
)
def test_frozen_documents_without_our_folder_are_refused(workspace, capsys, command, listed):
    """A phase 3 workspace without ``.registry``, with its global file or without, is not taken for
    phase 0, since its frozen documents are older than the cut-over; once the folder is back,
    commands work again."""
    legacy.write_task(workspace, "TASK-1", agents=[{"id": "a", "type": "x", "status": "running"}])
    if listed:
        (workspace / "registry").mkdir()
        (workspace / "registry" / "GLOBAL_REGISTRY.json").write_text('{"tasks": {}, "agents": {}}')
    assert main(["switch", "3", "--workspace", str(workspace)]) == 0
    for path in workspace.glob("registry/*.json") if not listed else ():
        path.unlink()
    aside = (workspace / ".registry").rename(workspace.with_name("aside"))
    capsys.readouterr()
    tokens = [command, *(["1"] if command in {"switch", "plan"} else [])]
    code = main([*tokens, "--json", "--workspace", str(workspace)])
    said = capsys.readouterr().out
    assert code in {1, 3}
    assert "frozen by a cut-over" in said
    assert "chmod u+w" in said
    with pytest.raises(BackendMismatch, match="frozen by a cut-over"):
        open_store(load_settings(workspace, env={}))
    if (workspace / ".registry").exists():
        shutil.rmtree(workspace / ".registry")
    aside.rename(workspace / ".registry")
    assert main([*tokens, "--workspace", str(workspace)]) == 0
