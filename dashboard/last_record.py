"""When something last happened to a task, by what its records state."""

from __future__ import annotations

from datetime import UTC, datetime

from registry_api import TaskSnapshot
from registry_api.client import AHEAD

__all__ = ["last_record"]


def last_record(snapshot: TaskSnapshot, finding: datetime | None) -> datetime:
    """Return the newest time that a record of the task states, not one in the future.

    ``finding`` is the time of its newest finding. The time of the newest change says less: in a
    copied registry all files are new.
    """
    latest = datetime.now(UTC) + AHEAD
    created = snapshot.task.created_at
    times: list[datetime | None] = [created, finding]
    times += [entry.timestamp for entry in snapshot.latest]
    times += [verdict.submitted_at for verdict in snapshot.verdicts]
    times += [handover.created_at for handover in snapshot.handovers]
    for phase in snapshot.phases:
        times += [phase.created_at, phase.started_at, phase.completed_at]
    for review in snapshot.reviews:
        times += [review.created_at, review.completed_at]
    for agent in snapshot.agents:
        times += [agent.started_at, agent.last_update, agent.completed_at]
    return max((t for t in times if t is not None and t <= latest), default=created)
