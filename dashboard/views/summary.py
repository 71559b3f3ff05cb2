"""The current numbers of a registry, read from its store, and the headline above them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from dashboard.live.activity_index import ActivityIndex, Quiet
from registry_api import (
    AgentStatus,
    Kind,
    Legacy,
    PhaseStatus,
    RecordQuery,
    RegistryCounts,
    RegistryStore,
    Settings,
    TaskStatus,
    find_capability,
)
from registry_api.client import headline
from registry_api.records import FAILED_AGENT

__all__ = ["Summary", "look", "waiting_phases"]

_COUNTED = 50  # escalated phases that are counted for the headline at most


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleCount:
    """A counter that the legacy system stored, and the actual count."""

    name: str
    stored: int
    true: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Counts of the records, silent tasks and agents, and the counters of the legacy system."""

    counts: RegistryCounts
    quiet: Quiet
    stored: dict[str, int]
    waiting: int = 0  # phases that wait for a human, counted up to _COUNTED

    def numbers(self) -> dict[str, int]:
        """Return the ten numbers of the summary, computed from the records."""
        tasks, agents = self.counts.tasks, self.counts.agents
        done = (AgentStatus.COMPLETED, AgentStatus.PHASE_COMPLETED)
        return {
            "total_tasks": self.counts.total_tasks,
            "active_tasks": self.counts.active_tasks,
            "completed_tasks": tasks.get(TaskStatus.COMPLETED, 0),
            "failed_tasks": tasks.get(TaskStatus.FAILED, 0),
            "silent_tasks": len(self.quiet.tasks),
            "total_agents": self.counts.total_agents,
            "active_agents": self.counts.active_agents,
            "completed_agents": sum(agents.get(status, 0) for status in done),
            "failed_agents": sum(agents.get(status, 0) for status in FAILED_AGENT),
            "silent_agents": len(self.quiet.agents),
        }

    @property
    def stale_counts(self) -> list[StaleCount]:
        """Return each counter of the legacy system that differs from the actual count."""
        numbers = self.numbers()
        true = {
            "active_tasks": numbers["active_tasks"],
            "active_agents": numbers["active_agents"],
            "total_tasks": numbers["total_tasks"],
            "total_agents_spawned": numbers["total_agents"],
        }
        return [
            StaleCount(name=name, stored=self.stored[name], true=value)
            for name, value in true.items()
            if name in self.stored and self.stored[name] != value
        ]

    def headline(self) -> str:
        """Return the state of the registry in a few sentences."""
        waiting = ""
        if self.waiting:
            what = "phase waits" if self.waiting == 1 else "phases wait"
            more = "At least " if self.waiting == _COUNTED else ""
            waiting = f"{more}{self.waiting} {what} for a human."
        return headline(
            all_tasks=self.counts.total_tasks,
            active_tasks=self.counts.active_tasks,
            active_agents=self.counts.active_agents,
            silent_tasks=len(self.quiet.tasks),
            silent_agents=len(self.quiet.agents),
            silent_since=self.quiet.newest,
            waiting=waiting,
        )


def waiting_phases(store: RegistryStore) -> int:
    """Return how many phases wait for a human, counted up to 50."""
    escalated = RecordQuery(status=PhaseStatus.ESCALATED)
    return len(store.list_records(Kind.PHASE, escalated, limit=_COUNTED).items)


def look(activity_index: ActivityIndex, settings: Settings, now: datetime) -> Summary:
    """Read the current numbers; the cost grows with the changes since the last call."""
    legacy = find_capability(activity_index.store, Legacy)
    return Summary(
        waiting=waiting_phases(activity_index.store),
        counts=activity_index.store.counts(),
        quiet=activity_index.quiet(now - timedelta(seconds=settings.silent_after)),
        stored=dict(legacy.stored_counts()) if legacy else {},
    )
