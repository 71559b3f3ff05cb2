"""What became of agents and tasks within the last day, computed from their records.

The tasks that were written within the last day are read once, in the background; then the index of
active agents hands on each task that changes. Counts are kept by the minute: a day may have a
million agents.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import NamedTuple

from dashboard.last_record import last_record
from registry_api import Agent, AsyncStore, TaskSnapshot, TaskStatus
from registry_api.client import AHEAD
from registry_api.errors import RegistryError, TaskNotFound
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


class _Entry(NamedTuple):
    """A task: its agents, and its status and when it got it if that is COMPLETED or FAILED.

    ``agents`` has three numbers for each: when it began and ended, in minutes since the epoch, the
    end is 0 while it is active; and 1 if it failed.
    """

    agents: array[int]
    status: TaskStatus | None
    ended: int

    def spans(self) -> Iterator[tuple[int, int, bool]]:
        """Yield (began, ended, failed) of each agent."""
        for n in range(0, len(self.agents), 3):
            yield self.agents[n], self.agents[n + 1], bool(self.agents[n + 2])


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
        for began, ended, failed in entry.spans():
            self.began[began] += 1
            if ended:
                self.ended[failed][ended] += 1
        if entry.status is not None:
            self.tasks[entry.status][entry.ended][task_id] = None

    def remove(self, task_id: str, entry: _Entry) -> None:
        """Undo ``add``."""
        for began, ended, failed in entry.spans():
            _take(self.began, began)
            if ended:
                _take(self.ended[failed], ended)
        if entry.status is not None:
            names = self.tasks[entry.status][entry.ended]
            names.pop(task_id, None)
            if not names:
                del self.tasks[entry.status][entry.ended]

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

    def ended_since(self, status: TaskStatus, since: int) -> int:
        """Return how many tasks ended so since a minute."""
        return sum(len(names) for m, names in self.tasks[status].items() if m >= since)

    def newest(self, status: TaskStatus, since: int) -> Iterator[str]:
        """Yield the tasks that ended so since a minute, those that ended last first."""
        found = self.tasks[status]
        for minute in sorted((m for m in found if m >= since), reverse=True):
            yield from reversed(found[minute])


def _take(counts: Counter[int], minute: int) -> None:
    """Count one less; a minute without any is forgotten, or a server would keep each for ever."""
    counts[minute] -= 1
    if not counts[minute]:
        del counts[minute]


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
            day = counts.rows(minute, DAY)
            return Recent(
                hour=counts.rows(minute, HOUR),
                day=day,
                tasks={status: counts.ended_since(status, since) for status in _ENDED},
                newest={s: list(islice(counts.newest(s, since), most)) for s in _ENDED},
                agents={
                    TaskStatus.COMPLETED: sum(row[1] for row in day),
                    TaskStatus.FAILED: sum(row[2] for row in day),
                },
            )

    async def keep(self, store: AsyncStore, catch_up: CatchUp) -> None:
        """Read the tasks of the last day whenever they are missing, until cancelled.

        ``catch_up`` hands on what has changed and returns the ids of tasks with active agents.
        """
        while True:
            try:
                active = await asyncio.to_thread(catch_up)
                if not self._filled:
                    await self.fill(store, active, catch_up)
                await asyncio.to_thread(self._drop_old, _minute(datetime.now(UTC)))
            except RegistryError as error:  # as during a switch: tried again
                log.info("the last day cannot be read now: %s", error)
            except Exception:
                log.exception("reading the last day failed")
            await asyncio.sleep(_EVERY)

    async def fill(self, store: AsyncStore, active: Iterable[str], catch_up: CatchUp) -> None:
        """Read the tasks that were written within the last day, and the tasks ``active``.

        What a record says happened within the day was written within it.
        """
        starts, wanted = self._starts, set(active)
        since = datetime.now(UTC) - timedelta(minutes=DAY) - AHEAD
        after: str | None = None
        while True:
            began = time.monotonic()
            page = await store.list_tasks(after=after, limit=_PAGE)
            for task in page.items:
                if task.updated_at >= since or task.task_id in wanted:
                    await self._read(store, task.task_id, starts)
            after = page.next
            if starts != self._starts:
                return
            if after is None:
                break
            await asyncio.sleep(_RESTING * (time.monotonic() - began))
            with suppress(RegistryError):  # or too many changes would be missed meanwhile
                await asyncio.to_thread(catch_up)
        with self._lock:
            if starts == self._starts:
                self._filled = True
                self._noted.clear()

    async def _read(self, store: AsyncStore, task_id: str, starts: int) -> None:
        try:
            entry = _entry(await store.load(task_id))
        except TaskNotFound:
            return
        with self._lock:
            # A task that was handed on meanwhile is newer.
            if starts == self._starts and task_id not in self._noted:
                self._put(task_id, entry)

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
            for task_id in [k for k, e in self._entries.items() if not _is_recent(e, now - DAY)]:
                self._put(task_id, None)


def _minute(moment: datetime) -> int:
    return int(moment.timestamp() // 60)


def _entry(snapshot: TaskSnapshot) -> _Entry:
    latest = datetime.now(UTC) + AHEAD
    agents = array("q")
    for agent in snapshot.agents:
        agents.extend(_span(agent, latest))
    ended = snapshot.status in _ENDED
    return _Entry(
        agents,
        snapshot.status if ended else None,
        _minute(last_record(snapshot, None)) if ended else 0,
    )


def _span(agent: Agent, latest: datetime) -> tuple[int, ...]:
    """Return when an agent began and ended, and whether it failed; nothing if that is not known.

    Legacy programs do not date the end of an agent that failed. Times in the future say nothing.
    """
    start = agent.started_at
    if agent.status in ACTIVE_AGENT:
        return (_minute(start), 0, 0) if start is not None and start <= latest else ()
    end = agent.completed_at or agent.last_update
    if end is None or end > latest or agent.status not in TERMINAL_AGENT:
        return ()
    return _minute(min(start or end, end)), _minute(end), int(agent.status in FAILED_AGENT)


def _is_recent(entry: _Entry, since: int) -> bool:
    return entry.ended >= since or any(not end or end >= since for _, end, _ in entry.spans())
