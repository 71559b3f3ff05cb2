"""The keys and values of a registry in an ordered key-value engine.

Keys are parts joined by U+0000, which no id holds, so that one scan finds what belongs together::

    task   <task>                  its revision, summary and counts (TaskLine)
    chain  <task>                  its chain: programs that know none leave it behind
    record <kind> <task> <key>     its records, including histories
    latest <task> <agent>          the agent's newest report that is not foreign
    change <number>                the feed in its order; 16 hexadecimal digits
    turn   <task> <number>         the feed numbers of one task
    id     <task> <changeset>      the feed number of a changeset id
    stamp  <name>                  texts kept for a move
    meta   feed | number | floor   the feed's id, its last number, the highest trimmed number
    meta   mirrored                set if this store is a replica
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

import orjson

from registry_api.authoring.idempotency import check_same_content
from registry_api.records.chain import chain_of
from registry_api.records.changeset import (
    Change,
    Changeset,
    Commit,
    FeedCursor,
    Put,
    changeset_from,
    commit_of,
    dump_changeset,
)
from registry_api.records.codec import decode_record, dump, encode_record, unstamp
from registry_api.records.models import HISTORIES, KINDS, Kind, Record, record_key
from registry_api.records.snapshot import Head, TaskSummary
from registry_api.records.status import TaskStatus
from registry_api.records.task_state import TaskState

__all__ = [
    "Batch",
    "TaskLine",
    "View",
    "chain_in",
    "change_from",
    "digits",
    "drop_change",
    "drop_feed",
    "drop_task",
    "head_in",
    "heads_in",
    "key_of",
    "known_in",
    "meta_number",
    "meta_text",
    "put_chain",
    "put_change",
    "put_changed",
    "put_meta",
    "put_record",
    "records_below",
    "replayed",
    "same_in",
    "span_of",
    "state_of",
    "sure",
    "task_lines",
]


_STATE = tuple(kind for kind in Kind if kind not in {*HISTORIES, Kind.TASK})


class View(Protocol):
    """A consistent snapshot of the engine, whatever is written meanwhile."""

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, or None. Keys are at most 300 bytes."""

    def scan(self, first: bytes, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) for ``first`` <= key < ``last``, in the order of the keys' bytes."""


class Batch(View, Protocol):
    """A writable view, which sees its own puts and deletes."""

    def put(self, key: bytes, value: bytes) -> None:
        """Set a key; a value may be as large as the largest changeset, 16 MiB."""

    def delete(self, key: bytes) -> None:
        """Remove a key, if it is there."""


def key_of(*parts: str) -> bytes:
    """Join the parts of a key."""
    return "\0".join(parts).encode(errors="surrogatepass")  # a query may hold these; no id does


def span_of(*parts: str) -> tuple[bytes, bytes]:
    """Return the bounds of all keys that begin with these parts."""
    prefix = key_of(*parts)
    return prefix + b"\0", prefix + b"\1"


def digits(number: int) -> str:
    """Format a number so that texts sort in numeric order."""
    return f"{number:016x}"


