"""Stores of other distributions: the example, and the one that ``plugins new`` writes."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from backends.admin.cli import main
from backends.admin.new_plugin import FILES

EXAMPLE = Path(__file__).parents[2] / "examples" / "registry-backend-lmdb"
# As its author would, but for what is here already: nothing is fetched.
PIP = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0"}


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """An environment of its own, that sees what this one has installed."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/*/site-packages")
    ours = sysconfig.get_path("purelib")
    (site / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    return python


def run(python, *arguments, cwd=None):
    """Run a command there; return its exit code and what it said."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("REGISTRY_")} | PIP
    done = subprocess.run(
        arguments, check=False, capture_output=True, text=True, timeout=280, env=env, cwd=cwd
    )
    return done.returncode, done.stdout + done.stderr


def test_the_example_reaches_full(python, tmp_path):
    """Installed and named, nothing else: a key-value engine keeps the whole contract."""
    pytest.importorskip("lmdb", reason="lmdb is not installed")
    code, said = run(python, python, "-m", "pip", "install", EXAMPLE)
    assert code == 0, said
    code, said = run(python, python, "-m", "backends.admin", "contract", "lmdb", "--json")
    report = json.loads(said[said.index("{") :])
    assert (code, report["level"], report["failed"]) == (0, "full", [])
    (store,) = report["stores"]
    assert store["capabilities"] == ["durable", "move_target", "multi_process", "persistent"]
    assert [s for s in report["skipped"] if s["store"] == "lmdb"] == []


def test_a_new_plugin_passes_its_own_test(python, tmp_path, capsys):
    """Four files; ``make test`` in them says level core."""
    folder = tmp_path / "registry-backend-trial"
    assert main(["plugins", "new", "trial", "--folder", str(folder), "--json"]) == 0
    written = json.loads(capsys.readouterr().out)["written"]
    assert len(written) == len(FILES) == len(list(folder.iterdir())) == 4
    assert not any("example" in Path(path).read_text().lower() for path in written)
    code, said = run(python, "make", "test", f"PYTHON={python}", cwd=folder)
    assert code == 0, said
    assert "level core" in said


@pytest.mark.parametrize("name", ["", "Big", "1st", "a b", "../x", "sqlite", "example", "x" * 41])
def test_a_name_that_cannot_be_is_refused(name, tmp_path, capsys):
    """And a folder that is there is left alone."""
    assert main(["plugins", "new", name, "--folder", str(tmp_path / "new")]) == 2
    assert not (tmp_path / "new").exists()
    assert main(["plugins", "new", "fine", "--folder", str(tmp_path)]) == 2
    assert list(tmp_path.iterdir()) == []
    assert "next:" in capsys.readouterr().err
