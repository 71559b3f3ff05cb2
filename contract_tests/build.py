"""Build records and changesets for the tests; a test states only the fields that it needs."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from uuid_utils.compat import uuid7

from registry_api import (
    Agent,
    Changeset,
    Commit,
    Finding,
    Op,
    Phase,
    ProgressEntry,
    Put,
    RegistryStore,
    Task,
    new_changeset,
)

T0 = datetime(2026, 1, 4, 22, 15, 30, 123456, tzinfo=UTC)


def later(seconds: float) -> datetime:
    """Return the moment ``seconds`` after T0."""
    return T0 + timedelta(seconds=seconds)


def creating(task_id: str, *records: Any, **task: Any) -> Changeset:
    """Return the changeset that creates a task with the records."""
    task.setdefault("created_at", T0)
    ops = [Put(Task(task_id=task_id, **task)), *(Put(r) for r in records)]
    return new_changeset(task_id, ops, expected=0, actor="test")


def aged(task_id: str, ops: Iterable[Op], days: float, *, expected: int | None = None) -> Changeset:
    """Return a changeset whose time and id are ``days`` old."""
    at = datetime.now(UTC) - timedelta(days=days)
    # A UUIDv7 of that moment: milliseconds, version, randomness, variant.
    number = int(at.timestamp() * 1000) << 80 | 7 << 76 | 2 << 62 | secrets.randbits(60)
    return new_changeset(task_id, ops, expected=expected, at=at, changeset_id=uuid.UUID(int=number))


def make(store: RegistryStore, task_id: str, *records: Any, **task: Any) -> Commit:
    """Create a task with the records."""
    return store.commit(creating(task_id, *records, **task))


def put(store: RegistryStore, *records: Any, expected: int | None) -> Commit:
    """Put records of one task."""
    task_id = records[0].task_id
    return store.commit(
        new_changeset(task_id, [Put(r) for r in records], expected=expected, actor="test")
    )


def agent(task_id: str, agent_id: str = "a1", **fields: Any) -> Agent:
    """Return a running agent."""
    fields.setdefault("started_at", T0)
    return Agent(task_id=task_id, agent_id=agent_id, **fields)


def phase(task_id: str, phase_index: int = 0, **fields: Any) -> Phase:
    """Return a pending phase."""
    fields.setdefault("phase_id", f"phase-{phase_index}")
    return Phase(task_id=task_id, phase_index=phase_index, **fields)


def report(task_id: str, agent_id: str = "a1", **fields: Any) -> ProgressEntry:
    """Return a progress entry with a new id."""
    fields.setdefault("timestamp", later(1))
    fields.setdefault("entry_id", uuid7().hex)
    return ProgressEntry(task_id=task_id, agent_id=agent_id, **fields)


def finding(task_id: str, agent_id: str = "a1", **fields: Any) -> Finding:
    """Return a finding with a new id."""
    fields.setdefault("timestamp", later(1))
    fields.setdefault("finding_id", uuid7().hex)
    return Finding(task_id=task_id, agent_id=agent_id, **fields)
