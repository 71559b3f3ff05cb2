"""Documents that cannot be read and that no task was read from: a move leaves them behind."""

from __future__ import annotations

import time
from pathlib import Path

from backends.json_files.legacy.layout import Layout, load_document, named_task, read_file
from registry_api.errors import CorruptDocument

__all__ = ["unreadable_documents"]

_BEING_WRITTEN = 1.0  # seconds to wait for a program that is writing it
_LOOK = 0.05


def unreadable_documents(layout: Layout) -> dict[str, str]:
    """Return what is wrong with each document that no task was read from, by its path.

    A document that was adopted before and is torn now is not among them: it is restored from its
    records. Nor is a copy of the document of another task in the registry.
    """
    journals = {p.stem for p in (layout.state / "json").glob("*.journal")}
    out: dict[str, str] = {}
    for task_id in layout.tasks():
        if task_id not in journals:
            what = _wrong(layout, task_id, journals)
            if what is not None:
                out[str(layout.document(task_id))] = what
    return out


def _wrong(layout: Layout, task_id: str, journals: set[str]) -> str | None:
    path = layout.document(task_id)
    deadline = time.monotonic() + _BEING_WRITTEN
    while True:
        try:
            data = read_file(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            return f"cannot be read: {error.strerror or error}"
        try:
            load_document(data, path=path, task_id=task_id)
        except CorruptDocument as error:
            young = time.time() - _modified(path) < _BEING_WRITTEN
            if young and time.monotonic() < deadline:
                time.sleep(_LOOK)
                continue
            named = named_task(data)
            known = named in journals or (named is not None and layout.document(named).exists())
            copy = named is not None and named != task_id and known
            return None if copy else error.message.partition(": ")[2]
        return None


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
