"""Absorb a foreign edit by a three-way merge, record by record, without replacing our state.

A legacy program rewrites the whole document from what it read, perhaps long before. A comparison
with the nearest state that the document really had separates what the program changed from what it
only wrote back, so that changes acknowledged in between are neither removed nor undone. Where both
changed the same field, ours stays and the conflict is reported.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from registry_api.records import (
    ACTIVE_AGENT,
    KINDS,
    PARTS,
    Agent,
    Changeset,
    Delete,
    History,
    Kind,
    Op,
    ProgressEntry,
    Put,
    Record,
    TaskState,
    json_text,
    record_key,
)

__all__ = ["Key", "Merge", "compared", "differing", "merge", "nearest", "touched"]

_REPORTED = ("status", "progress", "last_update")
Key = tuple[Kind, str]

_MOST, _LONGEST = 100, 200  # fields of a report, characters of a value


@dataclass(slots=True)
class Merge:
    """The ops that turn our state into the merged one, and the conflicts, in which ours stays.

    ``fields`` are those of ``compared``, if there are conflicts.
    """

    ops: list[Op] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    fields: list[dict[str, str]] = field(default_factory=list)
    fields_left_out: int = 0


def _table(state: TaskState) -> dict[Key, Record]:
    out: dict[Key, Record] = {(Kind.TASK, state.task.task_id): state.task}
    for kind in PARTS:
        for record in state.records(kind):
            out[kind, record_key(record)] = record
    return out


def _carried(mine: Record | None, theirs: Record | None) -> bool:
    """Return whether the other program may simply have written back what it read.

    A sign of life in a log moves an agent's last update without a write to the document, so an
    older value in the document is not a change.
    """
    if mine == theirs:
        return True
    if not isinstance(mine, Agent) or not isinstance(theirs, Agent) or mine.last_update is None:
        return False
    older = theirs.last_update is None or theirs.last_update < mine.last_update
    return older and dataclasses.replace(theirs, last_update=mine.last_update) == mine


def differing(ours: TaskState, theirs: TaskState) -> set[Key]:
    """Return the keys of the records in which a document differs from a state.

    Handovers in files of their own are not in the document and do not count as a difference.
    """
    mine, other = _table(ours), _table(theirs)
    return {
        key
        for key in mine.keys() | other.keys()
        if not _carried(mine.get(key), other.get(key))
        and not (key[0] is Kind.HANDOVER and key not in other)
    }


def touched(changeset: Changeset) -> frozenset[Key]:
    """Return the keys of the records that a change may have made differ from the state before."""
    out = set[Key]()
    for op in changeset.ops:
        if isinstance(op, Delete):
            out.add((op.kind, op.key))
        elif isinstance(op.record, ProgressEntry):
            out.add((Kind.AGENT, op.record.agent_id))
        elif not isinstance(op.record, History):
            out.add((KINDS[type(op.record)], record_key(op.record)))
    return frozenset(out)


def nearest(theirs: TaskState, recent: Iterable[tuple[TaskState, frozenset[Key]]]) -> TaskState:
    """Return the newest of the states from which ``theirs`` differs in the fewest fields.

    ``recent`` is newest first and not empty: each state with the keys of the records in which it
    may differ from the next one, the state before it. Only these are compared again.
    """
    states = iter(recent)
    best, changed = next(states)
    other = _table(theirs)
    apart = {key: _apart(best, other, key) for key in differing(best, theirs)}
    distance = least = sum(apart.values())
    for state, following in states:
        if least == 0:
            break
        for key in changed:
            distance -= apart.get(key, 0)
            apart[key] = _apart(state, other, key)
            distance += apart[key]
        if distance < least:
            best, least = state, distance
        changed = following
    return best


def _apart(state: TaskState, other: dict[Key, Record], key: Key) -> int:
    mine, theirs = state.record(*key), other.get(key)
    if _carried(mine, theirs) or (key[0] is Kind.HANDOVER and theirs is None):
        return 0
    return _fields_apart(mine, theirs)


def _fields_apart(a: Record | None, b: Record | None) -> int:
    if a is None or b is None:
        return len(dataclasses.fields(a or b))  # type: ignore[arg-type]
    return sum(getattr(a, f.name) != getattr(b, f.name) for f in dataclasses.fields(a))


def merge(
    base: TaskState,
    ours: TaskState,
    theirs: TaskState,
    *,
    foreign_agents: set[str],
    sure: bool = True,
) -> Merge:
    """Merge what changed from ``base`` to ``theirs`` into ``ours``.

    ``foreign_agents`` are the agents that other programs created; they may remove only those.
    ``sure`` False: ``base`` may not be the state that they read. Then only what they added is
    taken; other changes are conflicts.
    """
    out = Merge()
    was, mine, other = _table(base), _table(ours), _table(theirs)
    for key, record in other.items():
        if _carried(was.get(key), record):
            continue
        if not sure and key in mine:
            out.conflicts.append(
                f"{key[0]} {key[1]}: perhaps based on a state before our changes; ours stays"
            )
            continue
        _take(out, key, was.get(key), mine.get(key), record)
    for key in was.keys() & mine.keys() - other.keys():
        kind, name = key
        if kind is Kind.HANDOVER:
            continue
        theirs_to_remove = sure and kind is Kind.AGENT and name in foreign_agents
        if theirs_to_remove and was[key] == mine[key]:
            out.ops.append(Delete(Kind.AGENT, name))
        else:
            out.conflicts.append(f"{kind} {name}: removed by the other program; kept")
    if out.conflicts:
        out.fields, out.fields_left_out = compared(base, ours, theirs)
    return out


def compared(
    base: TaskState, ours: TaskState | None, theirs: TaskState
) -> tuple[list[dict[str, str]], int]:
    """Return each field that another program changed: its value before, theirs and ours.

    At most 100 fields, and how many are left out; of long values the part around the first
    difference. ``ours`` is missing if nobody can say.
    """
    was, other = _table(base), _table(theirs)
    mine = _table(ours) if ours is not None else {}
    found: list[dict[str, str]] = []
    for key, record in other.items():
        old, now = was.get(key), mine.get(key)
        if _carried(old, record):
            continue
        for name in (f.name for f in dataclasses.fields(record)):
            before = getattr(old, name) if old is not None else None
            new = getattr(record, name)
            if new == before or (new in (None, "", "{}", "[]") and old is None):
                continue
            current = getattr(now, name) if now is not None else None
            said = _cut(*("" if v is None else str(v) for v in (before, new, current)))
            found.append({"record": f"{key[0]} {key[1]}", "field": name, **said})
    removed = [key for key in was.keys() - other.keys() if key[0] is not Kind.HANDOVER]
    for kind, name in sorted(removed):
        there = "there" if (kind, name) in mine else "removed"
        said = {"before": "there", "theirs": "removed", "ours": there}
        found.append({"record": f"{kind} {name}", "field": "", **said})
    return found[:_MOST], max(0, len(found) - _MOST)


def _cut(before: str, theirs: str, ours: str) -> dict[str, str]:
    """Return three values, of long ones the part around the first difference."""
    start = 0
    if max(map(len, (before, theirs, ours))) > _LONGEST:
        same = os.path.commonprefix([theirs, before or theirs, ours or theirs])  # noqa: RUF071  (of texts)
        start = max(0, len(same) - 40)
    sides = {"before": before, "theirs": theirs, "ours": ours}
    return {side: _part(value, start) for side, value in sides.items()}


def _part(value: str, start: int) -> str:
    part = value[start : start + _LONGEST]
    head = "…" if start and part else ""
    return head + part + ("…" if start + _LONGEST < len(value) else "")


def _take(out: Merge, key: Key, was: Record | None, mine: Record | None, theirs: Record) -> None:
    if mine is None:
        if was is None:
            out.ops.append(Put(theirs))
        else:
            out.conflicts.append(f"{key[0]} {key[1]}: changed by the other program; we removed it")
        return
    if mine == theirs:
        return
    merged, conflicts = _fields(was, mine, theirs)
    out.conflicts += [f"{key[0]} {key[1]}/{c}" for c in conflicts]
    if merged != mine:
        out.ops.append(Put(merged))


def _fields(was: Record | None, mine: Any, theirs: Any) -> tuple[Record, list[str]]:
    changed: dict[str, Any] = {}
    conflicts: list[str] = []
    reported = isinstance(mine, Agent) and _report(was, mine, theirs, changed, conflicts)
    for name in (f.name for f in dataclasses.fields(mine)):
        if reported and name in _REPORTED:
            continue
        old = getattr(was, name) if was is not None else None
        now, new = getattr(mine, name), getattr(theirs, name)
        if new == now or (was is not None and new == old):
            continue
        if name == "extra":
            text, clashes = _extra(old or "{}", now, new)
            changed[name] = text
            conflicts += [f"extra/{c}: {_brief(new)}; ours stays" for c in clashes]
        elif was is not None and now == old:
            changed[name] = new
        else:
            conflicts.append(f"{name}: {_brief(new)}, ours {_brief(now)} stays")
    return dataclasses.replace(mine, **changed), conflicts


def _report(
    was: Record | None, mine: Agent, theirs: Agent, changed: dict[str, Any], conflicts: list[str]
) -> bool:
    """Merge an agent's status, progress and last update as one report: the newer one wins."""
    said = tuple(getattr(theirs, n) for n in _REPORTED)
    if isinstance(was, Agent) and said == tuple(getattr(was, n) for n in _REPORTED):
        return True
    if mine.status not in ACTIVE_AGENT:
        if theirs.status is not mine.status:
            conflicts.append(f"status: {theirs.status}, but ours ended as {mine.status}")
        return True
    newer = theirs.last_update is not None and (
        mine.last_update is None or theirs.last_update >= mine.last_update
    )
    # An end is not a report: it is taken even if the other program's clock says that it is older.
    if newer or theirs.status not in ACTIVE_AGENT or not isinstance(was, Agent):
        changed |= dict(zip(_REPORTED, said, strict=True))
    elif (was.status, was.progress) != (theirs.status, theirs.progress):
        untouched = (was.status, was.progress) == (mine.status, mine.progress)
        if untouched:
            changed |= {"status": theirs.status, "progress": theirs.progress}
        else:
            conflicts.append(f"status: {theirs.status} {theirs.progress} %, older than ours")
    return True


