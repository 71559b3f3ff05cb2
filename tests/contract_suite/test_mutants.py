"""The contract tests are tested: each store that is wrong in one way is found out."""

import json
import subprocess
import sys

import pytest

from contract_tests.mutants import MUTANTS


def contract(*arguments):
    """Run ``registry-backend contract --json``; return its exit code and report."""
    code = "import sys; from backends.admin.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "contract", *arguments, "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=240)
    return done.returncode, json.loads(done.stdout)


def test_there_are_enough():
    """As many as the faults that stores are known for."""
    assert len(MUTANTS) >= 24
    assert all(kind.__doc__ for kind in MUTANTS.values())


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_killed(name):
    """The suite says no, with the semantics line that the store breaks."""
    code, report = contract(f"mutant://{name}", "--first")
    assert (code, report["level"]) == (3, "none")
    assert report["failed"][0]["semantics"]
    assert report["failed"][0]["error"]


def test_the_control_is_not_killed():
    """The store that every mutant is made of passes, opened in the same way."""
    code, report = contract("mutant://correct")
    assert (code, report["level"], report["failed"]) == (0, "full", [])


@pytest.mark.parametrize("level", ["core", "full"])
def test_a_correct_store_reaches_its_level(level):
    """memory declares no capability but one: what it declares it keeps."""
    code, report = contract("memory", "--level", level, "--seed", "7")
    assert (code, report["level"], report["seed"]) == (0, level, 7)
    assert report["failed"] == []
    (store,) = report["stores"]
    assert store["capabilities"] == ["move_target"]
    assert sum(g["passed"] for g in store["groups"].values()) > 100
    assert all("does not declare" in s["reason"] for s in report["skipped"])


def test_an_unknown_store_is_named():
    """An error with what there is."""
    code, report = contract("no-such-store")
    assert code == 1
    assert report["error"]["code"] == "unknown_backend"
