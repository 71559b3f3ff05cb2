"""The chain: it stands for every change that led to a state, and is equal in every store that
applied the same changes (contract 1.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from contract_tests import build
from contract_tests.harness import Harness
from contract_tests.test_move_target import into
from registry_api import (
    AgentStatus,
    Capability,
    Change,
    Put,
    RecordQuery,
    RegistryStore,
    all_records,
    errors,
    new_changeset,
)
from registry_api.records import HISTORIES, next_chain

TARGET = pytest.mark.needs(Capability.MOVE_TARGET)


@pytest.fixture(autouse=True)
def keeps_chains(harness: Harness) -> None:
    """Skip a store that declares the contract as it was before chains."""
    version = harness.open().info.contract_version
    if tuple(map(int, version.split("."))) < (1, 1):
        pytest.skip(f"the store declares contract {version}; chains come with 1.1")


@pytest.fixture
def reference(tmp_path: Path) -> Iterator[RegistryStore]:
    """An empty reference store."""
    with Harness("memory", tmp_path / "reference") as harness:
        yield harness.open()


def work(store: RegistryStore) -> None:
    """Commit changes of the kinds for which stores have ways of their own."""
    build.make(store, "t", build.agent("t"), build.phase("t"))
    for percent in (10, 20, 30):
        build.put(store, build.report("t", status="running", progress=percent), expected=None)
    build.put(store, build.report("t", status="blocked"), build.finding("t"), expected=None)
    build.put(store, build.agent("t", status=AgentStatus.COMPLETED), expected=5)
    build.put(store, build.finding("t"), expected=None)


def of_task(store: RegistryStore, task_id: str = "t") -> tuple[Change, ...]:
    """Return the feed of a task."""
    return store.changes(task_id=task_id, limit=1000)


def test_each_change_adds_a_link(harness: Harness) -> None:
    """Semantics 13: `commit`, `head`, `load` and `changes` return the chain, whose links are the
    hashes of the changesets' digests; another task has another chain.
    """
    store, chain = harness.open(), ""
    work(store)
    for change in of_task(store):
        chain = next_chain(chain, change.revision, change.digest)
        assert change.chain == chain
    commit = build.put(store, build.report("t"), expected=None)
    (newest,) = [c for c in of_task(store) if c.revision == commit.revision]
    chain = next_chain(chain, commit.revision, newest.digest)
    assert [commit.chain, newest.chain, store.head("t").chain, store.load("t").chain] == [chain] * 4
    other = build.make(store, "u")
    assert store.head("u").chain == other.chain != of_task(store)[0].chain
    assert store.head("absent").chain == ""


def test_a_chain_is_kept(harness: Harness) -> None:
    """Semantics 13: another instance on the same registry reads the chain and goes on with it."""
    store = harness.open()
    work(store)
    other = harness.open()
    assert other.head("t").chain == store.head("t").chain
    before = store.head("t").chain
    commit = build.put(other, build.finding("t"), expected=None)
    digest = of_task(other)[-1].digest
    assert store.head("t").chain == commit.chain == next_chain(before, commit.revision, digest)


def test_what_is_refused_adds_no_link(harness: Harness) -> None:
    """Semantics 2, 3 and 13: after a refused commit and after a replay the chain is as before."""
    store = harness.open()
    work(store)
    before = store.head("t").chain
    with pytest.raises(errors.Conflict):
        build.put(store, build.agent("t"), expected=1)
    finding = of_task(store)[-1].changeset
    assert store.commit(finding).replayed
    with pytest.raises(errors.RecordExists):
        store.commit(new_changeset("t", finding.ops, expected=None))
    assert store.head("t").chain == before


@TARGET
def test_replicas_have_the_same_chain(harness: Harness, reference: RegistryStore) -> None:
    """`apply`, `apply_all` and `replace` bring a task to the source's chain, its feed included, and
    the store goes on with it as a writer.
    """
    work(reference)
    feed = of_task(reference)
    store = harness.open()
    for change in feed[:3]:
        assert into(store).apply(change).chain == change.chain
    into(store).apply_all(feed[3:])
    head = reference.head("t")
    assert store.head("t").chain == head.chain
    assert [c.chain for c in of_task(store)] == [c.chain for c in feed]
    build.make(reference, "u", build.agent("u"))
    build.put(reference, build.report("u"), expected=None)
    histories = [
        r for kind in HISTORIES for r in all_records(reference, kind, RecordQuery(task_id="u"))
    ]
    of_u = of_task(reference, "u")
    into(store).replace(reference.load("u"), histories, feed=of_u)  # type: ignore[arg-type]
    assert store.head("u").chain == reference.head("u").chain
    assert [c.chain for c in of_task(store, "u")] == [c.chain for c in of_u]
    commit = build.put(store, build.finding("u"), expected=None)
    digest = of_task(store, "u")[-1].digest
    assert commit.chain == next_chain(of_u[-1].chain, commit.revision, digest)


@TARGET
def test_a_change_of_another_history_is_refused(harness: Harness, reference: RegistryStore) -> None:
    """A change whose chain does not follow the task's is NotNext and changes nothing, also the last
    one of several; `replace` then brings the source's history.
    """
    work(reference)
    feed = of_task(reference)
    store = harness.open()
    into(store).apply_all(feed[:-2])
    # What a store commits that was restored from a backup: other changes, the same numbers.
    other = new_changeset("t", [Put(build.finding("t", message="other"))], expected=None)
    forked = replace(feed[-2], changeset=other, digest="f" * 64)
    chain = next_chain(feed[-3].chain, forked.revision, forked.digest)
    into(store).apply(replace(forked, chain=chain))
    before = store.load("t")
    with pytest.raises(errors.NotNext):
        into(store).apply(feed[-1])
    with pytest.raises(errors.NotNext):
        into(store).apply_all([feed[-1]])
    assert store.load("t") == before
    assert len(of_task(store)) == len(feed) - 1
    there = replace(reference.head("t"), revision=feed[-2].revision, chain=feed[-2].chain)
    assert store.head("t").position == there.position
    assert not store.head("t").is_level(there)


@TARGET
def test_a_chain_may_be_unknown(harness: Harness, reference: RegistryStore) -> None:
    """Changes of a store without chains are applied as before; from the first known chain on the
    task has it again. A chain may begin with any change.
    """
    work(reference)
    feed = of_task(reference)
    store = harness.open()
    into(store).apply_all([replace(change, chain="") for change in feed[:3]])
    assert store.head("t").chain == ""
    into(store).apply(feed[3])
    assert store.head("t").chain == feed[3].chain
    begun = next_chain("", 5, feed[4].digest)
    into(store).apply(replace(feed[4], chain=begun))
    assert store.head("t").chain == begun
    into(store).apply(replace(feed[5], chain=""))
    assert store.head("t").chain == ""
    commit = build.put(store, build.report("t"), expected=None)
    assert commit.chain == store.head("t").chain != ""
