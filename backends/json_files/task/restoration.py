"""Write a removed document, and removed log lines, again."""

from __future__ import annotations

from backends.json_files.task.foreign_edits import ForeignEdits
from backends.json_files.task.foreign_lines import ForeignLines
from backends.json_files.task.live import Live
from backends.json_files.task.removed_files import missing_lines
from backends.json_files.task.task_files import TaskFiles

__all__ = ["Restoration"]

_BATCH = 500  # lines that are planned together


class Restoration:
    """Restores the files of one task from its journal."""

    __slots__ = ("_edits", "_files", "_lines", "_live")

    def __init__(
        self, files: TaskFiles, live: Live, edits: ForeignEdits, lines: ForeignLines
    ) -> None:
        self._files = files
        self._live = live
        self._edits = edits
        self._lines = lines

    def restore(self) -> int:
        """Write what was removed; returns how many lines and documents. Raises Busy, OSError."""
        files, shared = self._files, self._files.shared
        with files.held() as deadline:
            self._live.settle(deadline)
            written = 0
            if not files.document.path.exists() and not files.journal.is_empty:
                files.make_folders()
                with files.created(deadline) as fd:
                    files.document.rebuild(fd)
                written += 1
            with files.opened(deadline) as fd:
                self._edits.settle(fd, thorough=True)
                records = list(missing_lines(shared.layout, files.journal, shared.times))
                for n in range(0, len(records), _BATCH):
                    files.logs.append(files.logs.plan(None, records[n : n + _BATCH]))
                self._lines.absorb()
            return written + len(records)
