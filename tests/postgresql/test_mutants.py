"""The contract tests detect the mutants of a store in PostgreSQL, too."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from contract_tests.mutation import MUTANTS
from tests.proof import PROVING
from tests.remote_kv.plugin import ROOT

KILLS = json.loads((Path(ROOT) / "docs" / "kills.json").read_text())
CHECK = """
import json, sys
from contract_tests.mutation.report import recheck
found = recheck(sys.argv[1], sys.argv[2:], harness="tests.postgresql.harness:Mutant")
print("\\n" + json.dumps(found))
"""
# A few in each run of the tests; all of them in `make proof`.
SOME = ("lost-update", "findings-not-in-feed", "no-compare")


def rechecked(name):
    done = subprocess.run(
        [sys.executable, "-c", CHECK, name, *KILLS[name]["killed_by"]],
        check=True,
        capture_output=True,
        text=True,
        timeout=600,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.timeout(700)
@pytest.mark.parametrize("name", MUTANTS if PROVING else SOME)
def test_a_mutant_over_postgresql_is_killed(server, name):
    """The suite fails on a store in PostgreSQL with this fault."""
    report = rechecked(name)
    assert report["level"] == "none"
    assert report["failed"][0]["semantics"]
