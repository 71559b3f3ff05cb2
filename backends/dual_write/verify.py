"""Compare two stores: records rebuilt from both sides, field by field."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from backends.dual_write.mirror import Mirror
from registry_api.errors import TaskNotFound
from registry_api.migration import Mismatch, Progress, VerifyReport
from registry_api.models import Kind, Record, record_key
from registry_api.query import RecordQuery
from registry_api.silence import all_records
from registry_api.snapshot import TaskSnapshot
from registry_api.store import RegistryStore

__all__ = ["compare_snapshots", "compare_task", "verify_tasks"]

_ATTEMPTS = 20
_MOST = 1000
_PARTS = ("phases", "agents", "reviews", "verdicts", "handovers", "latest")


def verify_tasks(
    mirror: Mirror, task_ids: list[str], *, progress: Progress | None = None
) -> VerifyReport:
    """Compare tasks beside their writers: each at a revision that both stores have."""
    records, mismatches = 0, list[Mismatch]()
    for done, task_id in enumerate(task_ids):
        found, differences = compare_task(mirror, task_id)
        records += found
        mismatches += differences
        if progress is not None:
            progress("verify", done + 1, len(task_ids))
    return VerifyReport(tasks=len(task_ids), records=records, mismatches=tuple(mismatches[:_MOST]))


def compare_task(mirror: Mirror, task_id: str) -> tuple[int, list[Mismatch]]:
    """Return (records compared, differences) of one task.

    A task that moves on while it is read is brought up to date and read again; what is only in
    flight is never a difference.
    """
    found = 0, list[Mismatch]()
    for _ in range(_ATTEMPTS):
        mirror.heal(task_id)
        before = mirror.source.head(task_id)
        found = _compare(mirror.source, mirror.target, task_id)
        if not found[1] or mirror.source.head(task_id) == before:
            return found
    return found


def _compare(
    source: RegistryStore, target: RegistryStore, task_id: str
) -> tuple[int, list[Mismatch]]:
    try:
        mine = source.load(task_id)
    except TaskNotFound:
        return 0, []
    try:
        other = target.load(task_id)
    except TaskNotFound:
        return 0, [Mismatch(task_id=task_id, pointer="", source=mine.revision, target=None)]
    out = list(_differences(mine, other))
    count = 1 + sum(len(getattr(mine, part)) for part in _PARTS[:-1])
    for kind in (Kind.PROGRESS, Kind.FINDING):
        query = RecordQuery(task_id=task_id)
        pairs = zip_longest(
            all_records(source, kind, query), all_records(target, kind, query), fillvalue=None
        )
        for a, b in pairs:
            count += 1
            if a != b:
                out += _fields(task_id, f"/{kind}/{record_key(a or b)}", a, b)  # type: ignore[arg-type]
                if len(out) > _MOST:
                    return count, out
    return count, out


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
    for part in _PARTS:
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
