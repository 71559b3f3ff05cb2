"""Silent agents and tasks: active by record, but without a sign of life since a given time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from registry_api.client.paging import all_records, all_tasks
from registry_api.records.models import Agent, Kind
from registry_api.records.query import RecordQuery, TaskQuery
from registry_api.records.snapshot import TaskSnapshot
from registry_api.records.status import ACTIVE_AGENT, TaskStatus
from registry_api.store import RegistryStore

__all__ = ["AHEAD", "Silence", "gave_sign", "is_ahead", "is_silent", "last_sign", "silent"]

AHEAD = timedelta(minutes=5)  # how far clocks may differ


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """The silent agents, longest silent first, and the ids of the silent tasks."""

    agents: tuple[Agent, ...] = ()
    tasks: tuple[str, ...] = ()


def last_sign(agent: Agent, *, now: datetime | None = None) -> datetime | None:
    """Return the last sign of life of an agent: its newest report, else its start; None: unknown.

    A time further in the future than clocks may differ is ignored: a dead agent would count as
    alive until then.
    """
    latest = (now or datetime.now(UTC)) + AHEAD
    for sign in (agent.last_update, agent.started_at):
        if sign is not None and sign <= latest:
            return sign
    return None


def is_ahead(agent: Agent, now: datetime) -> bool:
    """Return whether the newest timestamp of an agent is in the future."""
    newest = agent.last_update or agent.started_at
    return newest is not None and newest > now + AHEAD


def gave_sign(agent: Agent, since: datetime) -> bool:
    """Return whether an agent gave a sign of life since a time."""
    sign = last_sign(agent, now=max(since, datetime.now(UTC)))
    return sign is not None and sign >= since


def is_silent(snapshot: TaskSnapshot, before: datetime) -> bool:
    """Return whether one task is silent, by the rule of ``silent``."""
    active = (a for a in snapshot.agents if a.status in ACTIVE_AGENT)
    return snapshot.status is TaskStatus.ACTIVE and not any(gave_sign(a, before) for a in active)


def silent(store: RegistryStore, before: datetime) -> Silence:
    """Return the agents and tasks without a sign of life since ``before``.

    A task is silent when it is ACTIVE and all its active agents are silent. The cost follows the
    number of active agents and tasks, not the size of the registry.
    """
    quiet: list[Agent] = []
    alive: set[str] = set()
    for record in all_records(store, Kind.AGENT, RecordQuery(active=True)):
        assert isinstance(record, Agent)
        if gave_sign(record, before):
            alive.add(record.task_id)
        else:
            quiet.append(record)
    quiet.sort(key=_longest)
    active = all_tasks(store, TaskQuery(status=TaskStatus.ACTIVE))
    return Silence(
        agents=tuple(quiet),
        tasks=tuple(t.task_id for t in active if t.task_id not in alive),
    )


def _longest(agent: Agent) -> tuple[str, str]:
    sign = last_sign(agent)
    return sign.isoformat() if sign else "", agent.task_id
