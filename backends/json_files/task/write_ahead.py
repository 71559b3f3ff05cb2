"""Write through an intent, so that the next process can tell how far a killed writer got.

Intent (durable) -> lines appended -> document in place -> journal line -> intent emptied. The next
process that holds the document's lock finds out which case it is and settles it (``_resolve``).
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
from backends.json_files.journal.journal import histories_of
from backends.json_files.merge import shows
from backends.json_files.task.recorded_task import Recorded
from registry_api.errors import OutcomeUnknown, RegistryError, Unavailable
from registry_api.records import TaskState, ValidatedChangeset, changeset_from, json_text

__all__ = ["WriteAhead"]

_NO_PATCH = Patch.whole(b"")
_NO_LOGS = b'"logs":{}'


class WriteAhead(Recorded):
    """A task whose interrupted writes are completed or taken back."""

    def _write(
        self, fd: int, change: ValidatedChangeset, *, before: str, old: bytes, data: bytes | None
    ) -> int:
        """Write a change through the intent; return its feed number.

        ``data`` is the document after the change, None if the change leaves it as it is; ``before``
        and ``old`` are the hash and the bytes of the document before it. Raises Unavailable if
        nothing happened, OutcomeUnknown if the write may have happened.
        """
        if data is not None:
            require_writable(fd, self._document)
        intent = self._prepare(change, before=before, old=old, data=data)
        try:
            self._logs.append(intent.lines)
        except OSError as error:
            self._give_up(intent, error)
        if data is not None and read_document(fd) != old:
            # A patch over other bytes than it was made for would leave a mixture of both.
            self._drop(intent)
            raise self._overtaken()
        self._put_document(fd, intent)
        try:
            self._journal(intent, appended=True)
        except OSError as error:
            raise OutcomeUnknown(
                f"{self.journal.path}: {error}; the write is kept as an intent",
                next_step="Commit the same changeset again once the disk works",
            ) from error
        return intent.number

    def _prepare(
        self, change: ValidatedChangeset, *, before: str, old: bytes, data: bytes | None
    ) -> Intent:
        """Make the intent durable and reserve space for the journal line; nothing else begins."""
        journal, shared = self.journal, self._shared
        lines = self._logs.plan(change.changeset, histories_of(change.changeset))
        number = self._reserve()
        after = before if data is None else content_hash(data)
        line = journal.change_line(
            change.changeset,
            digest=change.digest,
            text=change.text,
            number=number,
            hash_after=after,
            logs={},
            lineage=journal.lineage or str(uuid.uuid4()),
            trim_to=journal.trimmed(shared.now()),
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
            self._intent.write(intent)
            journal.make_room(len(line) + 64 * len(lines))
        except OSError as error:
            self._give_up(replace(intent, lines=()), error)
        return intent

    def _reserve(self) -> int:
        numbers = self._shared.numbers
        with numbers.locked():
            number = numbers.draw()
            self._intent.reserve(number)
        return number

    def _put_document(self, fd: int, intent: Intent) -> None:
        if intent.after == intent.before:
            return
        try:
            ours = self.journal.is_synced and intent.before == self.journal.hash
            if intent.before and not ours:
                # Sync another program's text: a power loss could mix in a third text.
                self._shared.sync(fd)
            write_in_place(fd, intent.patch, sync=self._shared.sync)
        except OSError as error:
            if content_hash(read_document(fd)) == (intent.before or content_hash(b"")):
                self._give_up(intent, error)
            raise OutcomeUnknown(
                f"{self._document}: {error.strerror}; the write is kept as an intent",
                next_step="Commit the same changeset again once the disk works",
            ) from error

    def _journal(self, intent: Intent, *, appended: bool = False) -> None:
        """Append the log lines and the journal line, and clear the intent."""
        if not appended:
            self._logs.append(intent.lines, again=True)
        offsets, whole = self._logs.offsets_after(self.journal, intent.lines)
        logs = b'"logs":' + json_text.dump(offsets)
        self.journal.append(intent.journal.replace(_NO_LOGS, logs, 1))
        self._intent.clear()
        if not whole:
            with suppress(RegistryError, OSError):  # the write is done; the next absorbs them
                self._absorb_logs()

    def _give_up(self, intent: Intent, error: OSError) -> NoReturn:
        self._drop(intent)
        raise Unavailable(
            f"{self._document}: {error.strerror or error}; nothing was changed",
            next_step="Free disk space or check the disk, then try again",
        ) from error

    def _drop(self, intent: Intent) -> None:
        self._logs.remove(intent.lines)
        self._be_done()

    def _be_done(self) -> None:
        self.journal.give_room_back()
        self._intent.clear()

    def _resolve(self, fd: int, data: bytes) -> None:
        """Settle what a killed writer left: finish or drop it, never undoing a foreign edit."""
        intent = self._intent.read()
        if intent is None or self._is_journaled(intent):
            self._be_done()
            return
        found = content_hash(data)
        if intent.epoch != self._shared.epoch():
            self._take_back(fd, intent, data)
        elif intent.after == found or (intent.creates and not data):
            self._finish(fd, intent, data, found)
        elif intent.before == found:
            self._drop(intent)
        elif intent.is_torn(data):
            self._finish(fd, intent, data, found)
        else:
            self._resolve_foreign(fd, intent, data, found)

    def _resolve_foreign(self, fd: int, intent: Intent, data: bytes, found: str) -> None:
        """Settle an intent if the document has neither the text before it nor the one after."""
        theirs = self._try_decode(data)
        if theirs is None:
            if data:
                self._shared.keep("quarantine", f"{self.task_id}.json", data)
            self._finish(fd, intent, data, found)
        elif self._shows(intent, theirs):
            self._journal(intent)
        else:
            self._drop(intent)

    def _is_journaled(self, intent: Intent) -> bool:
        return self._is_known(intent.journal.splitlines()[-1])

    def _is_known(self, line: bytes) -> bool:
        return uuid.UUID(json_text.parse_trusted(line)["id"]) in self.journal.known_ids()

    def _finish(self, fd: int, intent: Intent, data: bytes, found: str) -> None:
        """Finish the write: it is durable in the intent, and a reader may have seen it.

        If another program changed bytes outside the patch, the document is written again from the
        records.
        """
        if intent.after == intent.before:
            self._journal(intent)
            return
        require_writable(fd, self._document)
        whole = data if found == intent.after else intent.patch.applied(data)
        if content_hash(whole) != intent.after:
            self._journal(intent)
            self._rebuild(fd)
            return
        self._complete(fd, intent, data, whole)
        self._journal(intent)

    def _complete(self, fd: int, intent: Intent, data: bytes, whole: bytes) -> None:
        """Make the document what the intent says, durably."""
        if data == whole:
            write_again(fd, intent.patch, sync=self._shared.sync)
            return
        if intent.patch.over is None or not intent.is_torn(data):
            write_in_place(fd, Patch.whole(whole), sync=self._shared.sync)
            return
        # If this write is interrupted too, it is recognised again.
        write_in_place(fd, Patch.between(data, whole), sync=self._shared.sync)

    def _take_back(self, fd: int, intent: Intent, data: bytes) -> None:
        """Drop an intent from before a switch, and undo its torn write."""
        if intent.patch.over is not None and intent.is_torn(data):
            before = intent.patch.undone(data)
            require_writable(fd, self._document)
            write_in_place(fd, Patch.between(data, before), sync=self._shared.sync)
        self._drop(intent)

    def _shows(self, intent: Intent, theirs: TaskState) -> bool:
        """Return whether a foreign edit is based on our write: then our write happened."""
        before = self.journal.state
        if before is None:
            return True
        after = before.copy()
        for line in intent.journal.splitlines():
            for op in changeset_from(json_text.parse_trusted(line)["cs"]).ops:
                after.apply(op, known=lambda *_: False)
        return shows(before, after, theirs)
