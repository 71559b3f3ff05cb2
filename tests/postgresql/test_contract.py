"""The contract on a real server: the store itself, and moves to it and from it."""

import json
import os
import subprocess
import sys

import pytest

from tests.remote_kv.plugin import ROOT

CHECK = """
import json, sys
from contract_tests.runner.report import check
found = check("postgresql", harness=sys.argv[1], seed=1, progress=lambda *_: None)
print("\\n" + json.dumps(found))
"""


def run(*command):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *command],
        check=False,
        capture_output=True,
        text=True,
        timeout=1000,
        env=env,
        cwd=ROOT,
    )


@pytest.mark.timeout(1100)
def test_postgresql_reaches_full(server):
    """Only what needs a key-value engine is skipped, and on a server that is not ours its crash."""
    done = run("-c", CHECK, "tests.postgresql.harness:PostgreSQL")
    report = json.loads(done.stdout.splitlines()[-1])
    assert (report["level"], report["failed"]) == ("full", [])
    reasons = {s["reason"] for s in report["skipped"]}
    away = {"Skipped: postgresql does not declare a server: Harness.crash_server"}
    assert reasons - away == {"Skipped: postgresql does not declare an engine"}
    declared = [
        "durable",
        "leases",
        "movable",
        "move_target",
        "multi_host",
        "multi_process",
        "persistent",
    ]
    assert report["stores"][0]["capabilities"] == declared


@pytest.mark.timeout(1100)
@pytest.mark.parametrize(
    "move",
    ["dual1:sqlite+postgresql", "dual2:json+postgresql", "dual3:postgresql+sqlite"],
)
def test_a_move_keeps_the_contract(server, move, tmp_path):
    """The stores of a move, in some phases, on the parts of the suite that a move could break."""
    done = run(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"),
        *("contract_tests", "--registry-backend", move, f"--basetemp={tmp_path / 'tests'}"),
        *("--registry-harness", "tests.postgresql.harness:Pair", "-x"),
        *("-k", "test_commit or test_feed or test_idempotency or test_counts or test_process"),
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
