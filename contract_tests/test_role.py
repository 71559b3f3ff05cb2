"""Capability MOVE_TARGET: a store keeps its role in a move and refuses what the role forbids."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from contract_tests import build
from contract_tests.harness import Harness
from contract_tests.test_move_target import assert_equal, into, source
from registry_api import (
    Capability,
    MoveTarget,
    ProgressEntry,
    Put,
    RegistryStore,
    errors,
    new_changeset,
)
from registry_api.roles import ROLE, Role, RoleStamp

__all__ = ["source"]

pytestmark = pytest.mark.needs(Capability.MOVE_TARGET)

_WAYS: dict[str, Callable[[MoveTarget, RegistryStore], object]] = {
    "apply": lambda target, source: target.apply(source.changes()[0]),
    "apply_all": lambda target, source: target.apply_all(source.changes()),
    "replace": lambda target, source: target.replace(
        source.load("t"), (), feed=source.changes(task_id="t")
    ),
}


def stamp(store: RegistryStore, role: Role, *, writer: str = "other://store") -> None:
    """Give the store a role, as a switch does."""
    found = RoleStamp(role=role, registry="r", workspace="/a/workspace", writer=writer, epoch=3)
    into(store).write_stamp(ROLE, found.dump())


@pytest.mark.parametrize("role", [Role.REPLICA, Role.FENCED])
def test_only_a_writer_commits(harness: Harness, role: Role) -> None:
    """A store that is a replica, or fenced, refuses `commit` with BackendMismatch that names the
    writer of record; nothing is changed. As the writer it accepts the same changeset.
    """
    store = harness.open()
    build.make(store, "t")
    stamp(store, role)
    before, changeset = store.changes(), new_changeset("t", [Put(build.agent("t"))], expected=1)
    for refused in (changeset, build.creating("u")):
        with pytest.raises(errors.BackendMismatch, match="other://store"):
            store.commit(refused)
    assert store.changes() == before
    assert store.counts().total_tasks == 1
    stamp(store, Role.WRITER, writer="")
    assert store.commit(changeset).revision == 2


def test_a_store_that_a_switch_fences_is_unavailable(harness: Harness) -> None:
    """While the switch that fenced the store is not committed, `commit` raises Unavailable: the
    caller tries again.
    """
    store = harness.open()
    stamp(store, Role.FENCED, writer="")
    with pytest.raises(errors.Unavailable):
        build.make(store, "t")
    assert store.head("t").revision == 0


@pytest.mark.parametrize("role", [Role.WRITER, Role.FENCED])
@pytest.mark.parametrize("way", _WAYS)
def test_only_a_replica_replicates(
    harness: Harness, source: RegistryStore, way: str, role: Role
) -> None:
    """`apply`, `apply_all` and `replace` are refused with BackendMismatch by a writer and by a
    fenced store, and accepted by a replica.
    """
    store = harness.open()
    stamp(store, role)
    with pytest.raises(errors.BackendMismatch):
        _WAYS[way](into(store), source)
    assert store.counts().total_tasks == 0
    stamp(store, Role.REPLICA)
    into(store).apply_all(source.changes())
    assert_equal(source, store)


@pytest.mark.needs(Capability.PERSISTENT)
def test_a_role_is_seen_by_every_opened_store(harness: Harness) -> None:
    """A store that was opened before another process changed the role checks the new one in its
    next transaction.
    """
    early, other = harness.open(), harness.open()
    build.make(early, "t")
    stamp(other, Role.FENCED)
    with pytest.raises(errors.BackendMismatch):
        build.put(early, build.agent("t"), expected=1)
    with pytest.raises(errors.BackendMismatch):  # already when it is opened
        build.put(harness.open(), build.agent("t"), expected=1)
    assert into(early).read_stamp(ROLE) == into(other).read_stamp(ROLE)
    stamp(other, Role.WRITER)
    assert build.put(early, build.agent("t"), expected=1).revision == 2


@pytest.mark.needs(Capability.MULTI_PROCESS)
def test_a_fence_waits_for_what_is_under_way(harness: Harness) -> None:
    """Once the stamp that fences a store is written, no commit that began before it is added: what
    callers were told is what the store holds then.
    """
    tasks = [f"t{n}" for n in range(4)]
    stores = {task_id: harness.open() for task_id in tasks}
    for task_id, store in stores.items():
        build.make(store, task_id, build.agent(task_id))
    fencing, ended = harness.open(), threading.Event()
    under_way = threading.Semaphore(0)

    def report(task_id: str) -> ProgressEntry:
        """Return the most frequent record: a report that leaves its agent's status as it is."""
        return build.report(task_id, status="running")

    def work(task_id: str) -> int:
        """Commit until the fence refuses it; return the last revision that was told."""
        revision = 1
        for n in range(1000):
            if n == 3:
                under_way.release()
            if ended.is_set():
                break
            try:
                told = build.put(stores[task_id], report(task_id), expected=None)
            except (errors.BackendMismatch, errors.Unavailable):
                break
            revision = told.revision
        return revision

    with ThreadPoolExecutor(len(tasks)) as pool:
        last = {task_id: pool.submit(work, task_id) for task_id in tasks}
        try:
            for _ in tasks:
                under_way.acquire(timeout=30)
            stamp(fencing, Role.FENCED)
            held = {task_id: fencing.head(task_id).revision for task_id in tasks}
        finally:
            ended.set()
        assert {task_id: told.result() for task_id, told in last.items()} == held
