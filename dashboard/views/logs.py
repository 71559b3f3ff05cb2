"""An agent's output, read from the end of its file: a log may be larger than the memory."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from dashboard.views.log_levels import is_at_least
from registry_api.records import json_text
from registry_api.workspace import safe_paths as inside

__all__ = ["errors", "last_lines", "matching", "tail"]

_MOST = 2**20  # bytes at the end in which lines are searched
_BESIDE = 2000  # characters of a line that are shown on each side of a text


def tail(
    workspace: Path, task_id: str, agent_id: str, *, limit: int, before: int | None = None
) -> tuple[str, int, int]:
    """Return at most ``limit`` bytes that end at ``before``, their offset, and the log's size.

    Without ``before`` they end at the end. The log is in ``logs`` or in ``archive``; symbolic links
    are not followed, and the caller has checked the ids. A missing log counts as empty; one that is
    a link raises Unavailable.
    """
    name = f"{agent_id}_stream.jsonl"
    data, start, size = inside.read_log(workspace, task_id, name, limit=limit, before=before)
    return data.decode("utf-8", "replace"), start, size


def matching(
    workspace: Path, task_id: str, agent_id: str, text: str, *, limit: int, level: str = ""
) -> tuple[list[str], int, int]:
    """Return the last lines of a level that hold a text, in any case, each at most 2,000 characters
    to both sides of it; how many bytes at the end of the log were searched (at most 1 MiB), and its
    size.
    """
    end, start, size = tail(workspace, task_id, agent_id, limit=_MOST)
    wanted = text.casefold()
    lines = []
    for line in reversed(end.removesuffix("\n").split("\n")):
        at = line.casefold().find(wanted)
        if at >= 0 and is_at_least(line, level):
            lines.append(line[max(0, at - _BESIDE) : at + _BESIDE])
        if len(lines) == limit:
            break
    return lines[::-1], size - start, size


def errors(workspace: Path, task_id: str, agent_id: str) -> str:
    """Return the last 4096 bytes of an agent's standard error."""
    name = f"{agent_id}_stderr.log"
    return inside.read_log(workspace, task_id, name, limit=4096)[0].decode("utf-8", "replace")


def last_lines(workspace: Path, task_id: str, agent_id: str, *, limit: int) -> list[dict[str, Any]]:
    """Return the last complete lines, each as its JSON object or as ``{"text": line}``."""
    text, start, _ = tail(workspace, task_id, agent_id, limit=_MOST)
    lines = text.removesuffix("\n").split("\n") if text else []
    if start and lines:
        del lines[0]  # its beginning is missing
    return [_read(line) for line in lines[-limit:]]


def _read(line: str) -> dict[str, Any]:
    with suppress(ValueError):
        value = json_text.parse(line.encode())
        if isinstance(value, dict):
            return value
    return {"text": line}