def _extra(old: str, mine: str, theirs: str) -> tuple[str, list[str]]:
    was, ours, other = (_keys(text) for text in (old, mine, theirs))
    clashes = []
    for key, value in other.items():
        if key in was and was[key] == value:
            continue
        if key not in ours or (key in was and ours[key] == was[key]) or ours[key] == value:
            ours[key] = value
        else:
            clashes.append(key)
    for key in was.keys() - other.keys():
        if ours.get(key) == was[key]:
            del ours[key]
    return json_text.dump_text(ours), clashes


def _keys(text: str) -> dict[str, Any]:
    value: dict[str, Any] = json_text.parse_trusted(text.encode())
    return value


def _brief(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def changed_records(before: TaskState, after: TaskState) -> Iterator[tuple[Record | None, Record]]:
    """Yield (before, after) of every record that a change added or changed."""
    was = _table(before)
    for key, record in _table(after).items():
        old = was.get(key)
        if old is not record and old != record:
            yield old, record


def shows(before: TaskState, after: TaskState, found: TaskState) -> bool:
    """Return whether a document shows that the change from ``before`` to ``after`` reached it.

    It does if any field that the change set has its new value.
    """
    table = _table(found)
    for old, new in changed_records(before, after):
        there = table.get((KINDS[type(new)], record_key(new)))
        if there is None:
            continue
        if old is None:
            return True
        for name in (f.name for f in dataclasses.fields(new)):
            now = getattr(new, name)
            if now != getattr(old, name) and getattr(there, name) == now:
                return True
    return False
