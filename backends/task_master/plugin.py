"""Read the ``tasks.json`` of task-master: tasks with subtasks, in lists that have tags.

The format, from the project's public documentation: an object with a list ``tasks`` for each tag,
in older files one list without a tag. A task has an id, a title, a description, a status, a
priority, details, ids that it depends on, and subtasks of the same shape.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from registry_api.errors import CorruptDocument, Unavailable
from registry_api.plugins import ImportedTask, OpenContext, RegisterImporter, hookimpl
from registry_api.records import Phase, PhaseStatus, Task, TaskStatus, is_id, json_text

__all__ = ["TaskMaster", "registry_register_importers"]

_PLACES = ("", "tasks.json", ".taskmaster/tasks/tasks.json", "tasks/tasks.json")
_LARGEST = 64 * 2**20  # bytes
_STATUSES = {
    "pending": PhaseStatus.PENDING,
    "deferred": PhaseStatus.PENDING,
    "blocked": PhaseStatus.PENDING,
    "in-progress": PhaseStatus.ACTIVE,
    "review": PhaseStatus.IN_REVIEW,
    "done": PhaseStatus.APPROVED,
    "completed": PhaseStatus.APPROVED,
    "cancelled": PhaseStatus.FAILED,
}
_OURS = frozenset({"id", "title", "description", "status", "priority", "subtasks"})


@hookimpl
def registry_register_importers(register: RegisterImporter) -> None:
    """Offer the importer ``task-master``."""
    register("task-master", TaskMaster())


class TaskMaster:
    """A task becomes a task, its subtasks become phases; one without subtasks has one phase."""

    def recognises(self, place: Path) -> bool:
        """Whether the place is such a file, or a project that has one."""
        path = _file(place)
        if path is None:
            return False
        with suppress(CorruptDocument, Unavailable):
            return bool(_lists(_parsed(path)))
        return False

    def read(self, place: Path, context: OpenContext) -> Iterator[ImportedTask]:
        """Yield the tasks of all tags."""
        path = _file(place)
        if path is None:
            raise Unavailable(f"{place} has no tasks.json", next_step="Name the file")
        created = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        for tag, tasks in _lists(_parsed(path)).items():
            for n, item in enumerate(tasks):
                if isinstance(item, dict):
                    yield _task(tag, n, item, created)


def _file(place: Path) -> Path | None:
    for name in _PLACES:
        path = place / name if name else place
        if path.is_file() and path.suffix == ".json":
            return path
    return None


def _parsed(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return json_text.parse(file.read(_LARGEST))
    except OSError as error:
        raise Unavailable(
            f"{path} cannot be read: {error.strerror}", next_step="Check its permissions"
        ) from error
    except ValueError as error:
        raise CorruptDocument(
            f"{path} is not JSON: {error}", next_step="Repair the file, then try again"
        ) from error


def _lists(value: Any) -> dict[str, list[Any]]:
    """Return the lists of tasks by their tags; the list of an older file has the tag ``master``."""
    if not isinstance(value, dict):
        return {}
    if isinstance(value.get("tasks"), list):
        return {"master": value["tasks"]}
    return {
        tag: found["tasks"]
        for tag, found in value.items()
        if isinstance(found, dict) and isinstance(found.get("tasks"), list)
    }


def _task(tag: str, place: int, item: dict[str, Any], created: datetime) -> ImportedTask:
    notes: list[str] = []
    number = item.get("id", place + 1)
    task_id = f"{tag}-{number}"
    if not is_id(task_id):
        plain = "".join(c if c.isascii() and c.isalnum() else "-" for c in tag)[:80]
        told = hashlib.blake2b(f"{tag}\0{number}".encode("utf-8", "replace"), digest_size=4)
        task_id = f"{plain}-{told.hexdigest()}".strip("-")
        notes.append(f"the id {tag}-{number} is kept in extra: it is no id of a registry")
    subtasks = [s for s in _listed(item.get("subtasks")) if isinstance(s, dict)]
    phases = tuple(_phase(task_id, n, sub, notes) for n, sub in enumerate(subtasks or [item]))
    kept = {k: v for k, v in item.items() if k not in _OURS} | {"tag": tag, "id": number}
    cancelled = item.get("status") == "cancelled"
    return ImportedTask(
        task=Task(
            task_id=task_id,
            description=_text(item.get("title")) or _text(item.get("description")),
            recorded_status=TaskStatus.CANCELLED if cancelled else TaskStatus.INITIALIZED,
            priority=_text(item.get("priority")) or "P2",
            created_at=created,
            extra=json_text.dump_text({"task_master": kept}),
        ),
        records=phases,
        notes=tuple(notes),
    )


def _phase(task_id: str, index: int, item: dict[str, Any], notes: list[str]) -> Phase:
    said = item.get("status", "pending")
    status = _STATUSES.get(said) if isinstance(said, str) else None
    if status is None:
        notes.append(f"phase {index} has the unknown status {said!r}, read as PENDING")
    kept = {k: v for k, v in item.items() if k not in _OURS} | {"status": said}
    return Phase(
        task_id=task_id,
        phase_index=index,
        phase_id=f"{task_id}-{item.get('id', index + 1)}"[:128],
        name=_text(item.get("title")),
        description=_text(item.get("description")),
        status=status or PhaseStatus.PENDING,
        extra=json_text.dump_text({"task_master": kept}),
    )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value.replace("\x00", "") if isinstance(value, str) else ""
