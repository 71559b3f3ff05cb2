"""The contract over a move between two stores of which none is json, in each phase."""

import subprocess
import sys
from pathlib import Path

import pytest

from backends.admin.cli import main
from tests import lmdb_plugin

ROOT = Path(__file__).parents[2]
GROUPS = ("commit", "feed", "idempotency", "counts", "process", "crash")
NAMES = ["dual1:sqlite+lmdb", "dual2:sqlite+lmdb", "dual3:sqlite+lmdb", "dual4:lmdb+sqlite"]


@pytest.mark.timeout(1200)  # four stores, in one process
def test_a_pair_keeps_the_contract_in_every_phase(tmp_path, monkeypatch):
    """sqlite -> lmdb keeps the contract in phases 1, 2 and 3, lmdb -> sqlite in phase 4."""
    pytest.importorskip("lmdb", reason="lmdb is not installed")
    lmdb_plugin.install(tmp_path, monkeypatch)
    modules = [str(ROOT / "contract_tests" / f"test_{group}.py") for group in GROUPS]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *modules]
    done = subprocess.run(
        [*command, f"--registry-backend={','.join(NAMES)}"],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("tokens", [("sqlite", "--pair", "a,b"), ("dual", "--pair", "sqlite")])
def test_a_pair_that_is_none(tokens, capsys):
    """--pair without dual, or with one store: a usage error that says what to write."""
    assert main(["contract", *tokens]) == 2
    assert "--pair" in capsys.readouterr().err
