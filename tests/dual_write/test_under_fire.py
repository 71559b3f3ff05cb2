"""The move under fire: kills at random moments, processes that stand still with a lock in hand."""

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing

import pytest

from registry_api import load_settings, open_migration, open_store
from registry_api.migration import MigrationPhase
from tests import legacy, processes

TASKS = [f"TASK-{n}" for n in range(3)]


@pytest.fixture
def workspace(tmp_path):
    """Three tasks of an older program, one agent each."""
    root = tmp_path / "workspace"
    for task in TASKS:
        agents = [{"id": "a1", "type": "x", "status": "running", "progress": 1}]
        legacy.write_task(root, task, agents=agents)
    return root


def opened(workspace):
    return open_store(load_settings(workspace, env={}))


def moved(workspace):
    return closing(open_migration(load_settings(workspace, env={})))


def switch(workspace, phase):
    with moved(workspace) as migration:
        return migration.switch(MigrationPhase(phase), actor="test")


def feed_of(store, after=None):
    """Yield the whole feed behind a cursor."""
    while page := store.changes(after, limit=1000):
        yield from page
        after = page[-1].cursor


def lost(workspace, acks, both):
    """Return the acknowledged writes that plain json, and sqlite3 too, do not find."""
    program = [sys.executable, "-m", "backends.admin.demo.check", str(workspace), both]
    done = subprocess.run([*program, *map(str, acks)], check=True, stdout=subprocess.PIPE)
    found = json.loads(done.stdout)
    return len(found), [entry for entry in found if not entry[-1]]


@pytest.mark.parametrize("seed", range(10))
def test_kills_lose_nothing(workspace, tmp_path, seed):
    """kill -9 of writers and of switches at random moments, ten rounds of it over phases 0 to 2 and
    the steps between, beside an older program: each next start recovers by itself, and whatever was
    acknowledged, ours or the older program's, is there, once, on both sides."""
    rng = random.Random(seed)
    stop, acks = processes.event(), [tmp_path / "legacy"]
    theirs = processes.start(processes.edit, workspace, acks[0], f"legacy{seed}", TASKS, stop)
    kills, phase = 0, 0
    for n in range(10):
        started = []
        for w in range(2):
            name = f"w{seed}-{n}-{w}"
            acks.append(tmp_path / name)
            started.append(processes.start(processes.write, workspace, acks[-1], name, TASKS))
        to = rng.choice([p for p in (0, 1, 2) if p != phase])
        tokens = ("switch", str(to), "--workspace", workspace)
        started.append(processes.start(processes.command, *tokens))
        rng.shuffle(started)
        for process in started:
            time.sleep(rng.uniform(0, 0.3))  # the random moment
            process.kill()
        for process in started:
            process.join()
            kills += process.exitcode == -signal.SIGKILL
        with closing(opened(workspace)) as store:
            store.counts()
            assert all(store.load(task).revision for task in TASKS)
            phase = store.inner.record().phase
    stop.set()
    theirs.join()
    assert theirs.exitcode == 0
    assert kills >= 20
    switch(workspace, 2)
    with moved(workspace) as migration:
        assert migration.verify().mismatches == ()
    with closing(opened(workspace)) as store:
        revisions = Counter()
        ids = Counter()
        for change in feed_of(store):
            revisions[change.changeset.task_id] += 1
            assert change.revision == revisions[change.changeset.task_id]
            ids[change.changeset.id] += 1
        assert set(ids.values()) == {1}
    acks = [path for path in acks if path.exists()]
    count, missing = lost(workspace, acks, "both")
    assert count > 100
    assert missing == []
    assert list((workspace / ".registry").glob("conflicts/*")) == []
