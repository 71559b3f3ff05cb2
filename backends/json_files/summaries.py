"""The summary of each task, made again only if the task changed: for lists and counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from backends.json_files.journal.state import Stand, head_of
from backends.json_files.tasks import Tasks
from registry_api.records import (
    AgentStatus,
    Head,
    Kind,
    Refs,
    RegistryCounts,
    TaskSnapshot,
    TaskStatus,
    TaskSummary,
)

__all__ = ["Summaries", "snapshot_of"]


class _Line(NamedTuple):
    """What lists and counts need of a task; agents by status, records by kind."""

    head: Head
    summary: TaskSummary
    agents: Mapping[AgentStatus, int]
    records: Mapping[Kind, int]


class Summaries:
    """The summaries of a store's tasks."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._lines: dict[str, _Line] = {}

    def all(self) -> Iterator[TaskSummary]:
        """Yield the summary of every readable task."""
        return (line.summary for line in self._all())

    def counts(self) -> RegistryCounts:
        """Return the counts of all records."""
        tasks, agents = Counter[TaskStatus](), Counter[AgentStatus]()
        records = Counter[Kind]()
        for line in self._all():
            tasks[line.summary.status] += 1
            agents.update(line.agents)
            records.update(line.records)
            records.update(self._tasks.held(line.summary.task_id).journal.counts)
        return RegistryCounts(
            tasks=MappingProxyType(dict(tasks)),
            agents=MappingProxyType(dict(agents)),
            records=MappingProxyType({k: n for k, n in records.items() if n}),
        )

    def _all(self) -> Iterator[_Line]:
        for task in self._tasks.readable():
            line = self._lines.get(task.task_id)
            if line is None or line.head != task.journal.head():
                line = self._lines[task.task_id] = _line(task.stand())
            yield line


def _line(stand: Stand) -> _Line:
    snapshot = snapshot_of(stand)
    return _Line(
        head_of(stand),
        snapshot.summary(),
        Counter(a.status for a in snapshot.agents),
        {
            Kind.TASK: 1,
            Kind.PHASE: len(snapshot.phases),
            Kind.AGENT: len(snapshot.agents),
            Kind.REVIEW: len(snapshot.reviews),
            Kind.VERDICT: len(snapshot.verdicts),
            Kind.HANDOVER: len(snapshot.handovers),
        },
    )


def snapshot_of(stand: Stand, only: Refs | None = None) -> TaskSnapshot:
    """Return a task's snapshot, ``only`` of some records."""
    return stand.state.snapshot(
        stand.lineage, stand.revision, stand.updated_at, only=only, chain=stand.chain
    )
