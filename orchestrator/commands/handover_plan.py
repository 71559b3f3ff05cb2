"""What a handover is made from: the findings of a phase, and each agent's last report in time."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from itertools import islice

from orchestrator.rules.findings import passed_on
from orchestrator.rules.handovers import HandoverPlan
from registry_api import (
    Kind,
    Phase,
    ProgressEntry,
    RecordQuery,
    RegistryStore,
    Review,
    TaskSnapshot,
    all_records,
)

__all__ = ["handover_plan", "last_words"]

_MOST_LATE = 200  # late reports of an agent that are skipped to find its last one before its end
_MOST_FINDINGS = 200  # newest findings of a phase that its handover is made from


def handover_plan(
    store: RegistryStore, snapshot: TaskSnapshot, of: Phase | Review | None
) -> HandoverPlan:
    """Return what a phase's handover is made from; ``of``: the phase, or a review of it."""
    phase_index = of.phase_index if of else None
    query = RecordQuery(task_id=snapshot.task.task_id, phase_index=phase_index, newest_first=True)
    found = passed_on(snapshot, all_records(store, Kind.FINDING, query))
    return HandoverPlan(
        handover_id=uuid.uuid4().hex,
        findings=tuple(islice(found, _MOST_FINDINGS)),
        reports=tuple(last_words(store, snapshot)),
    )


def last_words(store: RegistryStore, snapshot: TaskSnapshot) -> Iterator[ProgressEntry]:
    """Yield each agent's newest report; for an agent that has ended, the newest before its end.

    A later report was refused and is only in the history.
    """
    for entry in snapshot.latest:
        agent = snapshot.agent(entry.agent_id)
        end = agent.completed_at if agent is not None else None
        if end is None or entry.timestamp <= end:
            yield entry
            continue
        query = RecordQuery(task_id=entry.task_id, agent_id=entry.agent_id, newest_first=True)
        told = islice(all_records(store, Kind.PROGRESS, query), _MOST_LATE)
        before = (e for e in told if isinstance(e, ProgressEntry) and e.timestamp <= end)
        yield from islice(before, 1)
