"""A store with a server: it reaches level full, and the tests detect what only such a store has.

A server is killed, its answers are lost, it hangs, it evicts; a client guesses or leaks.
"""

import json
import os
import subprocess
import sys

import pytest

from tests.remote_kv import client, plugin, server

HARNESS = "tests.remote_kv.harness:RemoteKeyValue"
CRASH = "test_what_was_acknowledged_survives_a_crash_of_the_server"
CUT = "test_a_cut_connection_tells_whether_something_happened"
SCAN = "test_a_long_scan_is_whole"
DETECTED_BY = {
    "no-log": ("test_server", CRASH),
    "late-log": ("test_server", CRASH),
    "no-transaction": ("test_race", "test_readers_never_see_a_torn_state"),
    "evicts": ("test_engine", SCAN),
    "one-chunk": ("test_engine", SCAN),
    "unavailable": ("test_server", CUT),
    "patient": ("test_server", "test_a_server_that_hangs_is_given_up"),
    "keeps-open": ("test_server", "test_close_releases_every_connection"),
    "writes-when-opened": ("test_server", "test_a_look_writes_nothing_on_the_server"),
    "short-memory": ("test_idempotency", "test_an_id_is_known_as_long_as_its_line"),
}
RUN = """
import json, sys
from contract_tests.runner.report import check
name, harness, *soonest = sys.argv[1:]
found = check(name, harness=harness, first=bool(soonest), soonest=frozenset(soonest), seed=1,
              progress=lambda *_: None)
print("\\n" + json.dumps(found))
"""


def run(name, folder, *soonest):
    """Run the suite, the given tests first, until the first failure; return the report."""
    env = {**os.environ, "PYTHONPATH": plugin.install(folder / "plugin")}
    command = [sys.executable, "-c", RUN, name, HARNESS, *soonest]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=280, env=env, cwd=plugin.ROOT
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_the_correct_one_reaches_full(tmp_path):
    """Only leases are skipped: the harness declares the server, and the store everything else."""
    report = run("remotekv", tmp_path)
    assert (report["level"], report["failed"]) == ("full", [])
    assert {s["test"].partition(".py")[0] for s in report["skipped"]} == {"test_leases"}
    assert report["stores"][0]["groups"]["server"]["passed"] == 7


def test_every_fault_is_tried():
    """Each fault of server and client has its test."""
    assert set(DETECTED_BY) == {*server.FAULTS, *client.FAULTS}


@pytest.mark.parametrize("fault", DETECTED_BY)
def test_a_fault_is_detected(fault, tmp_path):
    """The suite fails on it in the test that is for it."""
    report = run(f"remotekv.{fault}", tmp_path, "::".join(DETECTED_BY[fault]))
    assert report["level"] == "none"
    assert f"::{DETECTED_BY[fault][1]}[" in report["failed"][0]["test"]
    assert report["failed"][0]["semantics"]
