"""A store that never answers: the run ends with a verdict, and the report is written after each
test.
"""

import json
import os
import subprocess
import sys

import pytest

from tests.registry_api.test_plugins import install

HANGING = """
import signal, time
from backends.memory import MemoryStore
from registry_api import hookimpl
import contract_tests.runner.bound
contract_tests.runner.bound._GRACE = 1.0

class Hanging(MemoryStore):
    def counts(self):
        {block}
        while True:
            time.sleep(10**6)

@hookimpl
def registry_register_stores(register):
    register("hanging", lambda context: Hanging(now=context.now))
"""
BLOCK = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])"


def contract(site, *tokens):
    return subprocess.run(
        [sys.executable, "-m", "backends.admin", "contract", "hanging", "--level", "core", *tokens],
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.parametrize("block", ["pass", BLOCK], ids=["in Python", "in an engine's code"])
def test_it_fails_in_time_and_the_run_gives_its_verdict(tmp_path, block):
    """If the test can be interrupted, the run continues; if not, the run stops there."""
    site = tmp_path / "site"
    site.mkdir()
    install(site, "hanging-store", HANGING.format(block=block))
    report = tmp_path / "report.json"
    first = ["--first"] if block == "pass" else []
    done = contract(site, "--json", "--bound", "1", "--report", str(report), *first)
    assert done.returncode == 3, done.stderr
    found = json.loads(done.stdout)
    assert found["level"] == "none"
    assert json.loads(report.read_text()) == found
    assert found["stores"][0]["groups"]["commit"]["passed"] > 0  # the tests before it
    said = found["failed"][-1]["error"]
    assert "did not end within 1 s" in said
    assert ("could not be ended" in said) == (block == BLOCK)
