"""Semantics 5 and 9: many threads on one store, many processes on one registry."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from contract_tests import build
from contract_tests.faults.race_amplifier import amplified_races
from contract_tests.harness import Harness
from registry_api import Agent, Kind, Op, Put, RecordQuery, TaskSnapshot, errors, transact

WORKERS, ROUNDS = 4, 25

T = TypeVar("T")


def bump(snapshot: TaskSnapshot) -> list[Op]:
    """Return the op that adds one to the progress of the first agent."""
    agent = snapshot.agents[0]
    return [Put(build.agent(agent.task_id, agent.agent_id, progress=agent.progress + 1))]


def at_once(call: Callable[[], T], threads: int = 4) -> list[T]:
    """Run a call in several threads that start together; return their answers, in any order.

    Raises the first error that one of them raised.
    """
    start = threading.Barrier(threads)

    def wait_and_call() -> T:
        start.wait()
        return call()

    with amplified_races(), ThreadPoolExecutor(threads) as pool:
        answers = [pool.submit(wait_and_call) for _ in range(threads)]
        return [answer.result() for answer in answers]


def test_threads_lose_no_update(harness: Harness) -> None:
    """Semantics 5 and 9: concurrent read-modify-write by threads of one store loses no update."""
    store = harness.open()
    build.make(store, "t", build.agent("t"))
    failures = list[BaseException]()

    def work() -> None:
        try:
            for _ in range(ROUNDS):
                transact(store, "t", bump, attempts=1000)
        except BaseException as error:  # noqa: BLE001  (whatever it raises is reported)
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(WORKERS)]
    with amplified_races():
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
    """Semantics 1: a reader never sees two records of different revisions that are always written
    together, nor one record with fields of different revisions, in one task or in a list of all.
    """
    store = harness.open()
    build.make(store, "t", *_pair(1))
    done = threading.Event()
    torn = list[object]()

    def read() -> None:
        try:
            while not done.is_set():
                snapshot = store.load("t")
                listed = store.list_records(Kind.AGENT, RecordQuery(task_id="t")).items
                everywhere = store.list_records(Kind.AGENT).items
                for revision, agents in (
                    (snapshot.revision, snapshot.agents),
                    (listed[0].progress, listed),  # type: ignore[union-attr]
                    (everywhere[0].progress, everywhere),  # type: ignore[union-attr]
                ):
                    if agents != _pair(revision):
                        found = ", ".join(f"{a.agent_id}: {a.type}" for a in agents)  # type: ignore[union-attr]
                        torn.append(f"at revision {revision}: {found}; the read mixes states")
        except BaseException as error:  # noqa: BLE001  (whatever it raises is reported)
            torn.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    with amplified_races():
        for reader in readers:
            reader.start()
        for n in range(1, 60):
            build.put(store, *_pair(n + 1), expected=n)
        done.set()
        for reader in readers:
            reader.join()
    assert torn == []


def _pair(revision: int) -> tuple[Agent, ...]:
    return tuple(
        build.agent("t", x, progress=revision, type=f"{x} of {revision}") for x in ("a", "b")
    )


def test_a_closed_store_says_so(harness: Harness) -> None:
    """After close every call raises StoreClosed, and closing again does nothing."""
    store = harness.open()
    build.make(store, "t")
    store.close()
    store.close()
    for call in (store.counts, store.list_tasks, store.changes, lambda: store.load("t")):
        with pytest.raises(errors.StoreClosed):
            call()
