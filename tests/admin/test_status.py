"""registry-backend and its status: accurate on real registries."""

import json
import subprocess
import sys

from backends.admin.cli import main
from registry_api.records import PLURALS
from tests import samples


def run(capsys, *tokens):
    code = main([str(t) for t in tokens])
    out = capsys.readouterr()
    return code, out.out, out.err


def status(capsys, workspace):
    code, out, _ = run(capsys, "status", "--json", "--workspace", workspace)
    assert code == 0
    return json.loads(out)


def test_the_recorded_registry(tmp_path, capsys):
    """One agent and one task are active, silent since October 2025; the stored count is five."""
    workspace = samples.copy_of("recorded-2025-10", tmp_path)
    found = status(capsys, workspace)
    assert found["migration"]["phase"] == 0
    assert found["counts"]["tasks"] == {
        "total": 5,
        "active": 1,
        "silent": 1,
        "by_status": {"ACTIVE": 1, "COMPLETED": 3, "INITIALIZED": 1},
    }
    assert found["counts"]["agents"]["active"] == found["counts"]["agents"]["silent"] == 1
    assert found["stored_counts"]["active_tasks"] == 5
    records = found["records"]["json"]
    assert records.keys() == set(PLURALS.values())
    assert {kind: n for kind, n in records.items() if n} == {
        "tasks": 5,
        "agents": 27,
        "progress": 118,
        "findings": 55,
    }
    assert found["warnings"] == []
    assert not (workspace / ".registry").exists()


def test_the_server_registry(tmp_path, capsys):
    """Phases, reviews, verdicts, archived logs, both dialects; oddities are named."""
    found = status(capsys, samples.copy_of("server-2026-01", tmp_path))
    assert {kind: n for kind, n in found["records"]["json"].items() if n} == {
        "tasks": 4,
        "phases": 10,
        "agents": 29,
        "progress": 12,
        "findings": 4,
        "reviews": 6,
        "verdicts": 11,
        "handovers": 1,
    }
    assert found["counts"]["agents"]["active"] == 3
    assert found["stored_counts"]["active_agents"] == 12
    assert len(found["warnings"]) == 2
    assert any("TASK-20261122-065508-13e14874" in w for w in found["warnings"])
    assert any("ghost-agent" in w for w in found["warnings"])


def test_the_summary_for_people(tmp_path, capsys):
    """Without a command: the headline, the phase line, the silent agents."""
    workspace = samples.copy_of("recorded-2025-10", tmp_path)
    code, out, _ = run(capsys, "--workspace", workspace)
    assert code == 0
    assert "Nothing is running. 1 task is marked active but silent since 17 October 2025." in out
    assert "0 json ●──○ 1──○ 2" in out
    assert "jsonl_architecture_planner-215640-c3f469" in out


def test_failures_are_one_object_and_an_exit_code(tmp_path, capsys):
    """With --json a failure is an error object with code, message and next; usage exits 2."""
    code, out, _ = run(capsys, "status", "--json", "--workspace", tmp_path / "nowhere")
    assert code == 1
    assert set(json.loads(out)["error"]) == {"code", "message", "next"}
    code, out, _ = run(capsys, "statsu", "--json")
    assert (code, json.loads(out)["error"]["code"]) == (2, "usage")
    code, out, err = run(capsys, "status", "--workspace", tmp_path / "nowhere")
    assert (code, out) == (1, "")
    assert "next: " in err


def test_plugins_are_listed(capsys):
    """Each plugin with its distribution and stores."""
    _, out, _ = run(capsys, "plugins", "--json")
    found = {p["name"]: p for p in json.loads(out)["plugins"]}
    assert found["memory"]["stores"] == ["memory"]
    assert all(p["broken"] is None for p in found.values())


def test_a_cold_status_imports_no_database_and_no_terminal_library(tmp_path):
    """A status in a script must be fast: it imports neither SQLAlchemy nor Alembic."""
    code = (
        "import sys; from backends.admin.cli import main;"
        f"main(['status', '--json', '--workspace', {str(tmp_path)!r}]);"
        "print([m for m in ('sqlalchemy', 'alembic') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.splitlines()[-1] == "[]"
