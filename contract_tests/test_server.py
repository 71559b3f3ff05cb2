"""Stores with a server: a lost answer, a server that hangs or crashes, and released connections."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from contract_tests import build
from contract_tests.faults.cut_proxy import CutProxy
from contract_tests.harness import Harness
from contract_tests.test_counts import assert_true
from contract_tests.test_crash import all_changes
from contract_tests.test_move_target import into
from registry_api import (
    Capability,
    Changeset,
    History,
    Put,
    RegistryStore,
    commit_with_retry,
    errors,
    new_changeset,
)

_CHUNKS = 200  # more than a commit takes
_PATIENCE = 90.0  # seconds until a store must have given up a server that does not answer
_LONG = 15.0  # seconds for which a batch stays open

NOTHING, UNKNOWN = (errors.Unavailable, errors.Busy), errors.OutcomeUnknown


@pytest.fixture
def proxy(harness: Harness) -> CutProxy:
    """The proxy in front of the store's server."""
    if harness.proxy is None:
        pytest.skip(f"{harness.name} does not declare a server: Harness.through was not called")
    return harness.proxy


def _report(n: int) -> Changeset:
    return new_changeset("t", [Put(build.report("t", progress=n % 100))], expected=None)


def _reported(store: RegistryStore, changeset: Changeset) -> str:
    """Commit once; return ``done``, ``nothing`` or ``unknown``. Any other error fails the test."""
    try:
        store.commit(changeset)
    except UNKNOWN:
        return "unknown"
    except NOTHING:
        return "nothing"
    return "done"


@pytest.mark.parametrize("answers", [True, False], ids=["answers", "requests"])
def test_a_cut_connection_tells_whether_something_happened(
    harness: Harness, proxy: CutProxy, answers: bool
) -> None:
    """Semantics 2 and 3: wherever the connection is cut during a commit, the error is Unavailable
    only if nothing was written; otherwise it is OutcomeUnknown, and the retry applies the changeset
    once.
    """
    store = harness.open()
    build.make(store, "t", build.agent("t"))
    for chunks in range(_CHUNKS):
        before, cuts = store.head("t").revision, proxy.cuts
        changeset = _report(chunks)
        proxy.cut_after(chunks, answers=answers)
        outcome = _reported(store, changeset)
        proxy.cut_after(None, answers=answers)
        known = [c.changeset.id for c in all_changes(store)]
        if outcome == "nothing":
            assert (changeset.id in known, store.head("t").revision) == (False, before)
        again = store.commit(changeset)
        assert again.revision == before + 1
        assert store.head("t").revision == before + 1
        if proxy.cuts == cuts:
            break
    else:
        pytest.fail(f"a commit takes more than {_CHUNKS} answers of the server")
    assert_true(store)


def test_a_server_that_hangs_is_given_up(harness: Harness, proxy: CutProxy) -> None:
    """While the server does not answer, each call ends with Unavailable, Busy or OutcomeUnknown
    within the store's own time limits; afterwards the store works again, and what was sent is
    applied once.
    """
    store = harness.open()
    build.make(store, "t", build.agent("t"))
    changeset, outcomes = _report(1), dict[str, object]()

    def call(name: str, made: Callable[[], object]) -> None:
        try:
            outcomes[name] = made()
        except BaseException as error:  # noqa: BLE001  (whatever it raises is compared)
            outcomes[name] = error

    calls = {"commit": lambda: store.commit(changeset), "load": lambda: store.load("t")}
    threads = [threading.Thread(target=call, args=c, daemon=True) for c in calls.items()]
    proxy.hold()
    try:
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + _PATIENCE
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        waiting = [n for n, t in zip(calls, threads, strict=True) if t.is_alive()]
    finally:
        proxy.let_go()
    assert waiting == []
    assert {n: e for n, e in outcomes.items() if not isinstance(e, (*NOTHING, UNKNOWN))} == {}
    commit_with_retry(store, changeset, deadline=time.monotonic() + 60)
    assert [c.revision for c in all_changes(store)] == [1, 2]
    assert_true(store)


