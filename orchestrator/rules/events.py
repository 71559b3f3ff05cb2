"""What a changeset did, as sentences for people: for ``tail`` and the log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import singledispatch

from orchestrator.rules.attempts import reason_of
from registry_api import (
    Agent,
    Changeset,
    Delete,
    Finding,
    Handover,
    Op,
    Phase,
    ProgressEntry,
    Record,
    Review,
    Task,
    Verdict,
)
from registry_api.records import TERMINAL_AGENT

__all__ = ["Event", "events_of", "sentence"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened to a task; ``who`` is the agent or program that did it."""

    at: datetime
    task_id: str
    who: str
    what: str


def events_of(changeset: Changeset) -> Iterator[Event]:
    """Yield what a changeset did, one event a record."""
    for op in changeset.ops:
        yield Event(
            at=changeset.at, task_id=changeset.task_id, who=changeset.actor, what=sentence(op)
        )


def sentence(op: Op) -> str:
    """Return what one op did."""
    return f"{op.kind} {op.key} removed" if isinstance(op, Delete) else _sentence(op.record)


@singledispatch
def _sentence(record: Record) -> str:
    return f"{type(record).__name__.lower()} changed"


@_sentence.register
def _(record: Task) -> str:
    return f"task {record.recorded_status}: {record.description}"


@_sentence.register
def _(record: Phase) -> str:
    return f"phase {record.phase_index} ({record.name}) is {record.status}"


@_sentence.register
def _(record: Agent) -> str:
    why = reason_of(record) if record.status in TERMINAL_AGENT else None
    return f"agent {record.agent_id} is {record.status}" + (f": {why}" if why else "")


@_sentence.register
def _(record: ProgressEntry) -> str:
    return f"{record.agent_id}: {record.status}, {record.progress}%: {record.message}"


@_sentence.register
def _(record: Finding) -> str:
    return f"{record.agent_id} found [{record.severity}]: {record.message}"


@_sentence.register
def _(record: Review) -> str:
    decided = f": {record.verdict}" if record.verdict else ""
    return f"review {record.review_id} of phase {record.phase_index} is {record.status}{decided}"


@_sentence.register
def _(record: Verdict) -> str:
    return f"{record.reviewer_id} says {record.verdict}: {record.notes}"


@_sentence.register
def _(record: Handover) -> str:
    return f"handover from phase {record.from_phase_index}: {record.summary}"
