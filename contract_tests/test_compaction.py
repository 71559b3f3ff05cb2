"""A store that drops expired feed lines also of tasks that are no longer written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from contract_tests import build
from contract_tests.harness import Harness
from contract_tests.test_move_target import into
from contract_tests.test_role import stamp
from registry_api import (
    Capability,
    Change,
    FeedCursor,
    Kind,
    ProgressEntry,
    Put,
    RecordQuery,
    RegistryStore,
    all_records,
    errors,
    find_capability,
)
from registry_api.capabilities import Compactable
from registry_api.client import compact
from registry_api.roles import Role

pytestmark = pytest.mark.needs(Capability.MOVE_TARGET)


def filled(harness: Harness, tmp_path: Path, ages: Sequence[float]) -> RegistryStore:
    """Return the store with a task ``t`` whose feed lines have these ages in days, and ``u``, whose
    lines are young.

    A writer drops old lines, so this task is written by a store that keeps none, and then replaced.
    """
    store = harness.open()
    if find_capability(store, Compactable) is None:
        pytest.skip("the store keeps its whole feed: it has no method compact")
    feed = list[Change]()
    with Harness("memory", tmp_path / "source") as source:
        other = source.open()
        build.make(other, "u", build.agent("u"))
        other.commit(build.aged("t", build.creating("t").ops, ages[0], expected=0))
        for days in ages[1:]:
            feed.append(other.changes(task_id="t")[-1])
            other.commit(build.aged("t", [Put(build.report("t"))], days))
        feed.append(other.changes(task_id="t")[-1])
        for task_id, lines in (("t", tuple(feed)), ("u", other.changes(task_id="u"))):
            found = all_records(other, Kind.PROGRESS, RecordQuery(task_id=task_id))
            reports = [record for record in found if isinstance(record, ProgressEntry)]
            into(store).replace(other.load(task_id), reports, feed=lines)
    return store


def revisions(changes: Iterable[Change]) -> list[int]:
    """Return the revisions of changes."""
    return [change.revision for change in changes]


def test_expired_lines_of_an_idle_task_are_dropped(harness: Harness, tmp_path: Path) -> None:
    """Semantics 6: `compact` drops the lines that are past their retention, and no other; nothing
    else changes. Cursors before them are expired, and their ids are refused.
    """
    store = filled(harness, tmp_path, (45, 44, 40, 29, 1))
    feed = store.changes(task_id="t")
    assert revisions(feed) == [1, 2, 3, 4, 5]
    before = store.load("t"), store.counts(), store.list_tasks(), store.head("t").revision
    assert compact(store, dry_run=True).lines == 3
    assert store.changes(task_id="t") == feed
    assert compact(store).lines == 3
    assert store.changes(task_id="t") == feed[3:]
    assert revisions(store.changes(task_id="u")) == [1]
    assert before == (store.load("t"), store.counts(), store.list_tasks(), store.head("t").revision)
    with pytest.raises(errors.CursorExpired):
        store.changes(FeedCursor(feed_id=feed[0].cursor.feed_id, number=feed[0].cursor.number))
    assert store.commit(feed[4].changeset).replayed
    with pytest.raises(errors.ChangesetExpired):
        store.commit(feed[1].changeset)
    assert compact(store).lines == 0
    assert build.put(store, build.report("t"), expected=None).revision == 6


def test_the_newest_line_of_a_task_stays(harness: Harness, tmp_path: Path) -> None:
    """Semantics 6: `compact` keeps a task's newest line however old it is, and drops as many others
    as there are.
    """
    store = filled(harness, tmp_path, [60 - n / 100 for n in range(450)])
    assert compact(store).lines == 449
    assert revisions(store.changes(task_id="t")) == [450]
    assert store.head("t").revision == 450
    assert compact(store).lines == 0
    page = store.changes(limit=1)
    assert len(store.changes(page[-1].cursor)) + 1 == len(store.changes())


def test_writers_go_on_meanwhile(harness: Harness, tmp_path: Path) -> None:
    """Semantics 6: commits made while the feed is compacted get revisions, and their lines stay."""
    store = filled(harness, tmp_path, [60 - n / 100 for n in range(450)])

    def write(task_id: str, n: int) -> list[int]:
        reports = [build.report(task_id, entry_id=f"e{n}-{k}") for k in range(20)]
        return [build.put(store, report, expected=None).revision for report in reports]

    with ThreadPoolExecutor(5) as pool:
        writers = [pool.submit(write, name, n) for n, name in enumerate("tutu")]
        compact(store)
        told = sorted(revision for writer in writers for revision in writer.result())
    assert told == sorted([*range(451, 491), *range(2, 42)])
    compact(store)  # writers drop old lines, too; what was the newest one may be dropped now
    assert revisions(store.changes(task_id="t", limit=1000)) == list(range(451, 491))
    assert revisions(store.changes(task_id="u", limit=1000)) == list(range(1, 42))


def test_only_the_writer_of_record_is_compacted(harness: Harness, tmp_path: Path) -> None:
    """A store that is fenced, or a replica, refuses `compact` with BackendMismatch, and one that is
    opened for reading with ReadOnly; nothing is dropped.
    """
    store = filled(harness, tmp_path, (45, 44, 1))
    for role in (Role.FENCED, Role.REPLICA):
        stamp(store, role)
        with pytest.raises(errors.BackendMismatch):
            compact(store)
    stamp(store, Role.WRITER, writer="")
    if Capability.PERSISTENT in harness.info.capabilities:
        with pytest.raises(errors.ReadOnly):
            compact(harness.open_for_reading())
    assert revisions(store.changes(task_id="t")) == [1, 2, 3]
    assert compact(store).lines == 2