@pytest.mark.needs(Capability.PERSISTENT)
def test_what_was_acknowledged_survives_a_crash_of_the_server(harness: Harness) -> None:
    """Semantics 10: after kill -9 of the server every commit that returned is there, whole and with
    its feed line; what was answered Unavailable is not there; what was answered OutcomeUnknown is
    applied once by a retry.
    """
    if not harness.has_server:
        pytest.skip(f"{harness.name} does not declare a server: Harness.crash_server")
    store = harness.open()
    build.make(store, "t", build.agent("t"))
    outcomes = dict[str, list[Changeset]](done=[], nothing=[], unknown=[])
    failures, stop = list[BaseException](), threading.Event()

    def work() -> None:
        try:
            n = 0
            while not stop.is_set():
                changeset = _report(n)
                outcomes[_reported(store, changeset)].append(changeset)
                n += 1
        except BaseException as error:  # noqa: BLE001  (whatever it raises is reported)
            failures.append(error)

    for _ in range(3):
        stop.clear()
        threads = [threading.Thread(target=work) for _ in range(3)]
        enough = len(outcomes["done"]) + 20
        for thread in threads:
            thread.start()
        while len(outcomes["done"]) < enough and not failures:
            time.sleep(0.01)
        try:
            harness.crash_server()
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert failures == []
        commit_with_retry(store, _report(0), deadline=time.monotonic() + 60)
        known = [c.changeset.id for c in all_changes(store)]
        ids = {name: {c.id for c in found} for name, found in outcomes.items()}
        assert ids["done"] - set(known) == set()
        assert ids["nothing"] & set(known) == set()
        for changeset in outcomes["unknown"]:
            commit_with_retry(store, changeset, deadline=time.monotonic() + 60)
    known = [c.changeset.id for c in all_changes(store)]
    assert len(known) == len(set(known))
    assert {c.id for c in outcomes["unknown"]} <= set(known)
    assert [c.revision for c in all_changes(store)] == list(range(1, len(known) + 1))
    assert store.counts().records == {"task": 1, "agent": 1, "progress": len(known) - 1}
    assert_true(store)


def test_close_releases_every_connection(harness: Harness, proxy: CutProxy) -> None:
    """After close no connection to the server is left, also of stores that threads shared."""
    before = proxy.connections
    stores = [harness.open() for _ in range(3)]
    build.make(stores[0], "t")
    for store in stores:
        threads = [threading.Thread(target=store.load, args=("t",)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for store in stores:
        store.close()
    deadline = time.monotonic() + 10
    while proxy.connections > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert proxy.connections <= before


def test_a_look_writes_nothing_on_the_server(harness: Harness) -> None:
    """A store that is opened for reading, before there is a registry or after, changes nothing on
    the server.
    """
    if harness.stored() is None:
        pytest.skip(f"{harness.name} does not declare what its server holds: Harness.stored")
    build.make(harness.open(), "t", build.agent("t"))
    before = harness.stored()
    reader = harness.open_for_reading()
    reader.load("t"), reader.counts(), reader.changes(), reader.list_tasks()
    reader.close()
    assert harness.stored() == before


@pytest.mark.needs(Capability.MOVE_TARGET)
def test_a_task_may_be_written_for_a_long_time(harness: Harness, proxy: CutProxy) -> None:
    """`replace` writes a task whose histories take 15 s to read; nobody sees a part of it, and it
    is there at the end.
    """
    assert proxy.cuts == 0
    store = harness.open()
    with Harness("memory", harness.workspace / "source") as other:
        source = other.open()
        build.make(source, "t", build.agent("t"))
        entries = [build.report("t", progress=n) for n in range(3)]
        for entry in entries:
            build.put(source, entry, expected=None)
        snapshot, feed = source.load("t"), source.changes()

    def slowly() -> Iterator[History]:
        for entry in entries:
            time.sleep(_LONG / len(entries))
            assert reader.head("t").revision == 0
            yield entry

    reader = harness.open()
    into(store).replace(snapshot, slowly(), feed=feed)
    assert replace(store.load("t"), lineage=snapshot.lineage) == snapshot
    assert reader.counts().records == {"task": 1, "agent": 1, "progress": 3}
