"""Replace a whole task with the state and the feed of another store's task.

The new journal is written aside and takes the old one's place last: an intent without journal lines
says that the document may be that of either.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from backends.json_files.document.patch import Patch
from backends.json_files.document.text import content_hash, read_document
from backends.json_files.journal.intent import Intent
from backends.json_files.journal.lines import History, histories_of
from backends.json_files.journal.state import JournalState
from backends.json_files.task.task_files import TaskFiles
from backends.json_files.task.write_ahead import WriteAhead
from registry_api.authoring import forgotten_by
from registry_api.records import KINDS, Change, Changeset, Kind, TaskSnapshot, TaskState, record_key

__all__ = ["Replacement"]


class Replacement:
    """Replaces one task; used under its locks."""

    __slots__ = ("_files", "_write_ahead")

    def __init__(self, files: TaskFiles, write_ahead: WriteAhead) -> None:
        self._files = files
        self._write_ahead = write_ahead

    def replace(
        self,
        fd: int,
        snapshot: TaskSnapshot,
        histories: Iterable[History],
        feed: tuple[Change, ...],
    ) -> None:
        """Set the task to the snapshot; ``histories`` is streamed, ``fd`` the open document."""
        files, document = self._files, self._files.document
        old = read_document(fd)
        written, value = document.text_for(TaskState.of(snapshot), old)
        digest = files.journal.hash if written is None else content_hash(written)
        fresh = self._fresh(snapshot, feed, digest)
        apart = self._append_missing(fresh, histories, feed)
        files.shared.write_file(self._aside, fresh.whole(apart, feed))
        if written is not None:
            intent = Intent(
                number=fresh.number,
                epoch=files.shared.epoch(),
                journal=b"",
                before=content_hash(old),
                after=digest,
                patch=Patch.between(old, written),
            )
            files.intent.write(intent)
            self._write_ahead.put_document(fd, intent)
        self._swap_journal()
        if written is not None:
            document.know(digest, value, written)

    def _fresh(self, snapshot: TaskSnapshot, feed: tuple[Change, ...], digest: str) -> JournalState:
        """Return what the new journal says, but for the histories."""
        now = self._files.journal
        fresh = JournalState()
        fresh.lineage, fresh.revision = snapshot.lineage, snapshot.revision
        fresh.chain = snapshot.chain
        fresh.held, fresh.hash = TaskState.of(snapshot), digest
        fresh.updated_at = snapshot.updated_at
        fresh.foreign_agents = now.foreign_agents
        fresh.number = feed[-1].cursor.number if feed else now.number
        fresh.floor, fresh.expired_before = forgotten_by(
            feed, last_number=fresh.number, updated_at=snapshot.updated_at
        )
        return fresh

    def _append_missing(
        self, fresh: JournalState, histories: Iterable[History], feed: tuple[Change, ...]
    ) -> list[History]:
        """Append the lines that are in no log, count the histories and note how far logs are read.

        Returns the history records that are not in the feed.
        """
        logs = self._files.logs
        by_id = {
            (KINDS[type(r)], record_key(r)): c.changeset
            for c in feed
            for r in histories_of(c.changeset)
        }
        keys, apart = set[tuple[Kind, str]](), list[History]()
        missing: list[tuple[Changeset | None, History]] = []
        there = logs.keys_behind({})
        for record in histories:
            key = KINDS[type(record)], record_key(record)
            keys.add(key)
            fresh.counts[key[0]] = fresh.counts.get(key[0], 0) + 1
            if key not in by_id:
                apart.append(record)
            if key not in there:
                missing.append((by_id.get(key), record))
        for changeset, record in missing:
            logs.append(logs.plan(changeset, [record]))
        fresh.logs = logs.known_upto({}, keys)
        return apart

    # -- after a kill ------------------------------------------------------------------------

    def settle(self, fd: int, intent: Intent, data: bytes) -> None:
        """Finish a replacement that a killed writer left, or drop it; ``data`` is the document."""
        found = content_hash(data)
        if found != intent.after and (found == intent.before or not intent.is_torn(data)):
            self.drop()
            return
        if intent.after != intent.before:
            whole = data if found == intent.after else intent.patch.applied(data)
            self._write_ahead.complete_document(fd, intent, data, whole)
        self._swap_journal()

    def drop(self) -> None:
        """Drop a replacement whose document was not written."""
        self._aside.unlink(missing_ok=True)
        self._files.intent.clear()

    @property
    def _aside(self) -> Path:
        return self._files.journal.path.with_suffix(".new")

    def _swap_journal(self) -> None:
        with suppress(FileNotFoundError):  # renamed already, before the kill
            self._aside.rename(self._files.journal.path)
            self._files.shared.sync_folder(self._aside.parent)
        if self._files.intent.exists():
            self._files.intent.clear()
        self._files.journal.refresh()
