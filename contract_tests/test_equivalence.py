"""The feed and the store agree: replaying the feed into the reference rebuilds every record."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path

from contract_tests import build
from contract_tests.faults.race_amplifier import amplified_races
from contract_tests.harness import Harness
from contract_tests.test_counts import assert_true
from contract_tests.test_crash import all_changes
from registry_api import (
    AgentStatus,
    Delete,
    Kind,
    MoveTarget,
    Op,
    PhaseStatus,
    Put,
    RecordQuery,
    RegistryStore,
    TaskSnapshot,
    all_records,
    errors,
    find_capability,
    new_changeset,
    transact,
)

_TASKS = ("t1", "t2")
_WORKERS, _STEPS = 3, 40


def test_the_feed_rebuilds_the_store(
    harness: Harness, tmp_path: Path, chance: Callable[[int], random.Random]
) -> None:
    """Semantics 1 and 6: after concurrent writes by threads, replaying the feed gives the same
    revisions, records, histories and counts as the store.
    """
    store = harness.open()
    for task in _TASKS:
        build.make(store, task, build.agent(task, "a0"))
    failures = list[BaseException]()

    def work(worker: int) -> None:
        try:
            mine = chance(worker)
            for _ in range(_STEPS):
                _step(store, mine)
        except BaseException as error:  # noqa: BLE001  (whatever it raises is reported)
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(_WORKERS)]
    with amplified_races():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
    with Harness("memory", tmp_path / "reference") as other:
        reference = other.open()
        target = find_capability(reference, MoveTarget)
        assert target is not None
        for change in all_changes(store):
            target.apply(change)
        _assert_equal(store, reference)
    assert_true(store)


def _step(store: RegistryStore, chance: random.Random) -> None:
    """Make a random change that is valid, or one that is refused and must change nothing."""
    task = chance.choice(_TASKS)
    what = chance.random()
    if what < 0.5:
        report = build.report(task, f"a{chance.randrange(4)}", progress=chance.randrange(100))
        more = [Put(build.finding(task))] if what < 0.2 else []
        store.commit(new_changeset(task, [Put(report), *more], expected=None))
    elif what < 0.6:
        twice = build.report(task)
        changeset = new_changeset(task, [Put(twice), Put(twice)], expected=None)
        try:
            store.commit(changeset)
        except errors.RecordExists:
            return
        raise AssertionError("one id was accepted twice")
    else:
        transact(store, task, lambda snapshot: _change(snapshot, chance), attempts=1000)


def _change(snapshot: TaskSnapshot, chance: random.Random) -> list[Op]:
    task, number = snapshot.task.task_id, chance.randrange(4)
    status = chance.choice(list(AgentStatus))
    if chance.random() < 0.3 and len(snapshot.agents) > 1:
        return [Delete(Kind.AGENT, chance.choice(snapshot.agents).agent_id)]
    return [
        Put(build.agent(task, f"a{number}", status=status, progress=chance.randrange(100))),
        Put(build.phase(task, number, status=chance.choice(list(PhaseStatus)))),
    ]


def _assert_equal(store: RegistryStore, reference: RegistryStore) -> None:
    assert store.list_tasks() == reference.list_tasks()
    for task in _TASKS:
        assert store.load(task) == reference.load(task)
        assert store.changes(task_id=task, limit=1000) == reference.changes(
            task_id=task, limit=1000
        )
    for kind in set(Kind) - {Kind.TASK}:
        found = [list(all_records(s, kind, RecordQuery())) for s in (store, reference)]
        assert found[0] == found[1]
    assert store.counts() == reference.counts()