@dataclass(slots=True, kw_only=True)
class TaskLine:
    """A task's revision, and everything that registry-wide answers need from the task."""

    lineage: str
    revision: int = 0
    number: int = 0
    floor: int = 0
    expired_before: datetime | None = None
    kept: int = 0  # number of feed lines that it has
    summary: TaskSummary | None = None
    agents: Counter[str] = field(default_factory=Counter)
    records: Counter[str] = field(default_factory=Counter)

    @classmethod
    def read(cls, view: View, task_id: str) -> TaskLine | None:
        """Return the line of a task, None if there is no such task."""
        raw = view.get(key_of("task", task_id))
        return None if raw is None else cls.decode(raw)

    @classmethod
    def decode(cls, raw: bytes) -> TaskLine:
        """Build it from its stored form."""
        data: dict[str, Any] = orjson.loads(raw)
        summary, expired = data.pop("summary"), data.pop("expired_before")
        for name, of in (
            ("created_at", unstamp),
            ("updated_at", unstamp),
            ("status", TaskStatus),
            ("recorded_status", TaskStatus),
        ):
            summary[name] = of(summary[name])
        data["agents"], data["records"] = Counter(data["agents"]), Counter(data["records"])
        return cls(
            **data,
            summary=TaskSummary(**summary),
            expired_before=unstamp(expired) if expired else None,
        )

    def head(self, chain: str) -> Head:
        """Return the task's head; ``chain`` is the one that is stored."""
        return Head(
            lineage=self.lineage,
            revision=self.revision,
            number=self.number,
            chain=chain_of(chain, self.revision),
        )

    def show(self, state: TaskState, updated_at: datetime) -> None:
        """Update the summary and the counts from a state."""
        self.summary = state.snapshot(self.lineage, self.revision, updated_at).summary()
        self.agents = Counter(str(a.status) for a in state.agents.values())
        for kind in _STATE:
            self.records[str(kind)] = sum(1 for _ in state.records(kind))


def sure(value: bytes | None) -> bytes:
    """Return a value that must exist, since another key refers to it."""
    assert value is not None
    return value


def meta_text(view: View, name: str) -> str:
    """Return a text about the whole registry, empty if there is none."""
    return (view.get(key_of("meta", name)) or b"").decode()


def meta_number(view: View, name: str) -> int:
    """Return a number about the whole registry, 0 if there is none."""
    return int(meta_text(view, name) or 0)


def put_meta(batch: Batch, name: str, value: str) -> None:
    """Store a text about the whole registry."""
    batch.put(key_of("meta", name), value.encode())


def task_lines(view: View) -> Iterator[TaskLine]:
    """Iterate over the lines of all tasks."""
    return (TaskLine.decode(raw) for _, raw in view.scan(*span_of("task")))


def chain_in(view: View, task_id: str, line: TaskLine | None) -> str:
    """Return the chain of a task, empty if it is not known."""
    return head_in(view, task_id, line).chain


def put_chain(batch: Batch, task_id: str, chain: str) -> None:
    """Store the chain of a task."""
    batch.put(key_of("chain", task_id), chain.encode())


def head_in(view: View, task_id: str, line: TaskLine | None) -> Head:
    """Return the head of a task; None: there is no such task."""
    if line is None:
        return Head()
    return line.head((view.get(key_of("chain", task_id)) or b"").decode())


def heads_in(view: View) -> Iterator[tuple[str, Head]]:
    """Iterate over the heads of all tasks, in two scans."""
    start = len(key_of("chain", ""))
    chains = {key[start:].decode(): raw.decode() for key, raw in view.scan(*span_of("chain"))}
    for line in task_lines(view):
        assert line.summary is not None
        task_id = line.summary.task_id
        yield task_id, line.head(chains.get(task_id, ""))


def records_below(view: View, *parts: str) -> Iterator[Any]:
    """Iterate over the records whose keys begin with the parts."""
    return (decode_record(orjson.loads(raw)) for _, raw in view.scan(*span_of(*parts)))


def state_of(view: View, task_id: str) -> TaskState:
    """Return the records of an existing task, without its histories."""
    task: Any = decode_record(orjson.loads(sure(view.get(key_of("record", Kind.TASK, task_id)))))
    state = TaskState(task)
    for kind in _STATE:
        for record in records_below(view, "record", kind, task_id):
            state.apply(Put(record), known=lambda *_: False)
    state.latest = {entry.agent_id: entry for entry in records_below(view, "latest", task_id)}
    return state


def put_record(batch: Batch, record: Record) -> None:
    """Write one record."""
    kind = KINDS[type(record)]
    own = () if kind is Kind.TASK else (record_key(record),)
    batch.put(key_of("record", kind, record.task_id, *own), dump(encode_record(record)))


def known_in(view: View, task_id: str, kind: Kind, key: str) -> bool:
    """Return whether there is a record of that key."""
    return view.get(key_of("record", kind, task_id, key)) is not None


