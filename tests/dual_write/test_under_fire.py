"""The move under fire: kills at random moments, processes that stand still with a lock in hand."""

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
    """Three tasks of an older program, one agent each."""
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
    """Yield the whole feed behind a cursor."""
    while page := store.changes(after, limit=1000):
        yield from page
        after = page[-1].cursor


@pytest.mark.parametrize("seed", range(10))
def test_kills_lose_nothing(workspace, tmp_path, seed):
    """kill -9 of writers, switches and recover at random moments, fourteen rounds of it over all
    phases and the steps between, both ways, beside an older program that writes whenever it can:
    each next start recovers by itself; whatever was acknowledged is there, once, on both sides,
    and what the older program wrote after a cut-over is at least kept in conflicts/."""
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
        if n % 4 == 0:  # or on a slow host every writer is killed before it has written anything
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
    assert count  # how many depends on the host: 36 to 4,400 were seen
    assert missing == []
    _, missing = processes.lost(workspace, [older], where="both")
    kept = b"".join(p.read_bytes() for p in (workspace / ".registry").glob("conflicts/*.json"))
    assert [m for m in missing if f'"{m[2]}"'.encode() not in kept] == []


# Seconds that a caller may be held up by one that stands still: a lock of ours would hold it up for
# 5 s, what it waits at most, and a switch that did not free the turnstile for all of its 4 s.
LONGEST = 2.0


@contextmanager
def standing_still(workspace, where):
    """A process that was stopped while it commits to the first task; killed at the end."""
    process = processes.start(processes.stand_still, workspace, TASKS[0], where)
    try:
        processes.wait_until(lambda: processes.is_stopped(process.pid))
        yield process
    finally:
        process.kill()
        process.join()


def best_of_three(attempt):
    """Return each kind of call's wait in the best of three attempts, of fewer within the bound.

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
    """A process stopped (SIGSTOP) in the middle of its document, on any step: switch exits 5 at its
    deadline, nothing changed, no caller of another task is held up for as long; and
    when that process is gone, the switch is made."""
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
    """A process stopped (SIGSTOP) between BEGIN IMMEDIATE and COMMIT of SQLite: the others' writes
    stand, lagging, their reads fall back to JSON, none is held up for long, also when opening;
    and when that process goes on, or is killed, all is healed."""
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
