"""registry-backend demo: a migration under load, and a check that its check can fail."""

import json
import subprocess
import sys

import pytest

from backends.admin.cli import main
from tests import lmdb_plugin, samples
from tests.proof import PROVING
from tests.slow_disk import slow_syncs

# A demo has twelve switches under load. The bound is for one that hangs: beside busy loops a demo
# took more than 300 s that takes 24 s alone.
pytestmark = pytest.mark.timeout(1200)


def demo(capsys, *tokens):
    code = main(["demo", "--writers", "2", "--seconds", "0.2", "--json", *tokens])
    found = json.loads(capsys.readouterr().out)
    assert "error" not in found, found
    return code, found["steps"]


def test_nothing_is_lost(capsys):
    """Twelve switches under load: plain json and sqlite3 find every acknowledged write."""
    code, steps = demo(capsys)
    assert code == 0
    assert len(steps) == 13
    assert all(s["acknowledged"] >= 100 and s["lost"] == s["mismatches"] == 0 for s in steps)


@pytest.mark.parametrize("pair", ["sqlite,lmdb", "lmdb,sqlite", "json,lmdb"])
def test_nothing_is_lost_between_other_stores(pair, tmp_path, monkeypatch, capsys):
    """--pair: twelve switches between other stores; each end has every acknowledged write."""
    pytest.importorskip("lmdb", reason="lmdb is not installed")
    lmdb_plugin.install(tmp_path, monkeypatch)
    code, steps = demo(capsys, "--pair", pair)
    assert code == 0
    assert len(steps) == 13
    assert all(s["acknowledged"] >= 100 and s["lost"] == s["mismatches"] == 0 for s in steps)


@pytest.mark.parametrize("tokens", [("--pair", "sqlite"), ("--pair", "sqlite,sqlite")])
def test_a_pair_that_is_none(tokens, capsys):
    """One store, or the same twice: a usage error that says what to write."""
    assert main(["demo", *tokens]) == 2
    assert "--pair" in capsys.readouterr().err


def test_sabotage_is_found_out(capsys):
    """One write in 500 is acknowledged but not made: reported as lost, exit 3."""
    code, steps = demo(capsys, "--sabotage")
    assert code == 3
    assert sum(s["lost"] for s in steps) > 0


@pytest.mark.parametrize("name", ["recorded-2025-10", "server-2026-01"])
def test_nothing_is_lost_in_a_copy_of_a_real_registry(name, tmp_path, capsys):
    """--workspace: the demo also runs on a registry that the legacy orchestrator wrote."""
    code, steps = demo(capsys, "--workspace", str(samples.copy_of(name, tmp_path)))
    assert code == 0
    assert all(s["lost"] == s["mismatches"] == 0 for s in steps)


@pytest.mark.skipif(not PROVING, reason="make proof")
def test_nothing_is_lost_on_a_slow_disk(tmp_path):
    """With syncs 10 ms slower: the same twelve switches; the demo says why they take long."""
    command = [sys.executable, "-m", "backends.admin", "demo", "--writers", "2", "--seconds", "0.2"]
    slow = slow_syncs(tmp_path, 10)
    done = subprocess.run(command, env=slow, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a sync takes" in done.stdout
    assert "lost 0" in done.stdout.splitlines()[-1]
    assert "left unchanged" in done.stdout
    assert done.stderr == ""
