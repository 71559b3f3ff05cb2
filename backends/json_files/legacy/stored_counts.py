"""The counters stored in the legacy global file: shown next to the actual counts, never used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backends.files import Problem
from backends.json_files.legacy.layout import read_file
from registry_api.records import json_text

__all__ = ["read_stored_counts"]

_NAMES = ("total_tasks", "active_tasks", "total_agents_spawned", "active_agents")


def read_stored_counts(path: Path, problems: list[Problem]) -> dict[str, int]:
    """Return the counters of GLOBAL_REGISTRY.json, {} if it cannot be read."""
    try:
        value: Any = json_text.parse(read_file(path))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        problems.append(Problem(path=path, what=f"cannot be read: {error}"))
        return {}
    if not isinstance(value, dict):
        problems.append(Problem(path=path, what="not a JSON object, not read"))
        return {}
    return {name: value[name] for name in _NAMES if type(value.get(name)) is int}


def listed_tasks(path: Path) -> frozenset[str]:
    """Return the ids of the tasks that the global file lists."""
    try:
        value: Any = json_text.parse(read_file(path))
        tasks = value["tasks"]
        return frozenset(tasks) if isinstance(tasks, dict) else frozenset()
    except (OSError, ValueError, TypeError, KeyError):
        return frozenset()
