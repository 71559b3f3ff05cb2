"""What became of agents and tasks within the last day, computed from their records.

The records of the last day are read once, in the background; then the index of active agents hands
on each task that changes. Counts are kept by the minute: a day may have a million agents.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from dashboard.views.task_rows import last_record
from registry_api import (
    Agent,
    AsyncStore,
    Handover,
    Kind,
    Phase,
    Record,
    RecordQuery,
    TaskQuery,
    TaskSnapshot,
    TaskStatus,
    Verdict,
)
from registry_api.errors import RegistryError
from registry_api.records import ACTIVE_AGENT, FAILED_AGENT, TERMINAL_AGENT

__all__ = ["LastDay", "Recent"]

log = logging.getLogger("registry_backend")
HOUR, DAY = 60, 1440  # minutes
BUCKETS = 60
_EVERY = 15.0  # seconds from one look for missing records to the next
_RESTING = 2.0  # times as long as a page took to read: requests come first
_PAGE = 500
_ENDED = (TaskStatus.COMPLETED, TaskStatus.FAILED)

CatchUp = Callable[[], Iterable[str]]
Row = tuple[int, int, int]
"""Agents of a bucket: active at its end, completed in it, failed in it."""


class _Span(NamedTuple):
    """The time for which an agent was active, in minutes since the epoch; no end: it still is."""

    start: int
    end: int | None
    failed: bool


class _Entry(NamedTuple):
    """A task: its agents, and its status and when it got it if that is COMPLETED or FAILED."""

    spans: tuple[_Span, ...]
    status: TaskStatus | None = None
    ended: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recent:
    """The last hour and the last day in 60 buckets each, the oldest first; what ended within the
    last day: the number of tasks and of agents, and the newest tasks by id.
    """

    hour: tuple[Row, ...]
    day: tuple[Row, ...]
    tasks: dict[TaskStatus, int]
    newest: dict[TaskStatus, list[str]]
    agents: dict[TaskStatus, int]


@dataclass(slots=True)
class _Counts:
    """Numbers by the minute: agents that began, completed and failed; tasks that ended."""

    began: Counter[int] = field(default_factory=Counter)
    ended: dict[bool, Counter[int]] = field(
        default_factory=lambda: {False: Counter(), True: Counter()}
    )
    tasks: dict[TaskStatus, dict[int, dict[str, None]]] = field(
        default_factory=lambda: {status: defaultdict(dict) for status in _ENDED}
    )

    def add(self, task_id: str, entry: _Entry) -> None:
        """Count a task and its agents."""
        for span in entry.spans:
            self.began[span.start] += 1
            if span.end is not None:
                self.ended[span.failed][span.end] += 1
        if entry.status is not None:
            self.tasks[entry.status][entry.ended][task_id] = None

    def remove(self, task_id: str, entry: _Entry) -> None:
        """Undo ``add``."""
        for span in entry.spans:
            self.began[span.start] -= 1
            if span.end is not None:
                self.ended[span.failed][span.end] -= 1
        if entry.status is not None:
            self.tasks[entry.status][entry.ended].pop(task_id, None)

    def rows(self, now: int, length: int) -> tuple[Row, ...]:
        """Return the buckets of the last minutes up to and with the current one."""
        first, width = now - length + 1, length // BUCKETS
        change = [0] * length
        for minute, number in self.began.items():
            if minute <= now:
                change[max(0, minute - first)] += number
        ended = {failed: [0] * BUCKETS for failed in (False, True)}
        for failed, counts in self.ended.items():
            for minute, number in counts.items():
                if minute > now:
                    continue
                change[max(0, minute - first)] -= number
                if minute >= first:
                    ended[failed][(minute - first) // width] += number
        rows, active = list[Row](), 0
        for bucket in range(BUCKETS):
            active += sum(change[bucket * width : (bucket + 1) * width])
            rows.append((active, ended[False][bucket], ended[True][bucket]))
        return tuple(rows)

    def newest(self, status: TaskStatus, since: int) -> Iterator[str]:
        """Yield the tasks that ended so since a minute, those that ended last first."""
        found = self.tasks[status]
        for minute in sorted((m for m in found if m >= since), reverse=True):
            yield from reversed(found[minute])


class LastDay:
    """The last day of one store; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._counts = _Counts()
        self._noted = set[str]()  # while the records are being read
        self._filled = False
        self._starts = 0  # how often it was read from the start

    def note(self, task_id: str, snapshot: TaskSnapshot | None) -> None:
        """Take over the current state of a task; None if it is gone."""
        entry = _entry(snapshot) if snapshot else None
        with self._lock:
            self._put(task_id, entry)
            if not self._filled:
                self._noted.add(task_id)

    def forget(self) -> None:
        """Start again: changes may have been missed."""
        with self._lock:
            self._entries.clear()
            self._counts = _Counts()
            self._noted.clear()
            self._filled = False
            self._starts += 1

    def recent(self, now: datetime, *, most: int = 25) -> Recent | None:
        """Return the last hour and day, with ``most`` tasks; None until the records were read."""
        minute = _minute(now)
        since = minute - DAY + 1
        with self._lock:
            if not self._filled:
                return None
            counts = self._counts
            newest = {status: list(counts.newest(status, since)) for status in _ENDED}
            day = counts.rows(minute, DAY)
            return Recent(
                hour=counts.rows(minute, HOUR),
                day=day,
                tasks={status: len(names) for status, names in newest.items()},
                newest={status: names[:most] for status, names in newest.items()},
                agents={
                    TaskStatus.COMPLETED: sum(row[1] for row in day),
                    TaskStatus.FAILED: sum(row[2] for row in day),
                },
            )

    async def keep(self, store: AsyncStore, catch_up: CatchUp) -> None:
        """Read the records of the last day whenever they are missing, until cancelled.

        ``catch_up`` hands on what has changed and returns the ids of tasks with active agents.
        """
        while True:
            try:
                active = await asyncio.to_thread(catch_up)
                if not self._filled:
                    await self.fill(store, active)
                self._drop_old(_minute(datetime.now(UTC)))
            except RegistryError as error:  # as during a switch: tried again
                log.info("the last day cannot be read now: %s", error)
            await asyncio.sleep(_EVERY)

    async def fill(self, store: AsyncStore, active: Iterable[str]) -> None:
        """Read the records of the last day, and the agents of the tasks ``active``."""
        starts = self._starts
        since = datetime.now(UTC) - timedelta(minutes=DAY)
        spans: dict[str, dict[str, _Span | None]] = defaultdict(dict)
        ended = defaultdict[str, int](int)
        queries = [(Kind.AGENT, RecordQuery(active=True))] if active else []
        dated = (Kind.AGENT, Kind.PHASE, Kind.VERDICT, Kind.HANDOVER)
        queries += [(kind, RecordQuery(since=since)) for kind in dated]
        for kind, query in queries:
            async for record in _records(store, kind, query):
                if isinstance(record, Agent):
                    spans[record.task_id][record.agent_id] = _span(record)
                if (moment := _moment(record)) is not None:
                    ended[record.task_id] = max(ended[record.task_id], _minute(moment))
        found = {name: _Entry(_known(spans.get(name, {}).values())) for name in spans | ended}
        for status in _ENDED:
            async for task_id in _tasks(store, status):
                if task_id in found:
                    found[task_id] = _Entry(found[task_id].spans, status, ended[task_id])
        with self._lock:
            if starts != self._starts:
                return
            for task_id, entry in found.items():
                if task_id not in self._noted:  # or an older state would replace a newer one
                    self._put(task_id, entry)
            self._filled = True
            self._noted.clear()

    def _put(self, task_id: str, entry: _Entry | None) -> None:
        known = self._entries.pop(task_id, None)
        if known is not None:
            self._counts.remove(task_id, known)
        if entry is not None:
            self._entries[task_id] = entry
            self._counts.add(task_id, entry)

    def _drop_old(self, now: int) -> None:
        """Forget the tasks of which nothing is within the last day."""
        with self._lock:
            since = now - DAY
            kept = {k: e for k, e in self._entries.items() if _is_recent(e, since)}
            if len(kept) < len(self._entries):
                self._entries, self._counts = kept, _Counts()
                for task_id, entry in kept.items():
                    self._counts.add(task_id, entry)


