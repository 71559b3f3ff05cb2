"""The paths of a workspace, and which of its folders hold a task."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.files import Problem, open_regular
from registry_api.errors import CorruptDocument
from registry_api.records import is_id, json_text
from registry_api.workspace import STATE_DIR

__all__ = [
    "DOCUMENT",
    "Layout",
    "frozen_without_record",
    "load_document",
    "named_task",
    "read_file",
]

DOCUMENT = "AGENT_REGISTRY.json"
_MAX_DOCUMENT = 256 * 2**20
_CONFLICT = re.compile(rb"^<{7} ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of a workspace: the legacy files and, below ``.registry``, ours."""

    workspace: Path

    @property
    def global_file(self) -> Path:
        """The legacy list of all tasks and agents."""
        return self.workspace / "registry" / "GLOBAL_REGISTRY.json"

    @property
    def state(self) -> Path:
        """Our folder."""
        return self.workspace / STATE_DIR

    def folder(self, task_id: str) -> Path:
        """The folder of a task."""
        return self.workspace / task_id

    def document(self, task_id: str) -> Path:
        """The registry document of a task."""
        return self.workspace / task_id / DOCUMENT

    def tasks(self, problems: list[Problem] | None = None) -> list[str]:
        """Return the ids of the folders that hold a document, sorted by bytes.

        Adds to ``problems`` what looks like a task but cannot be one.
        """
        problems = [] if problems is None else problems
        found: list[str] = []
        with os.scandir(self.workspace) as entries:
            for entry in entries:
                path = Path(entry.path)
                if entry.name.startswith("."):
                    continue
                if entry.is_symlink():
                    if (path / DOCUMENT).exists():
                        problems.append(
                            Problem(path=path, what="a symbolic link to a folder, not followed")
                        )
                    continue
                if not entry.is_dir():
                    continue
                self._judge(entry.name, path, found, problems)
        return sorted(found)

    def _judge(self, name: str, path: Path, found: list[str], problems: list[Problem]) -> None:
        document = path / DOCUMENT
        try:
            mode = document.lstat().st_mode
        except FileNotFoundError:
            if name.startswith("TASK-"):
                problems.append(Problem(path=path, what="a task folder without a registry"))
            return
        except OSError as error:
            problems.append(Problem(path=document, what=f"cannot be read: {error.strerror}"))
            return
        if not stat.S_ISREG(mode):
            what = "a symbolic link" if stat.S_ISLNK(mode) else "not a regular file"
            problems.append(Problem(path=document, what=f"{what}, not read"))
        elif not is_id(name):
            problems.append(Problem(path=path, what="the folder's name is not a task id, not read"))
        else:
            found.append(name)


def frozen_without_record(layout: Layout) -> int:
    """Return how many documents a cut-over froze, if no record of the cut-over is left; else 0.

    Every document is read-only then, as is the global file where there is one, and ``.registry``
    knows no task: it was removed, or not copied together with the workspace.
    """
    paths = [layout.document(task_id) for task_id in layout.tasks()]
    if not paths or any((layout.state / "json").glob("*.journal")):
        return 0
    frozen = [p for p in (*paths, layout.global_file) if os.path.lexists(p)]
    try:
        return 0 if any(p.lstat().st_mode & 0o222 for p in frozen) else len(paths)
    except OSError:
        return 0


def read_file(path: Path) -> bytes:
    """Return the bytes of a regular file, not following a link; raises OSError."""
    with open(open_regular(path), "rb") as file:  # noqa: PTH123  (an open descriptor)
        return file.read(_MAX_DOCUMENT)


def load_document(data: bytes, *, path: Path, task_id: str) -> dict[str, Any]:
    """Parse the registry document of a task; raises CorruptDocument, naming file and place."""
    try:
        value = json_text.parse(data)
    except ValueError as error:
        raise corrupt(path, _merged_by_git(data) or str(error)) from None
    if not isinstance(value, dict):
        raise corrupt(path, f"a JSON {type(value).__name__} instead of an object")
    if "task_id" not in value:
        raise corrupt(path, "no task_id: not the registry of a task")
    if value["task_id"] != task_id:
        raise corrupt(path, f"names task {value['task_id']!r}, but its folder has another name")
    return value


def named_task(data: bytes) -> str | None:
    """Return the id of the task that a document names, None if it is not a registry document."""
    try:
        value = json_text.parse(data)
    except ValueError:
        return None
    named = value.get("task_id") if isinstance(value, dict) else None
    return named if is_id(named) else None


def _merged_by_git(data: bytes) -> str | None:
    found = _CONFLICT.search(data)
    if found is None:
        return None
    line = data.count(b"\n", 0, found.start()) + 1
    return f"git conflict markers at line {line}"


def corrupt(path: Path, what: str) -> CorruptDocument:
    """Return the error for a file that is not a valid registry document."""
    return CorruptDocument(
        f"{path}: {what}",
        next_step="The file is left as it is; correct it or move it away",
        path=str(path),
    )
