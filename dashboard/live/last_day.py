"""What became of agents and tasks within the last day, computed from their records.

The records of the last day are read once, in the background; then the index of active agents hands
on each task that changes.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from dashboard.views.task_rows import last_record
from registry_api import (
    Agent,
    AsyncStore,
    Kind,
    RecordQuery,
    TaskSnapshot,
    TaskStatus,
)
from registry_api.errors import RegistryError, TaskNotFound
from registry_api.records import ACTIVE_AGENT, FAILED_AGENT, TERMINAL_AGENT

__all__ = ["DAY", "LastDay", "Recent"]

log = logging.getLogger("registry_backend")
HOUR, DAY = 3600.0, 86_400.0
BUCKETS = 60
_EVERY = 15.0  # seconds from one look for missing tasks to the next
_FRESH = 10.0  # seconds for which the numbers are reused if no task changes: they depend on now
_PAGE = 500
_ENDED = (TaskStatus.COMPLETED, TaskStatus.FAILED)
# The records by whose times a task of the last day is found.
_DATED = (Kind.AGENT, Kind.PHASE, Kind.VERDICT, Kind.HANDOVER)

CatchUp = Callable[[], Iterable[str]]
Row = tuple[int, int, int]
"""Agents that were active within a bucket: active at its end, completed in it, failed in it."""


class _Span(NamedTuple):
    """The time for which an agent was active, in seconds since the epoch; no end: it still is."""

    start: float
    end: float | None
    failed: bool


class _Entry(NamedTuple):
    spans: tuple[_Span, ...]
    status: TaskStatus | None  # COMPLETED or FAILED, at ``ended``
    ended: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Recent:
    """The last hour and the last day in 60 buckets each, the oldest first; tasks and agents that
    ended within the last day: tasks by id, the newest first, and numbers of agents.
    """

    hour: tuple[Row, ...]
    day: tuple[Row, ...]
    tasks: dict[TaskStatus, list[str]]
    agents: dict[TaskStatus, int]


class LastDay:
    """The last day of one store; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._noted = set[str]()  # while the records are being read
        self._filled = False
        self._starts = 0  # how often it was read from the start
        self._changes = 0
        self._known: tuple[float, int, Recent] | None = None

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
            self._noted.clear()
            self._filled = False
            self._starts += 1

    def recent(self, now: datetime) -> Recent | None:
        """Return the last hour and day; None until the records have been read."""
        moment = now.timestamp()
        with self._lock:
            if not self._filled:
                return None
            known = self._known
            if known is None or known[1] != self._changes or abs(moment - known[0]) > _FRESH:
                self._known = known = moment, self._changes, self._compute(moment)
            return known[2]

    async def keep(self, store: AsyncStore, catch_up: CatchUp) -> None:
        """Read the records of the last day whenever they are missing, until cancelled.

        ``catch_up`` hands on what has changed and returns the ids of tasks with active agents.
        """
        while True:
            try:
                active = await asyncio.to_thread(catch_up)
                if not self._filled:
                    await self._fill(store, active)
                self._drop_old(time.time())
            except RegistryError as error:  # as during a switch: tried again
                log.info("the last day cannot be read now: %s", error)
            await asyncio.sleep(_EVERY)

    async def _fill(self, store: AsyncStore, active: Iterable[str]) -> None:
        starts = self._starts
        since = datetime.now(UTC) - timedelta(seconds=DAY)
        found = dict.fromkeys(active)
        for kind in _DATED:
            after: str | None = None
            while True:
                query = RecordQuery(since=since)
                page = await store.list_records(kind, query, after=after, limit=_PAGE)
                found |= dict.fromkeys(record.task_id for record in page.items)
                after = page.next
                if after is None:
                    break
        for task_id in found:
            try:
                entry = _entry(await store.load(task_id))
            except TaskNotFound:
                continue
            with self._lock:
                if starts != self._starts:
                    return
                if task_id not in self._noted:  # or an older state would replace a newer one
                    self._put(task_id, entry)
        with self._lock:
            if starts == self._starts:
                self._filled = True
                self._noted.clear()

    def _put(self, task_id: str, entry: _Entry | None) -> None:
        self._changes += 1
        if entry is None:
            self._entries.pop(task_id, None)
        else:
            self._entries[task_id] = entry

    def _drop_old(self, now: float) -> None:
        with self._lock:
            self._entries = {k: e for k, e in self._entries.items() if _is_recent(e, now - DAY)}

    def _compute(self, now: float) -> Recent:
        entries = self._entries
        spans = [span for entry in entries.values() for span in entry.spans]
        ended = [s for s in spans if s.end is not None and now - DAY <= s.end <= now]
        failed = sum(span.failed for span in ended)
        done = sorted(
            ((e.ended, e.status, task_id) for task_id, e in entries.items() if e.status),
            reverse=True,
        )
        return Recent(
            hour=_rows(spans, now - HOUR, HOUR),
            day=_rows(spans, now - DAY, DAY),
            tasks={
                status: [task_id for at, s, task_id in done if s == status and at >= now - DAY]
                for status in _ENDED
            },
            agents={TaskStatus.COMPLETED: len(ended) - failed, TaskStatus.FAILED: failed},
        )


def _entry(snapshot: TaskSnapshot) -> _Entry:
    spans = tuple(span for agent in snapshot.agents if (span := _span(agent)) is not None)
    ended = snapshot.status in _ENDED
    return _Entry(
        spans,
        snapshot.status if ended else None,
        last_record(snapshot, None).timestamp() if ended else 0.0,
    )


def _span(agent: Agent) -> _Span | None:
    """Return when an agent was active, None if that is not known.

    Legacy programs do not date the end of an agent that failed.
    """
    if agent.status in ACTIVE_AGENT:
        return _Span(agent.started_at.timestamp(), None, failed=False) if agent.started_at else None
    end = agent.completed_at or agent.last_update
    if end is None or agent.status not in TERMINAL_AGENT:
        return None
    start = agent.started_at or end
    return _Span(start.timestamp(), end.timestamp(), agent.status in FAILED_AGENT)


def _is_recent(entry: _Entry, since: float) -> bool:
    return entry.ended >= since or any(s.end is None or s.end >= since for s in entry.spans)


def _rows(spans: Sequence[_Span], start: float, length: float) -> tuple[Row, ...]:
    """Count the spans of each of 60 buckets; one that starts and ends in a bucket is in it once."""
    width = length / BUCKETS
    steps, completed, failed = [0] * (BUCKETS + 1), [0] * BUCKETS, [0] * BUCKETS
    for span in spans:
        first = max(0, int((span.start - start) // width))
        last = BUCKETS
        if span.end is not None:
            last = int((span.end - start) // width)
            if last < 0:
                continue
            if last < BUCKETS:
                (failed if span.failed else completed)[last] += 1
        if first < min(last, BUCKETS):
            steps[first] += 1
            steps[min(last, BUCKETS)] -= 1
    rows, active = list[Row](), 0
    for bucket in range(BUCKETS):
        active += steps[bucket]
        rows.append((active, completed[bucket], failed[bucket]))
    return tuple(rows)
