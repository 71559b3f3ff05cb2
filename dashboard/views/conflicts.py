"""Conflicts with other programs: the reports that a JSON store keeps of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from heapq import nlargest
from pathlib import Path
from typing import Any

from dashboard.answers import sendable
from registry_api.records import json_text

__all__ = ["conflicts_of"]

_SHOWN = 20
_LARGEST = 2**20  # bytes of a report
_SIDES = ("record", "field", "before", "theirs", "ours")


def conflicts_of(state: Path) -> list[dict[str, Any]]:
    """Return the newest 20 reports: task, time, ``late`` (a late write), ``lines``, and ``fields``.

    Of each field: the record, its name, the value before, theirs and ours. A report that cannot be
    read is named, without its content.
    """
    found = ((entry.stat(follow_symlinks=False).st_mtime, entry.path) for entry in _reports(state))
    return [_report(Path(path)) for _, path in nlargest(_SHOWN, found)]


def _reports(state: Path) -> Iterator[os.DirEntry[str]]:
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(state / "conflicts") as found:
        yield from (
            e for e in found if e.name.endswith(".report") and e.is_file(follow_symlinks=False)
        )


def _report(path: Path) -> dict[str, Any]:
    said: Any = None
    with suppress(OSError, ValueError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            said = json_text.parse(file.read(_LARGEST))
    said = said if isinstance(said, dict) else {}
    lines = said.get("changes", said.get("conflicts"))
    fields = said.get("fields")
    task_id, at = said.get("task_id"), said.get("at")
    rows = [
        {side: str(row.get(side, "")) for side in _SIDES}
        for row in (fields if isinstance(fields, list) else [])
        if isinstance(row, dict)
    ]
    found: dict[str, Any] = sendable(
        {
            "path": str(path),
            "task_id": task_id if isinstance(task_id, str) else path.name.split(".")[0],
            "at": at if isinstance(at, str) else "",
            "late": ".straggler-" in path.name,
            "lines": [str(line) for line in lines]
            if isinstance(lines, list)
            else ["it cannot be read"],
            "fields": rows,
        }
    )
    return found
