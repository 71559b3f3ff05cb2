"""The legacy programs' list of all tasks while it is frozen."""

from __future__ import annotations

import stat
from contextlib import suppress
from pathlib import Path

import orjson

from backends.files import open_regular
from backends.json_files.document.mode import set_writable
from backends.json_files.document.text import content_hash
from backends.json_files.migration.before_freeze import GLOBAL, USUAL_MODE, BeforeFreeze
from backends.json_files.task.workspace_state import Shared
from registry_api.capabilities import LateWrite
from registry_api.workspace import make_folder

__all__ = ["FrozenList", "read_file"]


class FrozenList:
    """Freezes the global file, keeps late writes to it and puts it back."""

    __slots__ = ("_before", "_shared", "path")

    def __init__(self, shared: Shared, before: BeforeFreeze) -> None:
        self._shared = shared
        self._before = before
        self.path = shared.layout.global_file

    def mode(self) -> int | None:
        """Return the file's mode, None if there is no regular file."""
        try:
            found = self.path.lstat().st_mode
        except OSError:
            return None
        return stat.S_IMODE(found) if stat.S_ISREG(found) else None

    def freeze(self) -> None:
        """Keep a copy and make the file read-only, as far as possible."""
        with suppress(OSError):
            data = read_file(self.path)
            if data is not None:
                self._shared.replace_file(self._before.global_copy, data)
                set_writable(self.path, writable=False)

    def thaw(self) -> None:
        """Let legacy programs write the file again."""
        mode = self._before.read()["modes"].get(GLOBAL, USUAL_MODE)
        set_writable(self.path, writable=True, mode=mode)

    def late_write(self) -> LateWrite | None:
        """Keep what was written to the file since the freeze, once; None: nothing."""
        data = read_file(self.path)
        if data is None or data == read_file(self._before.global_copy):
            return None
        return self.keep(data)

    def keep(self, data: bytes) -> LateWrite | None:
        """Keep the bytes of a late write, once."""
        name = f"GLOBAL_REGISTRY.straggler-{content_hash(data)[:12]}.json"
        kept = self._shared.folder("conflicts") / name
        if kept.with_suffix(".report").exists():
            return None
        self._shared.replace_file(kept, data)
        changes = ("the legacy list of tasks was written after the cut-over",)
        report = {"task_id": "", "at": self._shared.now().isoformat(), "changes": changes}
        self._shared.replace_file(kept.with_suffix(".report"), orjson.dumps(report))
        return LateWrite(task_id="", kept=str(kept), changes=changes)

    def reinstate(self) -> None:
        """Put a missing file back, frozen."""
        copy = read_file(self._before.global_copy)
        if copy is not None and not self.path.exists():
            make_folder(self.path.parent, parents=True)
            fresh = self.path.with_name(f".{self.path.name}.back")
            self._shared.write_file(fresh, copy, mode=0o644)
            set_writable(fresh, writable=False)
            fresh.rename(self.path)
            self._shared.sync_folder(self.path.parent)


def read_file(path: Path) -> bytes | None:
    """Return the bytes of a regular file, None if it cannot be read."""
    try:
        with open(open_regular(path), "rb") as file:  # noqa: PTH123  (an open descriptor)
            return file.read()
    except OSError:
        return None
