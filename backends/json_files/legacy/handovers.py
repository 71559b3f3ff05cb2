"""Handover documents of the legacy programs: Markdown with the same content embedded as JSON."""

from __future__ import annotations

import re
from pathlib import Path

from backends.files import Problem
from backends.json_files.legacy.layout import read_file
from backends.jsonl.times import Times
from registry_api.records import Handover, TaskState, is_id, json_text

__all__ = ["read_handovers"]

_JSON = re.compile(rb"<!-- HANDOVER_JSON_START\s(.*)\sHANDOVER_JSON_END -->", re.DOTALL)


def read_handovers(
    folder: Path, state: TaskState, *, times: Times, problems: list[Problem]
) -> list[Handover]:
    """Return the handovers in a task folder; the id of each is its file's stem, a phase's id."""
    try:
        paths = sorted((folder / "handovers").glob("*.md"))
    except OSError as error:
        problems.append(Problem(path=folder / "handovers", what=str(error.strerror)))
        return []
    out = []
    for path in paths:
        handover = _read(path, state, times, problems)
        if handover is not None:
            out.append(handover)
    return out


def _read(path: Path, state: TaskState, times: Times, problems: list[Problem]) -> Handover | None:
    key = path.stem
    if not is_id(key):
        problems.append(Problem(path=path, what="its name is not a valid id, not read"))
        return None
    try:
        found = _JSON.search(read_file(path))
        data = json_text.parse(found[1]) if found else None
    except (OSError, ValueError) as error:
        problems.append(Problem(path=path, what=f"not read: {error}"))
        return None
    if not isinstance(data, dict):
        problems.append(Problem(path=path, what="holds no handover data, not read"))
        return None
    by_id = {p.phase_id: p.phase_index for p in state.phases.values()}
    index = by_id.get(str(data.get("phase_id")))
    known = {"created_at", "summary", "key_findings", "blockers", "recommendations", "artifacts"}
    artifacts = data.get("artifacts")
    return Handover(
        task_id=state.task.task_id,
        handover_id=key,
        from_phase_index=index,
        to_phase_index=None if index is None else index + 1,
        summary=str(data.get("summary") or "").replace("\x00", ""),
        key_findings=_texts(data.get("key_findings")),
        blockers=_texts(data.get("blockers")),
        recommendations=_texts(data.get("recommendations")),
        artifacts=json_text.dump_text(artifacts if isinstance(artifacts, list) else []),
        created_at=times.read(data.get("created_at")) or state.task.created_at,
        extra=json_text.dump_text({k: v for k, v in data.items() if k not in known}),
    )


def _texts(value: object) -> tuple[str, ...]:
    items = value if isinstance(value, list) else []
    return tuple(
        (item if isinstance(item, str) else json_text.dump_text(item)).replace("\x00", "")
        for item in items
    )
