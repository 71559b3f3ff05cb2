"""Semantics 10: an acknowledged commit survives the kill of its process."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from contract_tests import build
from contract_tests.harness import Harness
from contract_tests.test_counts import assert_true
from registry_api import (
    Capability,
    Change,
    FeedCursor,
    Kind,
    RecordQuery,
    RegistryStore,
    all_records,
    record_key,
)


@pytest.mark.needs(Capability.PERSISTENT)
def test_what_was_acknowledged_survives_a_kill(harness: Harness) -> None:
    """Semantics 10: after kill -9 every commit that returned is there, no record is there without
    its feed line, and the store works.
    """
    store = harness.open()
    build.make(store, "t", build.agent("t"))
    for n in range(3):
        if Capability.MULTI_PROCESS not in harness.info.capabilities:
            store.close()
        process = harness.spawn("contract_tests.runner.worker", "report", "t", f"k{n}")
        assert process.stdout is not None
        acked = [process.stdout.readline().strip() for _ in range(20)]
        process.kill()
        acked += process.communicate()[0].split()
        # The last line may be cut by the kill: only whole ids were acknowledged.
        whole = {a for a in acked if len(a) == 32}
        assert (process.returncode, len(whole) >= 20) == (-signal.SIGKILL, True)
        store = harness.open()
        assert whole <= {c.changeset.id.hex for c in all_changes(store)}
    build.put(store, build.finding("t"), expected=None)
    assert_true(store)
    in_feed = {record_key(op.record) for c in all_changes(store) for op in c.changeset.ops}  # type: ignore[union-attr]
    for kind in (Kind.PROGRESS, Kind.FINDING):
        there = {record_key(r) for r in all_records(store, kind, RecordQuery())}
        assert there <= in_feed
    revisions = [c.revision for c in all_changes(store)]
    assert revisions == list(range(1, len(revisions) + 1))


def all_changes(store: RegistryStore) -> Iterator[Change]:
    """Yield the whole feed."""
    after: FeedCursor | None = None
    while page := store.changes(after, limit=1000):
        yield from page
        after = page[-1].cursor
