"""Write a change through an intent, so that the next process can tell how far a killed writer got.

Intent (durable) -> lines appended -> document in place -> journal line -> intent emptied. The next
process that holds the document's lock finds out which case it is and settles it (recovery.py).
"""

from __future__ import annotations

import uuid
from contextlib import suppress
from dataclasses import replace
from typing import NoReturn

from backends.files import require_writable
from backends.json_files.document.patch import Patch
from backends.json_files.document.text import content_hash, read_document
from backends.json_files.document.writer import write_again, write_in_place
from backends.json_files.journal.intent import Intent
from backends.json_files.journal.lines import histories_of
from backends.json_files.task.foreign_lines import ForeignLines
from backends.json_files.task.task_files import TaskFiles
from registry_api.errors import OutcomeUnknown, RegistryError, Unavailable
from registry_api.records import ValidatedChangeset, json_text

__all__ = ["NO_LOGS", "WriteAhead"]

_NO_PATCH = Patch.whole(b"")
NO_LOGS = b'"logs":{}'  # in a journal line, until it is known how far the logs are read


class WriteAhead:
    """Writes the changes of one task; used under its locks."""

    __slots__ = ("_files", "_foreign_lines")

    def __init__(self, files: TaskFiles, foreign_lines: ForeignLines) -> None:
        self._files = files
        self._foreign_lines = foreign_lines

    def write(
        self, fd: int, change: ValidatedChangeset, *, before: str, old: bytes, data: bytes | None
    ) -> int:
        """Write a change; return its feed number.

        ``data`` is the document after the change, None if the change leaves it as it is; ``before``
        and ``old`` are the hash and the bytes of the document before it. Raises Unavailable if
        nothing happened, OutcomeUnknown if the write may have happened.
        """
        files = self._files
        if data is not None:
            require_writable(fd, files.document.path)
        intent = self.prepare(change, before=before, old=old, data=data)
        try:
            files.logs.append(intent.lines)
        except OSError as error:
            self._give_up(intent, error)
        if data is not None and read_document(fd) != old:
            # A patch over other bytes than it was made for would leave a mixture of both.
            self.drop(intent)
            raise files.document.overtaken()
        self.put_document(fd, intent)
        try:
            self.finish(intent, appended=True)
        except OSError as error:
            raise OutcomeUnknown(
                f"{files.journal.path}: {error}; the write is kept as an intent",
                next_step="Commit the same changeset again once the disk works",
            ) from error
        return intent.number

    def prepare(
        self, change: ValidatedChangeset, *, before: str, old: bytes, data: bytes | None
    ) -> Intent:
        """Make the intent durable and reserve space for the journal line; nothing else begins."""
        files, journal, shared = self._files, self._files.journal, self._files.shared
        lines = files.logs.plan(change.changeset, histories_of(change.changeset))
        number = files.draw_number()
        after = before if data is None else content_hash(data)
        line = files.journal_writer.change_line(
            change.changeset,
            digest=change.digest,
            text=change.text,
            number=number,
            hash_after=after,
            logs={},
            lineage=journal.lineage or str(uuid.uuid4()),
            trim_to=files.journal_writer.trimmed(shared.now()),
        )
        intent = Intent(
            number=number,
            epoch=shared.epoch(),
            journal=line,
            before=before,
            after=after,
            patch=_NO_PATCH if data is None else Patch.between(old, data),
            lines=lines,
            creates=not before,
        )
        try:
            files.intent.write(intent)
            files.journal_writer.make_room(len(line) + 64 * len(lines))
        except OSError as error:
            self._give_up(replace(intent, lines=()), error)
        return intent

    def put_document(self, fd: int, intent: Intent) -> None:
        """Write the document in place; raises as ``write``."""
        if intent.after == intent.before:
            return
        files, journal = self._files, self._files.journal
        try:
            ours = journal.is_synced and intent.before == journal.hash
            if intent.before and not ours:
                # Sync another program's text: a power loss could mix in a third text.
                files.shared.sync(fd)
            write_in_place(fd, intent.patch, sync=files.shared.sync)
        except OSError as error:
            if content_hash(read_document(fd)) == (intent.before or content_hash(b"")):
                self._give_up(intent, error)
            raise OutcomeUnknown(
                f"{files.document.path}: {error.strerror}; the write is kept as an intent",
                next_step="Commit the same changeset again once the disk works",
            ) from error

    def complete_document(self, fd: int, intent: Intent, data: bytes, whole: bytes) -> None:
        """Make the document ``whole``, what the intent says, durably; ``data`` is there now."""
        sync = self._files.shared.sync
        if data == whole:
            write_again(fd, intent.patch, sync=sync)
            return
        if intent.patch.over is None or not intent.is_torn(data):
            write_in_place(fd, Patch.whole(whole), sync=sync)
            return
        # If this write is interrupted too, it is recognised again.
        write_in_place(fd, Patch.between(data, whole), sync=sync)

    def undo_document(self, fd: int, intent: Intent, data: bytes) -> None:
        """Undo the torn write of a document, durably; ``data`` is there now."""
        before = intent.patch.undone(data)
        require_writable(fd, self._files.document.path)
        write_in_place(fd, Patch.between(data, before), sync=self._files.shared.sync)

    def finish(self, intent: Intent, *, appended: bool = False) -> None:
        """Append the log lines and the journal line, and clear the intent.

        ``appended``: the log lines are appended already.
        """
        files, journal = self._files, self._files.journal
        if not appended:
            files.logs.append(intent.lines, again=True)
        offsets, whole = files.logs.offsets_after(journal, intent.lines)
        logs = b'"logs":' + json_text.dump(offsets)
        files.journal_writer.append(intent.journal.replace(NO_LOGS, logs, 1))
        files.intent.clear()
        if not whole:
            with suppress(RegistryError, OSError):  # the write is done; the next absorbs them
                self._foreign_lines.absorb()

    def _give_up(self, intent: Intent, error: OSError) -> NoReturn:
        self.drop(intent)
        raise Unavailable(
            f"{self._files.document.path}: {error.strerror or error}; nothing was changed",
            next_step="Free disk space or check the disk, then try again",
        ) from error

    def drop(self, intent: Intent) -> None:
        """Take back a write that did not reach the document."""
        self._files.logs.remove(intent.lines)
        self.clear()

    def clear(self) -> None:
        """Give back the journal's reserved space and clear the intent."""
        self._files.journal_writer.give_room_back()
        self._files.intent.clear()
