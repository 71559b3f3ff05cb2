"""Every command on terminals with a limited encoding, and with output to a full disk."""

import json
import os
import subprocess
import sys

import pytest

from tests import legacy

COMMANDS = (["status"], ["doctor"], ["plan", "1"], ["history"], ["verify"], ["--help"], ["watch"])
ENCODINGS = ("latin-1", "cp1252", "ascii", "utf-8")


@pytest.fixture
def workspace(tmp_path):
    tmp_path = tmp_path / "日本"
    agents = [{"id": "agent", "type": "x", "status": "running", "prompt": "日本 ●"}]
    legacy.write_task(tmp_path, "TASK-1", agents=agents, task_description="Größe ✓ 日本")
    (tmp_path / "TASK-bad").mkdir()
    (tmp_path / "TASK-bad" / "AGENT_REGISTRY.json").write_text('{"task_id": "日本"')
    return tmp_path


def run(workspace, tokens, *, out=subprocess.PIPE, **env):
    more = ["--count", "1"] if tokens == ["watch"] else []
    place = [] if tokens == ["--help"] else ["--workspace", str(workspace)]
    return subprocess.run(
        [sys.executable, "-m", "backends.admin", *tokens, *more, *place],
        env={**os.environ, **env},
        stdout=out,
        stderr=subprocess.PIPE,
        check=False,
    )


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("tokens", COMMANDS, ids=" ".join)
def test_no_encoding_makes_a_traceback(workspace, tokens, encoding):
    """Characters outside the encoding become question marks; JSON escapes them and stays exact."""
    done = run(workspace, tokens, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert done.returncode in {0, 1, 3, 6}, done.stderr
    assert b"Traceback" not in done.stdout + done.stderr
    if tokens in (["status"], ["doctor"], ["plan", "1"]):
        done = run(workspace, [*tokens, "--json"], PYTHONIOENCODING=encoding, PYTHONUTF8="0")
        assert b"Traceback" not in done.stderr
        found = json.loads(done.stdout.decode(encoding))
        assert "日本" in json.dumps(found, ensure_ascii=False)


@pytest.mark.parametrize("tokens", [["status"], ["status", "--json"], ["doctor", "--json"]])
def test_a_full_disk_is_told_once(workspace, tokens):
    with open("/dev/full", "w") as full:  # noqa: PTH123  (an open descriptor, or hot path)
        done = run(workspace, tokens, out=full)
    assert done.returncode == 1
    said = done.stderr.decode()
    assert "Traceback" not in said
    assert said.count("No space left on device") == 1
    assert "Exception ignored" not in said


def test_a_reader_that_goes_is_no_error_to_speak_of(workspace):
    reading, writing = os.pipe()
    os.close(reading)
    done = run(workspace, ["status", "--json"], out=writing)
    os.close(writing)
    assert done.stderr == b""


@pytest.mark.parametrize("columns", ["0", "1", "-3", "x", ""])
def test_no_width_prints_nothing(workspace, columns):
    done = run(workspace, ["status"], COLUMNS=columns)
    assert b"TASK-bad" in done.stdout
    assert b"1 agent" in done.stdout or b"Nothing is running" in done.stdout


def test_doctor_does_not_say_that_nothing_is_to_be_done_below_a_task_it_cannot_read(workspace):
    done = run(workspace, ["doctor"])
    assert done.returncode == 3
    assert b"TASK-bad" in done.stdout
    assert b"Nothing needs action" not in done.stdout