def same_in(view: View, record: Record) -> bool:
    """Return whether exactly this record is stored."""
    kind = KINDS[type(record)]
    return view.get(key_of("record", kind, record.task_id, record_key(record))) == dump(
        encode_record(record)
    )


def put_changed(batch: Batch, before: TaskState | None, after: TaskState) -> None:
    """Write what differs between two states of a task; None: there was none."""
    task_id = after.task.task_id
    if before is None or before.task is not after.task:
        put_record(batch, after.task)
    for kind in _STATE:
        old = {record_key(r): r for r in before.records(kind)} if before else {}
        new = {record_key(r): r for r in after.records(kind)}
        for key in old.keys() - new.keys():
            batch.delete(key_of("record", kind, task_id, key))
        for key, record in new.items():
            if old.get(key) is not record:
                put_record(batch, record)
    for agent_id, entry in after.latest.items():
        if before is None or before.latest.get(agent_id) is not entry:
            batch.put(key_of("latest", task_id, agent_id), dump(encode_record(entry)))


def put_change(batch: Batch, change: Change) -> None:
    """Write a feed line and its entries under the task's numbers and changeset ids."""
    task_id, number = change.changeset.task_id, digits(change.cursor.number)
    head = {
        "n": change.cursor.number,
        "l": change.lineage,
        "r": change.revision,
        "d": change.digest,
        "c": change.chain,
        "cs": orjson.Fragment(dump_changeset(change.changeset)),
    }
    batch.put(key_of("change", number), dump(head))
    batch.put(key_of("turn", task_id, number), number.encode())
    batch.put(key_of("id", task_id, str(change.changeset.id)), number.encode())
    put_meta(batch, "feed", change.cursor.feed_id)
    put_meta(batch, "number", str(max(change.cursor.number, meta_number(batch, "number"))))


def drop_change(batch: Batch, change: Change) -> None:
    """Remove a feed line together with its changeset id."""
    task_id, number = change.changeset.task_id, digits(change.cursor.number)
    batch.delete(key_of("change", number))
    batch.delete(key_of("turn", task_id, number))
    batch.delete(key_of("id", task_id, str(change.changeset.id)))


def drop_feed(batch: Batch) -> None:
    """Remove every feed line; the tasks keep their revisions."""
    for part in ("change", "turn", "id"):
        for key, _ in list(batch.scan(*span_of(part))):
            batch.delete(key)
    for key, raw in list(batch.scan(*span_of("task"))):
        line = TaskLine.decode(raw)
        line.kept = line.floor = 0
        batch.put(key, dump(line))


def drop_task(batch: Batch, task_id: str) -> None:
    """Remove a task's records, histories and feed, but not its line."""
    for _, number in list(batch.scan(*span_of("turn", task_id))):
        drop_change(batch, change_from(sure(batch.get(key_of("change", number.decode()))), ""))
    spans = [span_of("record", kind, task_id) for kind in Kind] + [span_of("latest", task_id)]
    for span in spans:
        for key, _ in list(batch.scan(*span)):
            batch.delete(key)


def change_from(raw: bytes, feed_id: str) -> Change:
    """Build a feed line from its stored form."""
    data = orjson.loads(raw)
    return Change(
        cursor=FeedCursor(feed_id=feed_id, number=data["n"]),
        lineage=data["l"],
        revision=data["r"],
        changeset=changeset_from(data["cs"]),
        digest=data["d"],
        chain=data.get("c", ""),
    )


def replayed(view: View, changeset: Changeset, digest: str) -> Commit | None:
    """Return the commit of a known changeset, else None; raises IdempotencyMismatch."""
    number = view.get(key_of("id", changeset.task_id, str(changeset.id)))
    if number is None:
        return None
    change = change_from(sure(view.get(key_of("change", number.decode()))), meta_text(view, "feed"))
    check_same_content(changeset, digest, change.digest)
    return replace(commit_of(change), replayed=True)
