"""What happened in a task, merged: reports, findings, verdicts and handovers, newest first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from registry_api import (
    Finding,
    Kind,
    ProgressEntry,
    RecordQuery,
    RegistryStore,
    TaskSnapshot,
)

__all__ = ["KINDS", "Entry", "stream_of"]

KINDS = ("reports", "findings", "verdicts", "handovers")
_READ = 50  # reports, and findings


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry: ``badge`` is a status, severity or verdict; ``key`` names the record."""

    kind: str
    key: str
    at: datetime
    who: str
    badge: str
    says: str


def stream_of(
    store: RegistryStore, snapshot: TaskSnapshot, show: str, since: datetime | None = None
) -> list[Entry]:
    """Return the newest 50 entries of a task, those of one of KINDS with ``show``.

    ``since``: only those of a later second, since pages write times to the second.
    """
    entries = (e for kind in KINDS if show in {"", kind} for e in _READERS[kind](store, snapshot))
    wanted = (e for e in entries if since is None or e.at.replace(microsecond=0) > since)
    return sorted(wanted, key=lambda entry: entry.at, reverse=True)[:_READ]


def _newest(store: RegistryStore, snapshot: TaskSnapshot, kind: Kind) -> Iterator[object]:
    query = RecordQuery(task_id=snapshot.task.task_id, newest_first=True)
    return iter(store.list_records(kind, query, limit=_READ).items)


def _reports(store: RegistryStore, snapshot: TaskSnapshot) -> Iterator[Entry]:
    for record in _newest(store, snapshot, Kind.PROGRESS):
        assert isinstance(record, ProgressEntry)
        yield Entry(
            kind="report",
            key=record.entry_id,
            at=record.timestamp,
            who=record.agent_id,
            badge=record.status,
            says=f"{record.progress}%: {record.message}",
        )


def _findings(store: RegistryStore, snapshot: TaskSnapshot) -> Iterator[Entry]:
    for record in _newest(store, snapshot, Kind.FINDING):
        assert isinstance(record, Finding)
        yield Entry(
            kind="finding",
            key=record.finding_id,
            at=record.timestamp,
            who=record.agent_id,
            badge=record.severity,
            says=f"{record.finding_type}: {record.message}",
        )


def _verdicts(_: RegistryStore, snapshot: TaskSnapshot) -> Iterator[Entry]:
    for verdict in snapshot.verdicts:
        yield Entry(
            kind="verdict",
            key=verdict.verdict_id,
            at=verdict.submitted_at,
            who=verdict.reviewer_id or "unknown reviewer",
            badge=verdict.verdict,
            says=verdict.notes,
        )


def _handovers(_: RegistryStore, snapshot: TaskSnapshot) -> Iterator[Entry]:
    for handover in snapshot.handovers:
        yield Entry(
            kind="handover",
            key=handover.handover_id,
            at=handover.created_at,
            who="",
            badge="",
            says=handover.summary,
        )


_READERS = dict(zip(KINDS, (_reports, _findings, _verdicts, _handovers), strict=True))
