"""What the freeze records about the files, for the thaw and for a rollback."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict, cast

import orjson

from backends.json_files.task.workspace_state import Shared

__all__ = ["GLOBAL", "USUAL_MODE", "BeforeFreeze", "Record"]

USUAL_MODE = 0o644
GLOBAL = "/"  # the global file's name among the modes; no task has it


class Record(TypedDict):
    """The documents before the freeze.

    ``modes``: unusual modes, and the global file's. ``strangers``: the hashes of documents that no
    task was read from, which are not late writes.
    """

    modes: dict[str, int]
    strangers: dict[str, str]


class BeforeFreeze:
    """The record, and a copy of the legacy programs' list of all tasks."""

    __slots__ = ("_shared",)

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    @property
    def path(self) -> Path:
        """Where the record is."""
        return self._shared.folder("json") / "before_freeze.json"

    @property
    def global_copy(self) -> Path:
        """Where the copy of the global file is."""
        return self._shared.folder("json") / "global.base"

    def read(self) -> Record:
        """Return the record; an empty one if it is missing or damaged."""
        try:
            return cast(Record, orjson.loads(self.path.read_bytes()))
        except (OSError, orjson.JSONDecodeError):
            return {"modes": {}, "strangers": {}}

    def write(self, record: Record) -> None:
        """Replace the record, durably."""
        self._shared.replace_file(self.path, orjson.dumps(record))
