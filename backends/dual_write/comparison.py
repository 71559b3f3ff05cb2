"""Compare two stores field by field, with the records rebuilt from each of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from backends.dual_write.replicator import Replicator
from registry_api.client import all_records, all_tasks
from registry_api.errors import TaskNotFound
from registry_api.migration import Mismatch, Progress, VerifyReport
from registry_api.records import (
    HISTORIES,
    PARTS,
    PLURALS,
    Head,
    Put,
    Record,
    RecordQuery,
    TaskQuery,
    TaskSnapshot,
    record_key,
)
from registry_api.store import RegistryStore

__all__ = ["compare_snapshots", "compare_tail", "compare_task", "surplus_tasks", "verify_tasks"]

_ATTEMPTS = 20
_MOST = 1000
_FIELDS = tuple(PLURALS[kind] for kind in PARTS)  # of a snapshot; a new kind is compared too


def verify_tasks(
    replicator: Replicator,
    task_ids: list[str],
    *,
    inside: Callable[[], AbstractContextManager[None]] = nullcontext,
    progress: Progress | None = None,
) -> VerifyReport:
    """Compare tasks while writers continue, each at a revision that both stores have.

    ``inside`` passes the gate (the readers-writer lock that a switch takes exclusively) for each
    task, because reading the source absorbs what legacy programs wrote.
    """
    records, mismatches, in_flight = 0, list[Mismatch](), list[str]()
    for done, task_id in enumerate(task_ids):
        with inside():
            found, differences = compare_task(replicator, task_id)
        if found is None:
            in_flight.append(task_id)
        records += found or 0
        mismatches += differences
        if progress is not None:
            progress("verify", done + 1, len(task_ids))
    return VerifyReport(
        tasks=len(task_ids),
        records=records,
        mismatches=tuple(mismatches[:_MOST]),
        in_flight=tuple(in_flight),
    )


def surplus_tasks(replicator: Replicator, task_ids: set[str]) -> list[Mismatch]:
    """Return the tasks that only the target has."""
    return [
        Mismatch(task_id=t.task_id, pointer="", source=None, target=t.revision)
        for t in all_tasks(replicator.target, TaskQuery())
        if t.task_id not in task_ids and replicator.source.head(t.task_id).revision == 0
    ]


def compare_task(
    replicator: Replicator, task_id: str, *, catch_up: bool = True
) -> tuple[int | None, list[Mismatch]]:
    """Return (records compared, differences) of one task, at a revision that both stores had.

    A task that changes meanwhile catches up and is read again. If it changes between every two
    reads, it is not compared (None); that is left to the comparison while the gate is held.
    """
    source, target = replicator.source, replicator.target
    for _ in range(_ATTEMPTS):
        try:
            mine, other = _both(replicator, task_id, catch_up=catch_up)
        except TaskNotFound:
            return 0, []
        at_one = other is not None and mine.position == other.position
        if other is not None and (mine.is_level(other) or (at_one and not catch_up)):
            count, found = _compare(source, target, mine, other)
            if not mine.is_level(other):
                found.append(_other_history(mine, other))
            return count, found
        still = source.head(task_id)
        if mine.position == still.position:
            # Nothing changed, and catching up did not help: that is a difference, not a delay.
            if other is not None and at_one:
                return 1, [_other_history(mine, other)]
            revision = other.revision if other else None
            lag = Mismatch(
                task_id=task_id, pointer="/revision", source=mine.revision, target=revision
            )
            return 1, [lag]
    return None, []


def _other_history(mine: TaskSnapshot, other: TaskSnapshot) -> Mismatch:
    """Return the difference of two states that have the same revision by different changes."""
    return Mismatch(
        task_id=mine.task.task_id, pointer="/chain", source=mine.chain, target=other.chain
    )


def _both(
    replicator: Replicator, task_id: str, *, catch_up: bool
) -> tuple[TaskSnapshot, TaskSnapshot | None]:
    """Read a task from both stores, at one revision unless a writer is faster.

    The source is read first: each read may have to wait for its writers, and the target then
    catches up to exactly that revision. (In the other order the source had changed each time: 20 s
    for five tasks with eight writers, each sync 10 ms.)
    """
    mine, other = replicator.source.load(task_id), _found(replicator.target, task_id)
    if catch_up and (other is None or not mine.is_level(other)):
        upto = Head(lineage=mine.lineage, revision=mine.revision, chain=mine.chain)
        replicator.catch_up(task_id, upto=upto)
        other = _found(replicator.target, task_id)
    return mine, other


def _found(store: RegistryStore, task_id: str) -> TaskSnapshot | None:
    try:
        return store.load(task_id)
    except TaskNotFound:
        return None


def compare_tail(replicator: Replicator, task_id: str, since: Head) -> tuple[Head, list[Mismatch]]:
    """Compare a task that was equal at ``since``; returns (head it is equal up to, differences).

    Records are compared completely, histories by the feed after ``since``: each feed line was
    applied together with its rows. Both stores are read at one revision; if they never have the
    same one, that is the difference.
    """
    for _ in range(_ATTEMPTS):
        try:
            mine, found = _both(replicator, task_id, catch_up=True)
        except TaskNotFound:
            found = None
        if found is None:
            gone = Mismatch(task_id=task_id, pointer="", source="present", target=None)
            return since, [gone]
        other = found
        if mine.is_level(other):
            break
    out = list(_differences(mine, other))
    cursor, number = replicator.cursor(task_id, since.number), since.number
    while page := replicator.source.changes(cursor, task_id=task_id, limit=_MOST):
        upto = tuple(c for c in page if c.revision <= mine.revision)
        there = replicator.target.changes(cursor, task_id=task_id, limit=_MOST)
        if upto != there[: len(upto)]:
            pointer = f"/feed/{page[0].revision}"
            out.append(
                Mismatch(task_id=task_id, pointer=pointer, source=len(upto), target=len(there))
            )
            break
        if upto:
            number = upto[-1].cursor.number
        if len(upto) < _MOST:
            break
        cursor = page[-1].cursor
    head = Head(lineage=mine.lineage, revision=mine.revision, number=number, chain=mine.chain)
    return head, out


def _compare(
    source: RegistryStore, target: RegistryStore, mine: TaskSnapshot, other: TaskSnapshot
) -> tuple[int, list[Mismatch]]:
    task_id = mine.task.task_id
    out = list(_differences(mine, other))
    count = 1 + sum(len(getattr(mine, part)) for part in _FIELDS)
    for kind in HISTORIES:
        query = RecordQuery(task_id=task_id)
        # Writers continue during both listings: records after this revision are left out below.
        mine_listed = list(all_records(source, kind, query))
        others_listed = list(all_records(target, kind, query))
        if mine_listed == others_listed:
            count += len(mine_listed)
            continue
        left = {record_key(r): r for r in mine_listed}
        right = {record_key(r): r for r in others_listed}
        later = _later(source, mine) if left.keys() != right.keys() else set[str]()
        for key in left.keys() | right.keys():
            if key not in later:
                count += 1
                if left.get(key) != right.get(key):
                    out += _fields(task_id, f"/{kind}/{key}", left.get(key), right.get(key))
    return count, out[:_MOST]


def _later(source: RegistryStore, snapshot: TaskSnapshot) -> set[str]:
    """Return the ids of the records that were committed after a revision."""
    out, cursor = set[str](), None
    task_id = snapshot.task.task_id
    while page := source.changes(cursor, task_id=task_id, limit=1000):
        for change in page:
            if change.revision > snapshot.revision:
                out |= {record_key(op.record) for op in change.changeset.ops if isinstance(op, Put)}
        cursor = page[-1].cursor
    return out


def compare_snapshots(mine: TaskSnapshot, other: TaskSnapshot) -> list[Mismatch]:
    """Return the differences of two snapshots of one task."""
    return list(_differences(mine, other))


def _differences(mine: TaskSnapshot, other: TaskSnapshot) -> Iterator[Mismatch]:
    task_id = mine.task.task_id
    for name in ("lineage", "revision", "updated_at"):
        a, b = getattr(mine, name), getattr(other, name)
        if a != b:
            yield Mismatch(task_id=task_id, pointer=f"/{name}", source=str(a), target=str(b))
    yield from _fields(task_id, "/task", mine.task, other.task)
    for part in (*_FIELDS, "latest"):
        left = {record_key(r): r for r in getattr(mine, part)}
        right = {record_key(r): r for r in getattr(other, part)}
        for key in sorted(left.keys() | right.keys()):
            yield from _fields(task_id, f"/{part}/{key}", left.get(key), right.get(key))


def _fields(task_id: str, pointer: str, a: Record | None, b: Record | None) -> Iterator[Mismatch]:
    if a == b:
        return
    if a is None or b is None:
        yield Mismatch(task_id=task_id, pointer=pointer, source=_plain(a), target=_plain(b))
        return
    for field in dataclasses.fields(a):
        left, right = getattr(a, field.name), getattr(b, field.name)
        if left != right:
            yield Mismatch(
                task_id=task_id,
                pointer=f"{pointer}/{field.name}",
                source=_plain(left),
                target=_plain(right),
            )


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int | bool):
        return value
    return str(value)
