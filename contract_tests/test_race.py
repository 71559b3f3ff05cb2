"""Semantics 5 and 9: many threads on one store, many processes on one registry."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from contract_tests import build
from contract_tests.harness import Harness
from contract_tests.test_counts import assert_true
from registry_api import (
    Agent,
    Capability,
    Change,
    FeedCursor,
    Op,
    Put,
    RegistryStore,
    TaskSnapshot,
    errors,
    transact,
)

WORKERS, ROUNDS = 4, 25


def bump(snapshot: TaskSnapshot) -> list[Op]:
    """Add one to the counting agent's progress."""
    agent = snapshot.agents[0]
    return [Put(build.agent(agent.task_id, agent.agent_id, progress=agent.progress + 1))]


def test_threads_lose_no_update(harness: Harness) -> None:
    """Semantics 5 and 9: read-modify-write by threads of one store counts every step."""
    store = harness.open()
    build.make(store, "t", build.agent("t"))
    failures = list[BaseException]()

    def work() -> None:
        try:
            for _ in range(ROUNDS):
                transact(store, "t", bump, attempts=1000)
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    snapshot = store.load("t")
    assert isinstance(snapshot.agents[0], Agent)
    assert snapshot.agents[0].progress == WORKERS * ROUNDS
    assert snapshot.revision == WORKERS * ROUNDS + 1


def test_readers_never_see_a_torn_state(harness: Harness) -> None:
    """Semantics 1: two records always written together are never seen apart."""
    store = harness.open()
    build.make(store, "t", build.agent("t", "a"), build.agent("t", "b"))
    done = threading.Event()
    torn = list[tuple[int, int]]()

    def read() -> None:
        while not done.is_set():
            a, b = store.load("t").agents
            if a.progress != b.progress:
                torn.append((a.progress, b.progress))

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(1, 60):
        pair = [build.agent("t", x, progress=n) for x in ("a", "b")]
        build.put(store, *pair, expected=n)
    done.set()
    reader.join()
    assert torn == []


@pytest.mark.needs(Capability.MULTI_PROCESS)
def test_processes_lose_no_update(harness: Harness) -> None:
    """Semantics 5 and 9: the same by processes, each with a store of its own."""
    store = harness.open()
    build.make(store, "t", build.agent("t"))
    processes = [
        harness.spawn("contract_tests.worker", "bump", "t", str(ROUNDS)) for _ in range(WORKERS)
    ]
    assert [p.communicate(timeout=120) and p.returncode for p in processes] == [0] * WORKERS
    assert store.load("t").agents[0].progress == WORKERS * ROUNDS
    assert [c.revision for c in _feed(store)] == list(range(1, WORKERS * ROUNDS + 2))
    assert_true(store)


@pytest.mark.needs(Capability.PERSISTENT)
def test_what_was_acknowledged_survives_a_kill(harness: Harness) -> None:
    """Semantics 10: after kill -9 every commit that returned is there, and the store works on."""
    store = harness.open()
    build.make(store, "t", build.agent("t"))
    for n in range(3):
        process = harness.spawn("contract_tests.worker", "report", "t", f"k{n}")
        assert process.stdout is not None
        acked = [process.stdout.readline().strip() for _ in range(20)]
        process.kill()
        acked += process.communicate()[0].split()
        known = {c.changeset.id.hex for c in _feed(store)}
        # The last line may be cut by the kill: only whole ids were acknowledged.
        assert {a for a in acked if len(a) == 32} <= known
    build.put(store, build.finding("t"), expected=None)
    assert_true(store)
    revisions = [c.revision for c in _feed(store)]
    assert revisions == list(range(1, len(revisions) + 1))


def _feed(store: RegistryStore) -> Iterator[Change]:
    after: FeedCursor | None = None
    while page := store.changes(after, limit=1000):
        yield from page
        after = page[-1].cursor


@pytest.mark.needs(Capability.MULTI_PROCESS)
def test_a_fork_loses_nothing(harness: Harness) -> None:
    """Semantics 9 and 10: parent and child of a fork go on with the store they share, whoever
    closes first; what each was told stands.
    """
    store = harness.open()
    build.make(store, "t", build.agent("t"))
    build.put(store, build.report("t"), expected=None)
    first, closed = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            build.put(store, build.finding("t"), expected=None)
            os.write(first[1], b"x")
            os.read(closed[0], 1)
            for _ in range(10):
                build.put(store, build.finding("t"), expected=None)
            code = 0
        finally:
            os._exit(code)
    os.read(first[0], 1)
    build.put(store, build.report("t"), expected=None)
    store.close()
    os.write(closed[1], b"x")
    assert os.waitpid(pid, 0)[1] == 0
    again = harness.open()
    assert again.head("t").revision == 14
    assert len(again.changes(limit=100)) == 14
    assert_true(again)


def test_a_closed_store_says_so(harness: Harness) -> None:
    """After close every call is StoreClosed, and closing again is fine."""
    store = harness.open()
    build.make(store, "t")
    store.close()
    store.close()
    for call in (store.counts, store.list_tasks, store.changes, lambda: store.load("t")):
        with pytest.raises(errors.StoreClosed):
            call()
