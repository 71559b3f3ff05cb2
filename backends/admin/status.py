"""The current status of a workspace as one JSON object (``status --json``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from registry_api import (
    Agent,
    Kind,
    Legacy,
    RegistryStore,
    Settings,
    find_capability,
    open_migration,
    silent,
)
from registry_api.client import last_sign
from registry_api.migration import MigrationPhase, MoveStatus, PhaseFile, PhaseRecord
from registry_api.records import PLURALS
from registry_api.workspace import STATE_DIR, living

__all__ = ["collect"]

_LAST = MigrationPhase.CLEANUP


def collect(store: RegistryStore, settings: Settings) -> dict[str, Any]:
    """Return the status of an open store: actual and stored counts, silent agents, the move."""
    counts = store.counts()
    before = datetime.now(UTC) - timedelta(seconds=settings.silent_after)
    quiet = silent(store, before)
    legacy = find_capability(store, Legacy)
    written = legacy.legacy_state() if legacy else None
    move = _move(settings)
    records = move.records if move else {store.info.name: counts.records}
    return {
        "workspace": str(settings.workspace),
        "store": store.info.name,
        "migration": _migration(store, settings, move, legacy=legacy is not None),
        "counts": {
            "tasks": {
                "total": counts.total_tasks,
                "active": counts.active_tasks,
                "silent": len(quiet.tasks),
                "by_status": _plain(counts.tasks),
            },
            "agents": {
                "total": counts.total_agents,
                "active": counts.active_agents,
                "silent": len(quiet.agents),
                "by_status": _plain(counts.agents),
            },
        },
        "silent_agents": [_silent_agent(agent) for agent in quiet.agents],
        "silent_tasks": list(quiet.tasks),
        "stored_counts": dict(legacy.stored_counts()) if legacy else {},
        "monitor": _monitor(settings) if move else {},
        "records": {
            name: {PLURALS[k]: found.get(k, 0) for k in Kind} for name, found in records.items()
        },
        "stragglers": list(move.late_writes) if move else [],
        "warnings": _legacy_warnings(legacy, move) + _warnings(legacy, move),
        "older_state_written": written.isoformat() if written else None,
        "next": _next(settings, move, legacy=legacy is not None),
    }


def _legacy_warnings(legacy: Legacy | None, move: MoveStatus | None) -> list[str]:
    """Return a warning about the legacy system's database, none after --json-is-truth."""
    said = legacy.legacy_state_summary() if legacy else None
    return [said] if said and not (move and move.record.json_is_truth) else []


def _warnings(legacy: Legacy | None, move: MoveStatus | None) -> list[str]:
    found = list(legacy.problems()) if legacy else []
    late = move.late_writes if move else ()
    left = move.record.unreadable if move else ()
    found += [
        f"{path}: cannot be read, so the move leaves its task out"
        for path in left
        if not any(problem.startswith(path) for problem in found)
    ]
    return found + [
        f"{path}: a late write, made by another program after the cut-over" for path in late
    ]


def _next(settings: Settings, move: MoveStatus | None, *, legacy: bool) -> str | None:
    """Return the command to run next, None if there is nothing to do."""
    if (settings.workspace / STATE_DIR / "switch.json").exists():
        return "registry-backend recover"
    if move is None:
        return "registry-backend plan 1" if legacy else None
    if move.notes or move.late_writes:
        return "registry-backend doctor"
    if move.dirty:
        return "registry-backend reconcile"
    phase = move.record.phase
    if not move.record.target:
        return None  # no move is under way
    if settings.phase is not None and settings.phase != phase:
        return f"registry-backend plan {settings.phase}"
    return f"registry-backend {'plan next' if phase < _LAST else 'verify'}"


def _move(settings: Settings) -> MoveStatus | None:
    """Return the recorded move, None if there is none: opening one would write files."""
    if PhaseFile(settings.workspace / STATE_DIR).read() is None:
        return None
    with closing(open_migration(settings)) as migration:
        return migration.status()


def _monitor(settings: Settings) -> dict[str, int]:
    """Return what live processes counted when comparing reads, and how many mismatches are kept."""
    folder = settings.workspace / STATE_DIR
    total = Counter[str]()
    for process in living(folder):
        total.update(process.counts)
    try:
        kept = len((folder / "mismatches.jsonl").read_bytes().splitlines())
    except OSError:
        kept = 0
    names = ("compared", "mismatched", "in_flight", "healed", "lagging", "fallbacks")
    return {name: total[name] for name in names} | {"kept_mismatches": kept}


def _plain(counts: Mapping[Any, int]) -> dict[str, int]:
    return {str(key): counts[key] for key in sorted(counts)}


def _silent_agent(agent: Agent) -> dict[str, Any]:
    sign = last_sign(agent)
    return {
        "task_id": agent.task_id,
        "agent_id": agent.agent_id,
        "status": str(agent.status),
        "last_sign": sign.isoformat() if sign else None,
    }


def _migration(
    store: RegistryStore, settings: Settings, move: MoveStatus | None, *, legacy: bool
) -> dict[str, Any]:
    if move is not None:
        record = move.record
    elif legacy:
        record = PhaseRecord()
    else:
        record = None
    target_phase = settings.phase
    return {
        "phase": record.phase if record else None,
        "name": record.phase.name if record else None,
        "epoch": record.epoch if record else 0,
        "source": record.source if record else store.info.name,
        "target": record.target or None if record else None,
        "writer_of_record": record.writer if record else store.info.name,
        "completed": [asdict(move) for move in record.completed] if record else [],
        "verified": record.verified if record else None,
        "dirty": move.dirty if move else 0,
        "wish": target_phase if record is None or target_phase != record.phase else None,
    }
