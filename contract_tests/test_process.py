"""Semantics 9: several stores and several processes on one registry."""

from __future__ import annotations

import os

import pytest

from contract_tests import build
from contract_tests.harness import Harness
from contract_tests.test_counts import assert_true
from contract_tests.test_race import ROUNDS, WORKERS
from registry_api import Capability, Kind


@pytest.mark.needs(Capability.PERSISTENT)
def test_another_store_sees_every_write(harness: Harness) -> None:
    """Semantics 9: what one store commits, another store on the same registry reads at its next
    call.
    """
    mine, theirs = harness.open(), harness.open()
    build.make(mine, "t", build.agent("t"))
    for n in range(1, 6):
        assert theirs.load("t") == mine.load("t")
        assert theirs.head("t") == mine.head("t")
        assert theirs.counts() == mine.counts()
        assert theirs.list_tasks() == mine.list_tasks()
        agents = [s.list_records(Kind.AGENT).items for s in (mine, theirs)]
        assert agents[0] == agents[1]
        writer = (mine, theirs)[n % 2]
        build.put(writer, build.agent("t", progress=n), expected=n)


@pytest.mark.needs(Capability.MULTI_PROCESS)
def test_processes_lose_no_update(harness: Harness) -> None:
    """Semantics 5 and 9: concurrent read-modify-write by processes, each with its own store, loses
    no update.
    """
    store = harness.open()
    build.make(store, "t", build.agent("t"))
    processes = [
        harness.spawn("contract_tests.runner.worker", "bump", "t", str(ROUNDS))
        for _ in range(WORKERS)
    ]
    assert [p.communicate(timeout=120) and p.returncode for p in processes] == [0] * WORKERS
    assert store.load("t").agents[0].progress == WORKERS * ROUNDS
    assert [c.revision for c in store.changes(limit=1000)] == list(range(1, WORKERS * ROUNDS + 2))
    assert_true(store)


@pytest.mark.needs(Capability.MULTI_PROCESS)
def test_a_fork_loses_nothing(harness: Harness) -> None:
    """Semantics 9 and 10: after a fork parent and child both continue to use the store, also after
    the other one has closed it, and no acknowledged commit is lost.
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
