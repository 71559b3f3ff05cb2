"""Active agents and the last sign of life of each: read in full once, then only the changes.

The index exists because asking the store each time takes time in proportion to the number of active
agents: 120 to 170 ms with ten thousand (benchmarks/watching.py), for each page of each tab.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import nsmallest

from dashboard.live.last_day import LastDay
from registry_api import (
    Agent,
    FeedCursor,
    Kind,
    RecordQuery,
    RegistryStore,
    TaskQuery,
    TaskSnapshot,
    TaskStatus,
    all_records,
    all_tasks,
)
from registry_api.client import end_of_feed, last_sign
from registry_api.errors import CursorExpired, TaskNotFound
from registry_api.records import ACTIVE_AGENT
from registry_api.workspace import at_most

__all__ = ["ActivityIndex", "Quiet"]

_BEFORE_ALL = datetime.min.replace(tzinfo=UTC)
_PAGE, _PAGES = 500, 4  # changes applied one by one; after more, everything is read again
_MOST_PAGES = 200  # in the background, where nobody waits
_WAITING = 0.1  # seconds for a lock, in the background


@dataclass(frozen=True, slots=True, kw_only=True)
class Quiet:
    """Active agents and tasks without a sign of life since a moment.

    ``newest`` is the newest last sign of all silent tasks: all of them have been silent since then.
    ``signs`` are the last signs of the agents, ``task_signs`` those of the tasks.
    """

    agents: tuple[Agent, ...]
    signs: tuple[datetime | None, ...]
    tasks: frozenset[str]
    newest: datetime | None
    task_signs: Mapping[str, datetime | None]

    def longest_tasks(self, most: int) -> list[str]:
        """Return the tasks that have been silent longest, at most ``most``."""
        silent = self.task_signs.items()
        return [t for t, _ in nsmallest(most, silent, key=lambda found: found[1] or _BEFORE_ALL)]

    def longest(self, most: int) -> list[Agent]:
        """Return the agents that have been silent longest, at most ``most``."""
        silent = zip(self.signs, self.agents, strict=True)
        return [a for _, a in nsmallest(most, silent, key=lambda found: found[0] or _BEFORE_ALL)]


@dataclass(frozen=True, slots=True)
class _Present:
    """The entry of a task that is ACTIVE or has active agents."""

    active: bool
    agents: tuple[tuple[datetime | None, Agent], ...]


class ActivityIndex:
    """An index of one store's active agents, kept up to date by the feed; thread-safe.

    ``last_day`` is told each task that has changed.
    """

    def __init__(self, store: RegistryStore) -> None:
        self.store = store
        self.last_day = LastDay()
        self._lock = threading.Lock()
        self._at: FeedCursor | None = None
        self._tasks: dict[str, _Present] | None = None

    def quiet(self, before: datetime) -> Quiet:
        """Return the silent agents and tasks: no sign of life since ``before``.

        The rule is that of ``registry_api.silent``.
        """
        agents: list[Agent] = []
        silent_since: list[datetime | None] = []
        tasks = dict[str, datetime | None]()
        for task_id, present in self._now():
            signs = [sign for sign, _ in present.agents if sign is not None]
            for sign, agent in present.agents:
                if sign is None or sign < before:
                    silent_since.append(sign)
                    agents.append(agent)
            newest = max(signs, default=None)
            if present.active and (newest is None or newest < before):
                tasks[task_id] = newest
        return Quiet(
            agents=tuple(agents),
            signs=tuple(silent_since),
            tasks=frozenset(tasks),
            newest=max((sign for sign in tasks.values() if sign), default=None),
            task_signs=tasks,
        )

    def catch_up(self) -> list[str]:
        """Apply what has changed; return the ids of the tasks that are active or have active
        agents. Waits for no lock longer than 0.1 s: nobody waits for the answer.
        """
        with at_most(_WAITING):
            return [task_id for task_id, _ in self._now(_MOST_PAGES)]

    def _now(self, pages: int = _PAGES) -> list[tuple[str, _Present]]:
        with self._lock:
            known = self._tasks
            if known is None or not self._caught_up(known, pages):
                self._tasks = None  # if a read fails, all is read again
                self.last_day.forget()
                # The end of the feed first: changes made during the full read are applied later.
                self._at = end_of_feed(self.store)
                self._tasks = known = self._everything()
            return list(known.items())

    def _caught_up(self, known: dict[str, _Present], pages: int) -> bool:
        """Apply the changes since the last call; False if they are too many or have expired."""
        changed: dict[str, None] = {}
        at = self._at
        try:
            for _ in range(pages):
                found = self.store.changes(at, limit=_PAGE)
                changed |= dict.fromkeys(c.changeset.task_id for c in found)
                if found:
                    at = found[-1].cursor
                if len(found) < _PAGE:
                    break
            else:
                return False
        except CursorExpired:
            return False
        # All reads first: if one fails, the next call starts from the same place.
        for task_id, snapshot in {name: self._loaded(name) for name in changed}.items():
            known.pop(task_id, None)
            present = _present(snapshot) if snapshot else None
            if present is not None:
                known[task_id] = present
            self.last_day.note(task_id, snapshot)
        self._at = at
        return True

    def _loaded(self, task_id: str) -> TaskSnapshot | None:
        try:
            return self.store.load(task_id)
        except TaskNotFound:
            return None

    def _everything(self) -> dict[str, _Present]:
        agents: dict[str, list[tuple[datetime | None, Agent]]] = {}
        for agent in all_records(self.store, Kind.AGENT, RecordQuery(active=True)):
            assert isinstance(agent, Agent)
            agents.setdefault(agent.task_id, []).append((last_sign(agent), agent))
        active = {t.task_id for t in all_tasks(self.store, TaskQuery(status=TaskStatus.ACTIVE))}
        return {
            task_id: _Present(task_id in active, tuple(agents.get(task_id, ())))
            for task_id in active | agents.keys()
        }


def _present(snapshot: TaskSnapshot) -> _Present | None:
    agents = tuple((last_sign(a), a) for a in snapshot.agents if a.status in ACTIVE_AGENT)
    active = snapshot.status is TaskStatus.ACTIVE
    return _Present(active, agents) if active or agents else None