async def _records(store: AsyncStore, kind: Kind, query: RecordQuery) -> AsyncIterator[Record]:
    after: str | None = None
    while True:
        began = time.monotonic()
        page = await store.list_records(kind, query, after=after, limit=_PAGE)
        for record in page.items:
            yield record
        after = page.next
        if after is None:
            return
        await asyncio.sleep(_RESTING * (time.monotonic() - began))


async def _tasks(store: AsyncStore, status: TaskStatus) -> AsyncIterator[str]:
    after: str | None = None
    while True:
        began = time.monotonic()
        page = await store.list_tasks(TaskQuery(status=status), after=after, limit=_PAGE)
        for task in page.items:
            yield task.task_id
        after = page.next
        if after is None:
            return
        await asyncio.sleep(_RESTING * (time.monotonic() - began))


def _minute(moment: datetime) -> int:
    return int(moment.timestamp() // 60)


def _moment(record: Record) -> datetime | None:
    """Return when a record says that something happened to its task."""
    match record:
        case Agent():
            return record.completed_at or record.last_update
        case Phase():
            return record.completed_at or record.started_at
        case Verdict():
            return record.submitted_at
        case Handover():
            return record.created_at
    return None


def _entry(snapshot: TaskSnapshot) -> _Entry:
    spans = _known(map(_span, snapshot.agents))
    if snapshot.status not in _ENDED:
        return _Entry(spans)
    return _Entry(spans, snapshot.status, _minute(last_record(snapshot, None)))


def _known(spans: Iterable[_Span | None]) -> tuple[_Span, ...]:
    return tuple(span for span in spans if span is not None)


def _span(agent: Agent) -> _Span | None:
    """Return when an agent was active, None if that is not known.

    Legacy programs do not date the end of an agent that failed.
    """
    if agent.status in ACTIVE_AGENT:
        start = agent.started_at
        return _Span(_minute(start), None, failed=False) if start else None
    end = agent.completed_at or agent.last_update
    if end is None or agent.status not in TERMINAL_AGENT:
        return None
    start = min(agent.started_at or end, end)
    return _Span(_minute(start), _minute(end), agent.status in FAILED_AGENT)


def _is_recent(entry: _Entry, since: int) -> bool:
    return entry.ended >= since or any(s.end is None or s.end >= since for s in entry.spans)
