"""The primary is killed under its writers, and its synchronous standby takes over."""

import sys
import time
import uuid
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from contract_tests import build
from registry_api import Put, commit_with_retry, load_settings, new_changeset, open_store
from tests import processes
from tests.dual_write.test_chain import feed_of
from tests.postgresql.server import standby
from tests.proof import PROVING

WRITERS = 8
TASKS = [f"t{n}" for n in range(4)]
PATIENCE = 120.0  # seconds for a writer to find the new primary


def opened(workspace, url):
    return open_store(load_settings(workspace, env={}, backend=url, logs="off"), gated=False)


def write(workspace, url, acks, task):
    """Report until killed; each changeset is sent until it is answered, then acknowledged."""
    with Path(acks).open("a", buffering=1) as out, closing(opened(workspace, url)) as store:
        while True:
            changeset = new_changeset(task, [Put(build.report(task))], expected=None)
            commit_with_retry(store, changeset, deadline=time.monotonic() + PATIENCE)
            out.write(f"{changeset.id} {time.monotonic()}\n")


def acknowledged(acks):
    """Return the ids and times of whole lines."""
    lines = [line.split() for path in acks for line in path.read_text().splitlines()]
    return [(uuid.UUID(line[0]), float(line[1])) for line in lines if len(line) == 2]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("attempt", range(20 if PROVING else 1))
def test_a_failover_loses_nothing(own_server, tmp_path, attempt):
    """After kill -9 of the primary and the promotion of its standby, every writer goes on by
    itself; each acknowledged commit is in the feed once, and each task's revisions have no gap.
    """
    primary = own_server()
    folder = tmp_path / "standby"
    folder.mkdir()
    with closing(standby(primary, folder)) as copy:
        first, second = primary.url("postgres"), copy.url("postgres")
        both = first.replace(f":{primary.port}/", f":{primary.port},127.0.0.1:{copy.port}/")
        workspace = tmp_path / "workspace"
        workspace.mkdir()
        with closing(opened(workspace, both)) as store:
            for task in TASKS:
                build.make(store, task, build.agent(task))
        acks = [tmp_path / f"acks{n}" for n in range(WRITERS)]
        for path in acks:
            path.touch()
        started = [
            processes.start(write, workspace, both, path, TASKS[n % len(TASKS)])
            for n, path in enumerate(acks)
        ]
        try:
            # Each of them: one that has not opened its store yet finds no primary to open it on.
            processes.wait_until(
                lambda: min(len(acknowledged([path])) for path in acks) > 20, timeout=120
            )
            primary.kill()
            killed = time.monotonic()
            copy.promote()
            found = {}
            while len(found) < WRITERS:
                assert time.monotonic() < killed + PATIENCE
                assert [p.exitcode for p in started] == [None] * WRITERS
                for path in acks:
                    later = [t for _, t in acknowledged([path]) if t > killed + 0.05]
                    if later:
                        found.setdefault(path, later[0] - killed)
                time.sleep(0.02)
            time.sleep(0.5)
        finally:
            for process in started:
                process.kill()
                process.join()
        sys.stderr.write(f"writers went on {max(found.values()):.2f} s after the kill\n")
        with closing(opened(workspace, second)) as store:
            feed = list(feed_of(store))
            count = Counter(c.changeset.id for c in feed)
            assert {i for i, _ in acknowledged(acks)} - set(count) == set()
            assert max(count.values()) == 1
            for task in TASKS:
                mine = [c.revision for c in feed if c.changeset.task_id == task]
                assert mine == list(range(1, len(mine) + 1))
            assert store.counts().records["progress"] == len(feed) - len(TASKS)
