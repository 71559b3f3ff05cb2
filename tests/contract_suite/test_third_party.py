"""Stores of other distributions: the LMDB example, and the one that ``plugins new`` writes."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from backends.admin.cli import main
from backends.admin.new_plugin import FILES
from tests import legacy

EXAMPLE = Path(__file__).parents[2] / "examples" / "registry-backend-lmdb"
# As its author would install it, but pip downloads nothing: the dependencies are here already.
PIP = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0"}


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """A virtual environment that also sees the packages of this one."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/*/site-packages")
    ours = sysconfig.get_path("purelib")
    (site / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    return python


def run(python, *arguments, cwd=None, **variables):
    """Run a command; return its exit code and output."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("REGISTRY_")} | PIP | variables
    done = subprocess.run(
        arguments, check=False, capture_output=True, text=True, timeout=280, env=env, cwd=cwd
    )
    return done.returncode, done.stdout + done.stderr


def test_the_example_reaches_full(python, tmp_path):
    """The installed example passes the contract tests at level full."""
    pytest.importorskip("lmdb", reason="lmdb is not installed")
    code, said = run(python, python, "-m", "pip", "install", EXAMPLE)
    assert code == 0, said
    code, said = run(python, python, "-m", "backends.admin", "contract", "lmdb", "--json")
    report = json.loads(said[said.index("{") :])
    assert (code, report["level"], report["failed"]) == (0, "full", [])
    (store,) = report["stores"]
    declared = ["durable", "movable", "move_target", "multi_process", "persistent"]
    assert store["capabilities"] == declared
    # It has no server and no leases of its own; nothing else is skipped.
    assert {s["test"].partition(".py")[0] for s in report["skipped"]} == {
        "test_server",
        "test_leases",
    }
    assert store["groups"]["engine"]["passed"] == 5


def test_a_new_plugin_passes_its_own_test(python, tmp_path, capsys):
    """``plugins new`` writes four files, and ``make test`` in them reaches level core."""
    folder = tmp_path / "registry-backend-trial"
    assert main(["plugins", "new", "trial", "--folder", str(folder), "--json"]) == 0
    written = json.loads(capsys.readouterr().out)["written"]
    assert len(written) == len(FILES) == len(list(folder.iterdir())) == 4
    assert not any("example" in Path(path).read_text().lower() for path in written)
    code, said = run(python, "make", "test", f"PYTHON={python}", cwd=folder)
    assert code == 0, said
    assert "level core" in said
    assert "cannot move from it" in " ".join(said.split())


@pytest.mark.parametrize(
    "name", ["", "Big", "1st", "a b", "../x", "sqlite", "example", "x" * 41, "auto", "dual2", "a_"]
)
def test_a_name_that_cannot_be_is_refused(name, tmp_path, capsys):
    """A name that is not valid is refused, and so is a folder that exists."""
    assert main(["plugins", "new", name, "--folder", str(tmp_path / "new")]) == 2
    assert not (tmp_path / "new").exists()
    assert main(["plugins", "new", "fine", "--folder", str(tmp_path)]) == 2
    assert list(tmp_path.iterdir()) == []
    assert "next:" in capsys.readouterr().err


def test_a_registry_moves_to_a_third_partys_store(python, tmp_path):
    """A registry moves from the legacy files to LMDB and back: phases 0 to 4 to 0."""
    pytest.importorskip("lmdb", reason="lmdb is not installed")
    code, said = run(python, python, "-m", "pip", "install", EXAMPLE)
    assert code == 0, said
    agents = [{"id": "a1", "type": "x", "status": "running", "progress": 40}]
    document = legacy.write_task(tmp_path, "TASK-1", agents=agents) / "AGENT_REGISTRY.json"
    before = json.loads(document.read_bytes())

    def admin(*arguments):
        command = [python, "-m", "backends.admin", *arguments, "--workspace", tmp_path, "--json"]
        code, said = run(python, *command, REGISTRY_TARGET="lmdb")
        assert code == 0, said
        return json.loads(said[said.index("{") :])

    for phase in "1234":
        admin("switch", phase)
    assert not document.exists()
    assert (tmp_path / ".registry" / "registry.lmdb").exists()
    assert not (tmp_path / ".registry" / "registry.sqlite3").exists()
    assert admin("status")["counts"]["agents"]["active"] == 1
    for phase in "3210":
        admin("switch", phase)
    assert json.loads(document.read_bytes()) == before
