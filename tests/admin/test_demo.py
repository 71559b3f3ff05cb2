"""registry-backend demo: the move under load, and that its check can fail."""

import json

import pytest

from backends.admin.cli import main
from tests import samples


def demo(capsys, *tokens):
    code = main(["demo", "--writers", "2", "--seconds", "0.2", "--json", *tokens])
    found = json.loads(capsys.readouterr().out)
    assert "error" not in found, found
    return code, found["steps"]


def test_nothing_is_lost(capsys):
    """Twelve switches under load: every acknowledged write is found by plain json and sqlite3."""
    code, steps = demo(capsys)
    assert code == 0
    assert len(steps) == 13
    assert all(s["acknowledged"] >= 100 and s["lost"] == s["mismatches"] == 0 for s in steps)


def test_sabotage_is_found_out(capsys):
    """One write in 500 acknowledged and not made: lost, exit 3."""
    code, steps = demo(capsys, "--sabotage")
    assert code == 3
    assert sum(s["lost"] for s in steps) > 0


@pytest.mark.parametrize("name", ["recorded-2025-10", "server-2026-01"])
def test_nothing_is_lost_in_a_copy_of_a_real_registry(name, tmp_path, capsys):
    """--workspace: the demo runs on what the older orchestrator left behind, too."""
    code, steps = demo(capsys, "--workspace", str(samples.copy_of(name, tmp_path)))
    assert code == 0
    assert all(s["lost"] == s["mismatches"] == 0 for s in steps)
