"""Capability MIGRATION_SOURCE: a store that a move can leave, and take back.

The fence of a store whose files other programs edit (``ForeignWriters``) is the phase record, so
these tests record the phase as a switch does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from contract_tests import build
from contract_tests.harness import Harness
from registry_api import (
    Capability,
    Change,
    ForeignWriters,
    Head,
    Kind,
    MigrationSource,
    RecordQuery,
    RegistryStore,
    all_records,
    errors,
    find_capability,
)
from registry_api.migration import MigrationPhase, PhaseFile, PhaseRecord
from registry_api.records import HISTORIES
from registry_api.roles import Role, RoleStamp
from registry_api.workspace import STATE_DIR

pytestmark = pytest.mark.needs(Capability.MIGRATION_SOURCE, Capability.PERSISTENT)

FENCED = RoleStamp(role=Role.FENCED, registry="r", workspace="/a/workspace", writer="other://x")
WRITER = RoleStamp(role=Role.WRITER, registry="r", workspace="/a/workspace")


def source_of(store: RegistryStore) -> MigrationSource:
    """Return the store, or the one inside its wrappers, as the source of a move."""
    found = find_capability(store, MigrationSource)
    assert found is not None
    return found


def record(harness: Harness, name: str, phase: MigrationPhase) -> None:
    """Record a phase of a move from the store to ``other://x``."""
    control = PhaseFile(harness.workspace / STATE_DIR)
    epoch = control.current().epoch
    control.advance(
        epoch,
        PhaseRecord(phase=phase, epoch=epoch + 1, move="m", source=name, target=FENCED.writer),
    )


def fence(
    harness: Harness, store: RegistryStore, seen: Mapping[str, Head] = MappingProxyType({})
) -> dict[str, Head]:
    """Fence the store as a switch does; return what has changed since ``seen``."""
    foreign = find_capability(store, ForeignWriters)
    if foreign is None:
        return source_of(store).fence(FENCED, seen)
    foreign.prepare_fence()
    changed = source_of(store).fence(FENCED, seen)
    record(harness, store.info.name, MigrationPhase.WRITE_CUTOVER)
    return changed


def unfence(harness: Harness, store: RegistryStore) -> None:
    """Lift the fence as a switch does."""
    foreign = find_capability(store, ForeignWriters)
    if foreign is not None:
        assert foreign.frozen_documents()
        record(harness, store.info.name, MigrationPhase.READ_MIGRATION)
    source_of(store).unfence(WRITER)
    if foreign is not None:
        assert not foreign.frozen_documents()


def filled(store: RegistryStore) -> None:
    """Make two tasks with records and histories."""
    build.make(store, "t", build.phase("t"), build.agent("t"))
    build.put(store, build.report("t", progress=9), build.finding("t"), expected=None)
    build.make(store, "u", build.agent("u"))


def content(store: RegistryStore) -> tuple[object, ...]:
    """Return everything that a store holds, its feed included."""
    histories = [list(all_records(store, kind, RecordQuery())) for kind in (*HISTORIES, Kind.AGENT)]
    return store.load("t"), store.load("u"), histories, store.counts(), store.changes()


def retired(harness: Harness, store: RegistryStore) -> str:
    """Fence, archive and remove the store; return the archive."""
    source = source_of(store)
    fence(harness, store)
    archive = source.archive()
    source.retire(archive, wait=0.0, patience=5.0, now=lambda _: None)
    return archive


def test_what_has_moved(harness: Harness) -> None:
    """`moved` returns the heads of the tasks that are new or changed since those seen before."""
    store = harness.open()
    source = source_of(store)
    assert source.moved({}) == {}
    filled(store)
    seen = source.moved({})
    assert seen == {name: store.head(name) for name in ("t", "u")}
    assert source.moved(seen) == {}
    build.put(store, build.report("t"), expected=None)
    build.make(store, "v")
    assert source.moved(seen) == {name: store.head(name) for name in ("t", "v")}
    assert source.moved(seen | {"u": Head()}).keys() == {"t", "u", "v"}


def test_a_fence_is_durable_until_it_is_lifted(harness: Harness) -> None:
    """After `fence` no open store commits, in no process; it returns what changed. After `unfence`
    the revisions go on without a gap.
    """
    store, other = harness.open(), harness.open()
    source = source_of(store)
    filled(store)
    seen = source.moved({})
    build.put(other, build.report("t"), expected=None)
    assert fence(harness, store, seen) == {"t": store.head("t")}
    for fenced in (store, other):
        with pytest.raises(errors.BackendMismatch, match="other://x"):
            build.put(fenced, build.report("t"), expected=None)
    with harness.spawn("contract_tests.runner.worker", "report", "t", "late") as process:
        assert process.wait(60) != 0
    assert store.head("t").revision == 3
    unfence(harness, other)
    assert build.put(store, build.report("t"), expected=None).revision == 4


def test_an_archive_is_read_back(harness: Harness) -> None:
    """`check_archive` refuses an archive that is damaged, missing or elsewhere (CorruptDocument);
    `retire` removes nothing then.
    """
    store = harness.open()
    source = source_of(store)
    filled(store)
    before = content(store)
    fence(harness, store)
    archive = source.archive()
    source.check_archive(archive)
    name, digest = archive.split(" ")
    assert len(bytes.fromhex(digest)) == 32
    (path,) = harness.workspace.rglob(name)
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:100] + bytes([whole[100] ^ 1]) + whole[101:], b""):
        path.write_bytes(damaged)
        with pytest.raises(errors.CorruptDocument):
            source.check_archive(archive)
        with pytest.raises(errors.CorruptDocument):
            source.retire(archive, wait=0.0, patience=5.0, now=lambda _: None)
    for missing in (f"none {digest}", f"../{name} {digest}", f"{path} {digest}"):
        with pytest.raises(errors.CorruptDocument):
            source.check_archive(missing)
    assert content(store) == before
    assert path.stat().st_mode & 0o077 == 0


def test_a_removed_store_is_taken_back(harness: Harness, tmp_path: Path) -> None:
    """After `retire` nothing is left of the registry; `reinstate` brings back every record, the
    feed with its ids and numbers, and what is known of changesets, still fenced. Both may be
    repeated.
    """
    store = harness.open()
    filled(store)
    before, feed = content(store), store.changes()
    archive = retired(harness, store)
    removed = harness.open_removed()
    source = source_of(removed)
    assert source.retiring() == 0
    source.retire(archive, wait=0.0, patience=5.0, now=lambda _: None)
    again = harness.open_removed()
    for _ in range(2):
        source_of(again).reinstate(archive)
        assert content(again) == before
    with pytest.raises(errors.BackendMismatch):
        build.put(again, build.report("t"), expected=None)
    unfence(harness, again)
    _is_the_same_registry(again, feed)


def _is_the_same_registry(store: RegistryStore, feed: tuple[Change, ...]) -> None:
    assert all(store.commit(change.changeset).replayed for change in feed)
    assert store.changes() == feed
    commit = build.put(store, build.report("t"), expected=None)
    assert commit.cursor.feed_id == feed[-1].cursor.feed_id
    assert commit.cursor.number > feed[-1].cursor.number
    assert commit.lineage == feed[0].lineage
