"""The move under load: kills at random moments, and processes that stop with a lock held."""

import json
import os
import random
import signal
import time
from collections import Counter
from contextlib import closing, contextmanager
from functools import partial

import pytest

from registry_api import load_settings, open_migration, open_store
from registry_api.migration import MigrationPhase
from tests import legacy, processes
from tests.dual_write.unwrap import dual

TASKS = [f"TASK-{n}" for n in range(3)]


@pytest.fixture
def workspace(tmp_path):
    """Three tasks of a legacy program, one agent each."""
    root = tmp_path / "workspace"
    for task in TASKS:
        agents = [{"id": "a1", "type": "x", "status": "running", "progress": 1}]
        legacy.write_task(root, task, agents=agents)
    return root


ENV = {"REGISTRY_RETIRE_SECONDS": "0.2"}


def opened(workspace):
    return open_store(load_settings(workspace, env=ENV))


def moved(workspace):
    return closing(open_migration(load_settings(workspace, env=ENV)))


def switch(workspace, phase):
    with moved(workspace) as migration:
        return migration.switch(MigrationPhase(phase), actor="test")


def has_lines(path):
    return path.exists() and path.stat().st_size > 0


def feed_of(store, after=None):
    """Yield the whole feed after a cursor."""
    while page := store.changes(after, limit=1000):
        yield from page
        after = page[-1].cursor


@pytest.mark.parametrize("seed", range(10))
def test_kills_lose_nothing(workspace, tmp_path, seed):
    """Writers, switches and recover are killed (kill -9) at random moments, in fourteen rounds over
    all phases and both directions, while a legacy program writes. Each next start recovers by
    itself, every acknowledged write is in both stores once, and each late write of the legacy
    program is at least kept in conflicts/."""
    rng = random.Random(seed)
    stop, older, acks = processes.event(), tmp_path / "legacy", []
    theirs = processes.start(processes.edit, workspace, older, f"legacy{seed}", TASKS, stop)
    kills, phase = 0, 0
    for n in range(14):
        started = []
        for w in range(2):
            name = f"w{seed}-{n}-{w}"
            acks.append(tmp_path / name)
            started.append(processes.start(processes.write, workspace, acks[-1], name, TASKS))
        to = rng.choice([p for p in range(5) if p != phase])
        tokens = ("switch", to, "--anyway", "--reason", "a test", "--workspace", workspace)
        started.append(processes.start(partial(processes.command, env=ENV), *tokens))
        if n % 3 == 2:
            tokens = ("recover", "--workspace", workspace)
            started.append(processes.start(partial(processes.command, env=ENV), *tokens))
        rng.shuffle(started)
        if n % 4 == 0:  # otherwise a slow host kills every writer before it has written
            writing = acks[-2:]
            processes.wait_until(lambda paths=writing: any(map(has_lines, paths)))
        for process in started:
            time.sleep(rng.uniform(0, 0.4))  # the random moment
            process.kill()
        for process in started:
            process.join()
            kills += process.exitcode == -signal.SIGKILL
        with closing(opened(workspace)) as store:
            store.counts()
            assert all(store.load(task).revision for task in TASKS)
            phase = dual(store).record().phase
    stop.set()
    theirs.join()
    assert theirs.exitcode == 0
    assert kills >= 30
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
    count, missing = processes.lost(workspace, acks, where="both")
    assert count  # the number depends on the host: 36 to 4,400 were seen
    assert missing == []
    _, missing = processes.lost(workspace, [older], where="both")
    kept = b"".join(p.read_bytes() for p in (workspace / ".registry").glob("conflicts/*.json"))
    assert [m for m in missing if f'"{m[2]}"'.encode() not in kept] == []


# Seconds that a stopped process may hold up a caller. A lock of ours would hold it up for 5 s, the
# longest wait of a caller, and a switch that did not free the turnstile for all of its 4 s.
LONGEST = 2.0


@contextmanager
def standing_still(workspace, where):
    """Run a process that was stopped during its commit to the first task; kill it at the end."""
    process = processes.start(processes.stand_still, workspace, TASKS[0], where)
    try:
        processes.wait_until(lambda: processes.is_stopped(process.pid))
        yield process
    finally:
        process.kill()
        process.join()


def best_of_three(attempt):
    """Return each kind of call's shortest wait of three attempts, or of fewer once all are within
    the bound.

    A busy machine holds up a call now and then, a lock of ours every time.
    """
    found = attempt()
    for _ in range(2):
        if max(found.values()) > LONGEST:
            again = attempt()
            found = {name: min(seconds, again[name]) for name, seconds in found.items()}
    return found


@pytest.mark.parametrize(("phase", "to"), [(0, 1), (1, 2), (2, 1), (1, 0)])
def test_a_writer_stopped_with_its_document_locked(workspace, tmp_path, phase, to):
    """While a process is stopped (SIGSTOP) with its document locked, a switch exits 5 at its
    deadline and changes nothing, and no caller of another task waits as long; once that process is
    gone, the switch succeeds."""
    switch(workspace, phase)
    opened(workspace).close()
    record = workspace / ".registry" / "phase.json"
    before = record.read_bytes()
    out = tmp_path / "out"
    tokens = ("switch", to, "--json", "--timeout", 4, "--workspace", workspace)

    def attempt():
        with (
            standing_still(workspace, "document"),
            processes.Callers(workspace, TASKS[1:]) as callers,
        ):
            start = time.monotonic()
            moving = processes.start(partial(processes.command, out=out), *tokens)
            moving.join()
            took = time.monotonic() - start
            found = callers.longest()
        assert (moving.exitcode, json.loads(out.read_text())["error"]["code"]) == (
            5,
            "switch_timed_out",
        )
        assert took >= 4
        assert record.read_bytes() == before
        assert not (workspace / ".registry" / "switch.json").exists()
        return found

    waits = best_of_three(attempt)
    assert max(waits.values()) <= LONGEST, waits
    switch(workspace, to)
    with moved(workspace) as migration:
        assert migration.verify().mismatches == ()


@pytest.mark.parametrize("end", [signal.SIGCONT, signal.SIGKILL])
@pytest.mark.parametrize("phase", [1, 2])
def test_a_writer_stopped_inside_the_targets_transaction(workspace, phase, end):
    """While a process is stopped (SIGSTOP) between BEGIN IMMEDIATE and COMMIT of SQLite, other
    writes succeed with the target behind, reads fall back to JSON, and no call or open waits long;
    once that process goes on or is killed, the target catches up."""
    switch(workspace, phase)
    followed = []

    def attempt():
        with standing_still(workspace, "target") as still:
            with processes.Watch() as watch:
                opened(workspace).close()
            found = {"open": watch.seconds}
            with processes.Callers(workspace, TASKS) as callers:
                time.sleep(1.0)  # how long it is called
                found |= callers.longest()
            followed.extend(callers.followed)
            os.kill(still.pid, end)
            still.join()
        return found

    waits = best_of_three(attempt)
    assert max(waits.values()) <= LONGEST, waits
    assert all(f.get("lagging") for f in followed)
    assert all(f.get("fallbacks") for f in followed) or phase == 1
    with closing(opened(workspace)) as store:
        written = store.counts().records
        assert [a for t in TASKS for a in store.load(t).agents if a.agent_id.startswith("still")]
    with moved(workspace) as migration:
        assert migration.status().dirty == 0
        assert migration.verify().mismatches == ()
        records = migration.status().records
    assert records["json"] == records["sqlite"] == written
