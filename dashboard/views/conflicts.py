"""Conflicts with other programs: the reports that a JSON store keeps of them."""

from __future__ import annotations

import os
from contextlib import suppress
from heapq import nlargest
from pathlib import Path
from typing import Any

from dashboard.answers import sendable
from registry_api.records import json_text

__all__ = ["conflicts_of"]

_SHOWN = 20
_MOST, _LONGEST = 100, 250  # fields or lines of a report, characters of each
_LARGEST = 2**20  # bytes of a report
_SIDES = ("record", "field", "before", "theirs", "ours")


def conflicts_of(state: Path) -> list[dict[str, Any]]:
    """Return the newest 20 reports: task, time, ``late`` (a late write), ``lines``, and ``fields``.

    Of each field: the record, its name, the value before, theirs and ours; at most 100 of them,
    ``more`` counts the others. A report that cannot be read is named, without its content.
    """
    found = []
    with suppress(OSError), os.scandir(state / "conflicts") as entries:
        for entry in entries:
            with suppress(OSError):  # it was moved away meanwhile
                if entry.name.endswith(".report") and entry.is_file(follow_symlinks=False):
                    found.append((entry.stat(follow_symlinks=False).st_mtime, entry.path))
    return [_report(Path(path)) for _, path in nlargest(_SHOWN, found)]


def _report(path: Path) -> dict[str, Any]:
    said: Any = None
    with suppress(OSError, ValueError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            said = json_text.parse(file.read(_LARGEST))
    said = said if isinstance(said, dict) else {}
    lines = said.get("changes", said.get("conflicts"))
    task_id, at, left_out = said.get("task_id"), said.get("at"), said.get("fields_left_out")
    fields = [row for row in _list(said.get("fields")) if isinstance(row, dict)]
    found: dict[str, Any] = sendable(
        {
            "path": str(path),
            "task_id": task_id if isinstance(task_id, str) else path.name.split(".")[0],
            "at": at[:40] if isinstance(at, str) else "",
            "late": ".straggler-" in path.name,
            "lines": [str(line)[:_LONGEST] for line in _list(lines)[:_MOST]]
            or ["it cannot be read"],
            "fields": [
                {k: str(row.get(k, ""))[:_LONGEST] for k in _SIDES} for row in fields[:_MOST]
            ],
            "more": max(0, len(fields) - _MOST) + (left_out if type(left_out) is int else 0),
        }
    )
    return found


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
