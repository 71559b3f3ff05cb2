"""What the lines of a journal say, up to the offset to which it was read."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from backends.json_files.journal.file import KnownIds
from backends.json_files.journal.lines import FOREIGN, History, change_line, history_lines
from backends.json_files.journal.recent_states import RecentStates
from backends.json_files.merge import touched
from registry_api.records import (
    HISTORIES,
    KINDS,
    Change,
    Head,
    Kind,
    ProgressEntry,
    Put,
    TaskState,
    changeset_from,
    decode_record,
    dump,
    dump_changeset,
    encode_record,
    record_key,
    unstamp,
)

__all__ = ["JournalState", "Stand", "head_of"]

_IDS_A_RECORD = 8  # so many ids take about the memory of one record


class Stand(NamedTuple):
    """A task's state and its revision; immutable, and replaced as a whole."""

    lineage: str
    revision: int
    number: int
    chain: str
    updated_at: datetime
    state: TaskState


def head_of(stand: Stand) -> Head:
    """Return a task's head."""
    return Head(
        lineage=stand.lineage, revision=stand.revision, number=stand.number, chain=stand.chain
    )


@dataclass(slots=True)
class JournalState:
    """The state of a task as its journal tells it; the file is read up to the offset ``size``."""

    inode: int = -1
    size: int = 0
    base: int = -1  # the offset of the newest base line, -1 without one
    base_number: int = 0  # the feed number there
    tail: int = 0  # bytes of lines after it
    lineage: str = ""
    revision: int = 0
    number: int = 0
    chain: str = ""
    hash: str = ""
    is_synced: bool = False  # the text of ``hash`` is on disk; else a write syncs it first
    updated_at: datetime | None = None
    held: TaskState | None = None  # the current state, None if it was evicted
    stand: Stand | None = None  # for readers without the lock
    counts: dict[Kind, int] = field(default_factory=dict)
    logs: dict[str, int] | None = field(default_factory=dict)  # None if evicted
    expired_before: datetime | None = None
    floor: int = 0
    oldest_kept: datetime | None = None
    recent: RecentStates = field(default_factory=RecentStates)
    reaches_back: bool = False  # ``recent`` has the states of the last 15 minutes
    foreign_agents: set[str] = field(default_factory=set)
    ids: KnownIds | None = None
    entry_ids: set[tuple[Kind, str]] | None = None
    places: dict[int, int] = field(default_factory=dict)  # by feed number: end of its line

    def weight(self) -> int:
        """Return roughly how many records it holds in memory."""
        state = self.held
        ids = (len(self.ids or ()) + len(self.entry_ids or ())) // _IDS_A_RECORD
        if state is None:
            return 1 + ids
        return len(state.agents) + len(state.phases) + len(state.verdicts) + ids

    def evict(self) -> None:
        """Drop what can be reloaded."""
        self.ids, self.entry_ids, self.places = None, None, {}
        if self.stand is not None:
            self.held, self.stand, self.logs = None, None, None
            del self.recent, self.foreign_agents

    # -- applying lines ----------------------------------------------------------------------

    def take(self, line: dict[str, Any], *, offset: int, length: int) -> None:
        """Apply one line."""
        kind = line["k"]
        if kind == "history":
            return
        if kind == "base":
            self.base, self.base_number, self.tail = offset, line["n"], 0
            if self.held is not None:
                return
            self._take_base(line)
        elif kind == "change" and line["r"] <= self.revision:
            # The feed of a replaced task: it follows the base line, which already holds its state.
            self.number = max(self.number, line["n"])
        else:
            self._take_later(line, length)
        if self.held is not None and self.updated_at is not None:
            self.stand = Stand(
                self.lineage, self.revision, self.number, self.chain, self.updated_at, self.held
            )

    def _take_later(self, line: dict[str, Any], length: int) -> None:
        assert self.logs is not None
        self.tail += length
        if line["h"] != self.hash:
            self.is_synced = line["k"] == "change" and line["cs"]["actor"] != FOREIGN
        self.hash = line["h"]
        self.logs.update(line["logs"])
        if line["k"] == "change":
            self._take_change(line)

    def _take_change(self, line: dict[str, Any]) -> None:
        changeset = changeset_from(line["cs"])
        self.lineage, self.revision, self.number = line["l"], line["r"], line["n"]
        self.chain = line.get("c", "")
        self.updated_at = changeset.at
        if line.get("x"):
            self.expired_before, self.floor = unstamp(line["x"]), line["f"]
        state = self.held.copy() if self.held else TaskState.created_by(changeset)
        for op in changeset.ops:
            state.apply(op, known=lambda *_: False)
            if isinstance(op, Put):
                kind = KINDS[type(op.record)]
                if kind in HISTORIES:
                    self.counts[kind] = self.counts.get(kind, 0) + 1
                    if self.entry_ids is not None:
                        self.entry_ids.add((kind, record_key(op.record)))
                elif kind is Kind.AGENT and changeset.actor == FOREIGN:
                    known = self.held.agents if self.held else {}
                    self.foreign_agents |= {record_key(op.record)} - known.keys()
        self.held = state
        if self.ids is not None:
            self.ids[changeset.id] = (line["r"], line["n"], line["d"])
        self.recent.add(
            state,
            changeset.at,
            touched(changeset),
            appends=changeset.expected is None,
            shown=not line.get("mid"),
        )

    def _take_base(self, line: dict[str, Any]) -> None:
        records = [decode_record(item) for item in line["state"]]
        task = next(r for r in records if KINDS[type(r)] is Kind.TASK)
        state = TaskState(task)  # type: ignore[arg-type]
        for record in records:
            state.apply(Put(record), known=lambda *_: False)
        state.latest = {}
        for item in line["latest"]:
            entry = decode_record(item)
            assert isinstance(entry, ProgressEntry)
            state.latest[entry.agent_id] = entry
        self.held = state
        self.lineage, self.revision, self.hash = line["l"], line["r"], line["h"]
        self.is_synced = line.get("w", False)
        self.number, self.chain = line["n"], line.get("c", "")
        self.updated_at = unstamp(line["at"])
        self.counts = {Kind(k): n for k, n in line["counts"].items()}
        self.logs = dict(line["logs"])
        self.expired_before = unstamp(line["x"]) if line["x"] else None
        self.floor = line["f"]
        self.foreign_agents = set(line["fa"])
        self.recent.add(state, self.updated_at, frozenset(), appends=False, shown=True)

    def base_line(self) -> bytes:
        """Return the line that holds all of it."""
        state = self.held
        assert state is not None
        records = [
            encode_record(r) for kind in Kind if kind not in HISTORIES for r in state.records(kind)
        ]
        line = {
            "k": "base",
            "l": self.lineage,
            "r": self.revision,
            "n": self.number,
            "c": self.chain,
            "h": self.hash,
            "w": self.is_synced,
            "at": self.updated_at,
            "b": self.base,
            "state": records,
            "latest": [encode_record(e) for e in state.latest.values()],
            "counts": {str(kind): n for kind, n in self.counts.items()},
            "logs": self.logs,
            "x": self.expired_before,
            "f": self.floor,
            "fa": sorted(self.foreign_agents),
        }
        return dump(line) + b"\n"

    def whole(self, histories: list[History], feed: tuple[Change, ...]) -> bytes:
        """Return the text of a journal with this state and the feed that led to it.

        ``histories`` are the history records that are not in that feed.
        """
        lines = [self.base_line(), *history_lines(histories, self.updated_at)]
        lines += (
            change_line(
                change.changeset,
                digest=change.digest,
                chain=change.chain,
                text=dump_changeset(change.changeset).decode(),
                revision=change.revision,
                number=change.cursor.number,
                hash_after=self.hash,
                logs={},
                lineage=change.lineage,
                base=0,
            )
            for change in feed
        )
        return b"".join(lines)
