"""registry-backend: messages for wrong calls, and for a folder without a registry."""

import json
from contextlib import closing
from importlib.metadata import version

import pytest

from backends.admin.app import app
from backends.admin.cli import main
from registry_api import open_store
from registry_api.settings import load_settings
from tests import samples

COMMANDS = sorted(n for n in app if not n.startswith("-"))


def run(capsys, *tokens):
    code = main([str(t) for t in tokens])
    out = capsys.readouterr()
    return code, out.out, out.err


def error(capsys, *tokens):
    code, out, _ = run(capsys, *tokens, "--json")
    return code, json.loads(out)["error"]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_help_has_one_example_of_that_command(command, capsys):
    """And no example of another command."""
    _, out, _ = run(capsys, command, "--help")
    assert out.count("Example: ") == out.count(f"Example: registry-backend {command}") == 1


def test_the_version_is_the_distributions(capsys):
    """--version prints it."""
    assert run(capsys, "--version") == (0, version("registry-backend") + "\n", "")


def test_options_may_come_before_the_command(tmp_path, capsys):
    """`--workspace W --json verify` is `verify --workspace W --json`."""
    with closing(open_store(load_settings(tmp_path))):
        pass
    code, out, _ = run(capsys, "--workspace", tmp_path, "--json", "verify")
    assert (code, json.loads(out)["tasks"]) == (0, 0)


def test_usage_errors_name_the_help_of_their_command(capsys):
    """The message says what is wrong, and names the help to read."""
    code, found = error(capsys, "stauts")
    assert (code, found["message"], found["next"]) == (
        2,
        "no command 'stauts'",
        "registry-backend --help",
    )
    code, found = error(capsys, "plan", "1", "2")
    assert (code, found["message"], found["next"]) == (
        2,
        "unexpected argument '2'",
        "registry-backend plan --help",
    )


@pytest.mark.parametrize(
    "command",
    [["status"], ["verify"], ["reconcile"], ["recover"], ["history"], ["plan", "1"], ["diff", "t"]],
    ids=" ".join,
)
def test_an_empty_folder_stays_empty(command, tmp_path, capsys):
    """A mistyped workspace is reported to hold no registry, and none is created in it."""
    code, found = error(capsys, *command, "--workspace", tmp_path)
    assert code == 1
    assert "no registry" in found["message"]
    assert "workspace" in found["next"]
    assert list(tmp_path.iterdir()) == []


def test_an_empty_history_leaves_no_trace(tmp_path, capsys):
    """A legacy workspace without switches: the command says so, and writes nothing."""
    workspace = samples.copy_of("recorded-2025-10", tmp_path)
    before = sorted(workspace.rglob("*"))
    assert run(capsys, "history", "--workspace", workspace)[:2] == (0, "No switch was made here.\n")
    assert sorted(workspace.rglob("*")) == before


@pytest.mark.parametrize("wrong", [("--seconds", "-1"), ("--writers", "0"), ("--workspace", ".")])
def test_the_demo_refuses_what_it_cannot_run(wrong, tmp_path, capsys, monkeypatch):
    """It refuses before it creates anything."""
    monkeypatch.chdir(tmp_path)
    assert error(capsys, "demo", *wrong)[0] == 2
    assert list(tmp_path.iterdir()) == []
