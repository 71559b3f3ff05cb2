"""Capabilities: what a store declares works, and it has nothing that it does not declare."""

from __future__ import annotations

import gc
import threading
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from contract_tests import build
from contract_tests.harness import Harness
from registry_api import (
    CONTRACT_VERSION,
    Capability,
    MigrationSource,
    MoveTarget,
    RegistryStore,
    errors,
    find_capability,
    load_settings,
    open_store,
)
from registry_api.workspace import STATE_DIR

_FILES = Path("/proc/self/fd")

PROTOCOLS = {
    Capability.MOVE_TARGET: MoveTarget,
    Capability.MIGRATION_SOURCE: MigrationSource,
}


def test_a_store_says_what_it_is(harness: Harness) -> None:
    """``info`` is the same at each call: it has a name, a contract version that this host supports,
    known and consistent capabilities, and large enough limits.
    """
    info = harness.open().info
    assert info == harness.open().info
    assert info.name
    major, _, minor = info.contract_version.partition(".")
    assert (major, minor.isdecimal()) == (CONTRACT_VERSION.partition(".")[0], True)
    assert info.capabilities <= set(Capability)
    lasting = {Capability.DURABLE, Capability.MULTI_PROCESS, Capability.MIGRATION_SOURCE}
    assert Capability.PERSISTENT in info.capabilities or not lasting & info.capabilities
    shared = {Capability.MULTI_PROCESS, Capability.MOVE_TARGET}  # the latter for its role stamp
    assert Capability.MULTI_HOST not in info.capabilities or shared <= info.capabilities
    assert info.limits.ops >= 100
    assert info.limits.changeset_bytes >= 2**16


def test_what_is_declared_is_there(harness: Harness) -> None:
    """A store has the methods of each capability that it declares: the host checks only the
    declaration.
    """
    store = harness.open()
    for capability, protocol in PROTOCOLS.items():
        if capability in harness.info.capabilities:
            assert find_capability(store, protocol) is not None, capability


class _Forwarding:
    """A third party's wrapper that forwards every attribute by ``__getattr__``."""

    def __init__(self, store: RegistryStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_a_wrapper_that_forwards_keeps_what_is_declared(harness: Harness) -> None:
    """Through a wrapper that forwards every attribute, `find_capability` finds exactly the
    capabilities that the store has.
    """
    store = harness.open()
    for protocol in PROTOCOLS.values():
        there = find_capability(store, protocol) is not None
        assert (find_capability(_Forwarding(store), protocol) is not None) == there


@pytest.mark.needs(Capability.PERSISTENT)
def test_what_was_written_is_there_when_it_is_opened_anew(harness: Harness) -> None:
    """Semantics 10: after a store is closed and reopened, task, feed and counts are unchanged."""
    store = harness.open()
    build.make(store, "t", build.agent("t"))
    build.put(store, build.report("t", progress=7), expected=None)
    left = store.load("t"), store.changes(), store.counts()
    store.close()
    again = harness.open()
    assert (again.load("t"), again.changes(), again.counts()) == left


@pytest.mark.needs(Capability.PERSISTENT)
@pytest.mark.skipif(not _FILES.exists(), reason="does not declare: this system has no /proc")
def test_close_releases_every_file(harness: Harness) -> None:
    """Stores that were opened, used by two threads and closed leave no file and no thread open."""

    def use() -> None:
        store = harness.open()
        store.load("t")
        other = threading.Thread(target=store.load, args=("t",))
        other.start()
        other.join()
        build.put(store, build.report("t"), expected=None)
        store.close()

    build.make(harness.open(), "t", build.agent("t"))
    use()
    gc.collect()
    before = len(list(_FILES.iterdir())), threading.active_count()
    for _ in range(10):
        use()
    after = len(list(_FILES.iterdir())), threading.active_count()
    # A store's own rest is noise, one for each open is a leak.
    assert (after[0] < before[0] + 8, after[1] < before[1] + 8) == (True, True), (before, after)


@pytest.mark.needs(Capability.PERSISTENT)
def test_state_is_for_its_owner_alone(harness: Harness) -> None:
    """Other users can read nothing in ``.registry``, since it holds prompts and paths."""
    store = harness.open()
    build.make(store, "t", build.agent("t"))
    state = harness.workspace / STATE_DIR
    found = [state, *state.rglob("*")] if state.exists() else []
    assert {str(p): oct(p.lstat().st_mode) for p in found if p.lstat().st_mode & 0o077} == {}


@pytest.mark.needs(Capability.PERSISTENT)
def test_a_look_creates_nothing(harness: Harness, tmp_path: Path) -> None:
    """A store opened for reading in an empty workspace raises an error or is empty, and creates no
    file.
    """
    empty = tmp_path / "empty"
    empty.mkdir()
    settings = load_settings(empty, env=harness.environment())
    with suppress(errors.RegistryError), closing(open_store(settings, read_only=True)) as store:
        assert store.counts().total_tasks == 0
    assert list(empty.rglob("*")) == []


@pytest.mark.needs(Capability.PERSISTENT)
def test_a_store_opened_for_reading_refuses_to_write(harness: Harness) -> None:
    """A store opened for reading returns the existing records, refuses a commit with ReadOnly and
    changes nothing. A view of legacy files may have revisions of its own.
    """
    writer = harness.open()
    build.make(writer, "t", build.agent("t"))
    before = writer.load("t"), writer.counts(), writer.changes()
    reader = harness.open_for_reading()
    assert (reader.load("t").task, reader.load("t").agents) == (before[0].task, before[0].agents)
    assert reader.counts() == before[1]
    with pytest.raises(errors.ReadOnly):
        build.put(reader, build.report("t"), expected=None)
    with pytest.raises(errors.ReadOnly):
        build.make(reader, "other")
    assert (writer.load("t"), writer.counts(), writer.changes()) == before
