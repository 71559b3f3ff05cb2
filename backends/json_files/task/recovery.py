"""Settle what a killed writer left: finish its write or drop it, never undoing a foreign edit."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from backends.files import require_writable
from backends.json_files.document.text import content_hash
from backends.json_files.journal.intent import Intent
from backends.json_files.journal.journal import Journal
from backends.json_files.merge import shows
from backends.json_files.task.replacement import Replacement
from backends.json_files.task.task_files import TaskFiles
from backends.json_files.task.write_ahead import WriteAhead
from registry_api.records import TaskState, changeset_from, json_text

__all__ = ["Finish", "Recovery", "is_known"]

Finish = Callable[[Intent], None]  # journals an intent whose write happened, and clears it


class Recovery:
    """Settles the intent of a killed writer; used under the task's locks."""

    __slots__ = ("_files", "_replacement", "_write_ahead")

    def __init__(self, files: TaskFiles, write_ahead: WriteAhead, replacement: Replacement) -> None:
        self._files = files
        self._write_ahead = write_ahead
        self._replacement = replacement

    def settle(self, fd: int, data: bytes, finish: Finish) -> None:
        """Settle the intent; ``data`` is the text of the open document ``fd``."""
        intent = self._files.intent.read()
        if intent is not None and not intent.journal:
            self._replacement.settle(fd, intent, data)
            return
        if intent is None or _is_journaled(self._files.journal, intent):
            self._write_ahead.clear()
            return
        found = content_hash(data)
        if intent.epoch != self._files.shared.epoch():
            self._take_back(fd, intent, data)
        elif intent.after == found or (intent.creates and not data):
            self._finish(fd, intent, data, finish)
        elif intent.before == found:
            self._write_ahead.drop(intent)
        elif intent.is_torn(data):
            self._finish(fd, intent, data, finish)
        else:
            self._settle_foreign(fd, intent, data, finish)

    def settle_without_document(self) -> bool:
        """Drop an intent, and one from before a switch; return whether it creates the document.

        An interrupted creation is left: the caller makes the document, then settles it.
        """
        files, intent = self._files, self._files.intent.read()
        if intent is not None and not intent.journal:
            self._replacement.drop()
        elif intent is None or _is_journaled(files.journal, intent):
            self._write_ahead.clear()
        elif intent.creates and files.journal.is_empty and intent.epoch == files.shared.epoch():
            return True
        else:
            self._write_ahead.drop(intent)
        return False

    def _settle_foreign(self, fd: int, intent: Intent, data: bytes, finish: Finish) -> None:
        """Settle an intent if the document has neither the text before it nor the one after."""
        theirs = self._files.document.try_decode(data)
        if theirs is None:
            if data:
                self._files.shared.keep("quarantine", f"{self._files.task_id}.json", data)
            self._finish(fd, intent, data, finish)
        elif self._shows(intent, theirs):
            finish(intent)
        else:
            self._write_ahead.drop(intent)

    def _finish(self, fd: int, intent: Intent, data: bytes, finish: Finish) -> None:
        """Finish the write: it is durable in the intent, and a reader may have seen it.

        If another program changed bytes outside the patch, the document is written again from the
        records.
        """
        if intent.after == intent.before:
            finish(intent)
            return
        require_writable(fd, self._files.document.path)
        whole = data if content_hash(data) == intent.after else intent.patch.applied(data)
        if content_hash(whole) != intent.after:
            finish(intent)
            self._files.document.rebuild(fd)
            return
        self._write_ahead.complete_document(fd, intent, data, whole)
        finish(intent)

    def _take_back(self, fd: int, intent: Intent, data: bytes) -> None:
        """Drop an intent from before a switch, and undo its torn write."""
        if intent.patch.over is not None and intent.is_torn(data):
            self._write_ahead.undo_document(fd, intent, data)
        self._write_ahead.drop(intent)

    def _shows(self, intent: Intent, theirs: TaskState) -> bool:
        """Return whether a foreign edit is based on our write: then our write happened."""
        before = self._files.journal.state
        if before is None:
            return True
        after = before.copy()
        for line in intent.journal.splitlines():
            for op in changeset_from(json_text.parse_trusted(line)["cs"]).ops:
                after.apply(op, known=lambda *_: False)
        return shows(before, after, theirs)


def _is_journaled(journal: Journal, intent: Intent) -> bool:
    """Return whether the (last) line of an intent is in the journal."""
    return is_known(journal, intent.journal.splitlines()[-1])


def is_known(journal: Journal, line: bytes) -> bool:
    """Return whether a change line is in the journal."""
    return uuid.UUID(json_text.parse_trusted(line)["id"]) in journal.known_ids()
