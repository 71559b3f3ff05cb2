"""A cluster that Patroni keeps available: the example, its leader killed under writers."""

import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from contract_tests import build
from registry_api import (
    Kind,
    Put,
    RecordQuery,
    all_records,
    load_settings,
    new_changeset,
    open_store,
)
from registry_api.errors import Busy, OutcomeUnknown, Unavailable
from tests.proof import PROVING

CLUSTER = Path(__file__).parents[2] / "examples" / "ha" / "cluster.py"

pytestmark = [
    pytest.mark.skipif(not PROVING, reason="make proof"),
    pytest.mark.skipif(
        not all(map(shutil.which, ("etcd", "patroni"))), reason="no etcd-server or no patroni"
    ),
    pytest.mark.skipif(os.geteuid() == 0, reason="PostgreSQL does not run as root"),
    pytest.mark.timeout(900),
]


def cluster(command, folder):
    """Run a command of the example; return what it prints."""
    done = subprocess.run(
        [sys.executable, CLUSTER, command, folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def wait_until(happened):
    """Wait until writers have done something."""
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline, "writers do not go on"
        time.sleep(0.1)


def test_a_killed_leader_loses_nothing(tmp_path):
    """Each acknowledged write is there once after two leaders were killed; writers go on with the
    next leader, which they find by the URL."""
    folder, told, stop = tmp_path / "cluster", [], threading.Event()
    try:
        cluster("start", folder)
        url = cluster("url", folder)

        def write(n):
            workspace = tmp_path / f"host{n}"
            workspace.mkdir()
            with closing(open_store(load_settings(workspace, env={}, backend=url))) as store:
                build.make(store, f"t{n}", build.agent(f"t{n}"))
                while not stop.is_set():
                    finding = build.finding(f"t{n}")
                    change = new_changeset(f"t{n}", [Put(finding)], expected=None)
                    while not stop.is_set():
                        try:
                            store.commit(change)
                        except (Unavailable, OutcomeUnknown, Busy):
                            time.sleep(0.1)
                        else:
                            told.append((f"t{n}", finding.finding_id))
                            break

        writers = [threading.Thread(target=write, args=(n,)) for n in range(4)]
        for writer in writers:
            writer.start()
        wait_until(lambda: len({task for task, _ in told}) == len(writers))
        for _ in range(2):
            before = len(told)
            assert "leads after" in cluster("kill-leader", folder)
            wait_until(lambda at=before: len(told) > at + 100)
            cluster("restart", folder)
        stop.set()
        for writer in writers:
            writer.join()
        with closing(open_store(load_settings(tmp_path, env={}, backend=url))) as store:
            found = [
                (r.task_id, r.finding_id) for r in all_records(store, Kind.FINDING, RecordQuery())
            ]
        assert set(told) <= set(found)
        assert len(found) == len(set(found))
    finally:
        stop.set()
        cluster("stop", folder)
