"""A task while another store is the writer of record: the journal alone is read, and replicated.

The other store absorbs the lines that other programs append; what they write to the document is a
late write (late_writes.py).
"""

from __future__ import annotations

from backends.json_files.journal.intent import Intent
from backends.json_files.journal.lines import histories_of
from backends.json_files.task.recovery import is_known
from backends.json_files.task.task_files import TaskFiles
from backends.json_files.task.write_ahead import NO_LOGS
from registry_api.records import KINDS, changeset_from, json_text, record_key

__all__ = ["Frozen"]


class Frozen:
    """Reads the journal alone; ``Live`` is the other state of a task."""

    __slots__ = ("_files",)

    is_frozen = True

    def __init__(self, files: TaskFiles) -> None:
        self._files = files

    def refresh(self) -> None:
        """Read what was appended to the journal."""
        self._files.journal.refresh()

    def absorb_logs(self) -> None:
        """Do nothing: the other store absorbs what others append."""

    def finish(self, intent: Intent, *, appended: bool = False) -> None:
        """As ``WriteAhead.finish``, but only known log lines then count as read."""
        files, journal = self._files, self._files.journal
        if not appended:
            files.logs.append(intent.lines, again=True)
        lines = intent.journal.splitlines(keepends=True)
        keys = set(journal.history_ids())
        for line in lines:
            changeset = changeset_from(json_text.parse_trusted(line)["cs"])
            keys |= {(KINDS[type(r)], record_key(r)) for r in histories_of(changeset)}
        logs = b'"logs":' + json_text.dump(files.logs.known_upto(journal.logs, keys))
        # After a kill between several lines, the first ones are there already.
        rest = b"".join(line for line in lines if not is_known(journal, line))
        files.journal_writer.append(rest.replace(NO_LOGS, logs, 1))
        files.intent.clear()
