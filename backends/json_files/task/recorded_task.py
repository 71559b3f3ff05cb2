"""One task as its journal records it: its decoded document, and what is known of the file.

The lowest of four layers: ``WriteAhead`` writes the task, ``Foreign`` absorbs what other programs
wrote, ``TaskFiles`` is what the store uses. All of them work under the task's locks.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from functools import cached_property
from pathlib import Path
from typing import Any

from backends.files import Problem, require_writable
from backends.json_files.document.cache import Cached
from backends.json_files.document.patch import Patch
from backends.json_files.document.stamp import Stamp
from backends.json_files.document.text import content_hash, read_document
from backends.json_files.document.writer import write_in_place
from backends.json_files.journal.intent import IntentFile
from backends.json_files.journal.journal import FOREIGN, Journal
from backends.json_files.legacy.layout import load_document
from backends.json_files.legacy.lens.document import decode, encode
from backends.json_files.task.logs import TaskLogs
from backends.json_files.task.task_lock import TaskLock
from backends.json_files.task.workspace_state import Shared
from registry_api.errors import Busy, CorruptDocument
from registry_api.records import (
    Limits,
    Op,
    Put,
    TaskState,
    ValidatedChangeset,
    json_text,
    new_changeset,
    validate_changeset,
)

__all__ = ["FOREIGN", "Recorded"]

_BATCH = 500
_UNLIMITED = Limits(ops=10**9, changeset_bytes=2**40)


class Recorded:
    """A task's files and what is known of them."""

    def __init__(self, shared: Shared, task_id: str) -> None:
        self.task_id = task_id
        self._shared = shared
        path = shared.folder("json") / f"{task_id}.journal"
        self.journal = Journal(path, task_id, shared.sync, shared.sync_folder)
        self._proven: tuple[Stamp, str] | None = None
        # Paths as text, since every operation uses them.
        self._place = str(shared.layout.document(task_id))
        self._line_place = str(path)

    @property
    def _document(self) -> Path:
        return Path(self._place)

    @property
    def _base(self) -> Path:
        return self.journal.path.with_suffix(".base")

    # Created on first use, dropped when the task is evicted.

    @cached_property
    def _lock(self) -> TaskLock:
        path = self.journal.path.with_suffix(".lock")
        shared = self._shared
        return TaskLock(path, self._document, timeout=shared.timeout, read_only=shared.is_read_only)

    @cached_property
    def _intent(self) -> IntentFile:
        shared = self._shared
        path = shared.folder("intents") / self.task_id
        return IntentFile(path, sync=shared.sync, sync_folder=shared.sync_folder)

    @cached_property
    def _logs(self) -> TaskLogs:
        return TaskLogs(self._shared, self.task_id)

    def evict(self) -> None:
        """Drop what can be reloaded, unless another thread works on the task."""
        with self._lock.idle() as idle:
            if idle:
                self.journal.evict()
                for name in ("_lock", "_intent", "_logs"):
                    self.__dict__.pop(name, None)

    def _try_decode(self, data: bytes) -> TaskState | None:
        try:
            document = load_document(data, path=self._document, task_id=self.task_id)
        except CorruptDocument:
            return None
        return self._decode(document)

    def _decode(self, document: dict[str, Any]) -> TaskState:
        problems: list[Problem] = []
        return decode(
            document,
            task_id=self.task_id,
            times=self._shared.times,
            path=self._document,
            problems=problems,
        )

    def _hash_of(self, data: bytes) -> str:
        """Return the hash of a document's bytes.

        Most often the bytes are cached, and comparing them is faster than hashing.
        """
        cached = self._shared.documents.get(self.task_id)
        return cached.hash if cached is not None and cached.data == data else content_hash(data)

    def _know(self, found: str, document: dict[str, Any], data: bytes) -> None:
        self._shared.documents.put(self.task_id, Cached(found, document, data))

    def _document_of(self, fd: int) -> Cached:
        cached = self._shared.documents.get(self.task_id)
        if cached is not None and cached.hash == self.journal.hash:
            return cached
        data = read_document(fd)
        if self._hash_of(data) != self.journal.hash:
            raise self._overtaken()
        return Cached(self.journal.hash, json_text.parse_trusted(data), data)

    def _overtaken(self) -> Busy:
        return Busy(
            f"another program wrote {self._document} without locking it; nothing was changed",
            next_step="Try again: its changes are absorbed first",
            path=str(self._document),
        )

    def _is_proven(self, stamp: Stamp) -> bool:
        if self._proven is None or self.journal.is_empty:
            return False
        known, content = self._proven
        return known.proves(stamp) and content == self.journal.hash

    def _is_still(self, found: os.stat_result) -> bool:
        """Return whether document and journal are unchanged since this process read them."""
        if self._proven is None:
            return False
        stamp, content = self._proven
        return (
            not stamp.racy
            and stamp.mtime_ns == found.st_mtime_ns
            and stamp.ctime_ns == found.st_ctime_ns
            and stamp.size == found.st_size
            and stamp.inode == found.st_ino
            and stamp.device == found.st_dev
            and content == self.journal.hash
            and self._is_read()
        )

    def _is_read(self) -> bool:
        """Return whether the journal is read to its end."""
        try:
            return os.stat(self._line_place).st_size == self.journal.size  # noqa: PTH116  (hot path)
        except FileNotFoundError:
            return False

    def _absorb_logs(self) -> None:
        """Absorb the lines that other programs appended, as history and signs of life."""
        records, offsets = self._logs.unread(self.journal)
        if not offsets:
            return
        if not records:
            now = self._shared.now()
            self.journal.append(self.journal.same_line(self.journal.hash, now, logs=offsets))
        batches = [records[n : n + _BATCH] for n in range(0, len(records), _BATCH)]
        for place, batch in enumerate(batches):
            last = place == len(batches) - 1
            self._commit_foreign(
                [Put(r) for r in batch],
                expected=None,
                before=self.journal.hash,
                after=self.journal.hash,
                logs=offsets if last else {},
            )

    def _commit_foreign(
        self,
        ops: list[Op],
        *,
        expected: int | None,
        before: str,
        after: str,
        logs: dict[str, int] | None = None,
    ) -> None:
        """Journal a foreign change that is in the files already."""
        change = self._foreign_changeset(ops, expected=expected, before=before, after=after)
        numbers = self._shared.numbers
        with numbers.locked():
            number = numbers.draw()
            self._intent.reserve(number)
        line = self.journal.change_line(
            change.changeset,
            digest=change.digest,
            text=change.text,
            number=number,
            hash_after=after,
            logs=logs or {},
            lineage=self.journal.lineage or str(uuid.uuid4()),
            trim_to=None,
        )
        self.journal.append(line)
        self._intent.clear()

    def _foreign_changeset(
        self, ops: list[Op], *, expected: int | None, before: str, after: str
    ) -> ValidatedChangeset:
        """Return the changeset of a foreign change; its id is derived from the change."""
        journal = self.journal
        seed = f"{journal.lineage} {self.task_id} {journal.revision + 1} {before} {after}"
        digest = bytearray(hashlib.sha256(seed.encode()).digest()[:16])
        digest[6] = digest[6] & 0x0F | 0x80
        digest[8] = digest[8] & 0x3F | 0x80
        changeset = new_changeset(
            self.task_id,
            ops,
            expected=expected,
            actor=FOREIGN,
            at=self._shared.now(),
            changeset_id=uuid.UUID(bytes=bytes(digest)),
        )
        return validate_changeset(changeset, _UNLIMITED, derived=True)

    def _rebuild(self, fd: int) -> None:
        """Write the document from the records, based on its last text that could be read."""
        state = self.journal.state
        assert state is not None
        try:
            base = self._base.read_bytes()
            document = load_document(base, path=self._base, task_id=self.task_id)
            before = self._decode(document)
        except (OSError, CorruptDocument):
            document, before = {}, TaskState(state.task)
        encode(
            before, self._without_file_handovers(state, before), document, times=self._shared.times
        )
        written = json_text.dump(document, indent=True)
        require_writable(fd, self._document)
        write_in_place(fd, Patch.whole(written), sync=self._shared.sync)
        if content_hash(written) != self.journal.hash:
            line = self.journal.same_line(content_hash(written), self._shared.now(), logs={})
            self.journal.append(line)
        self._know(self.journal.hash, document, written)

    def _without_file_handovers(self, after: TaskState, theirs: TaskState) -> TaskState:
        """Leave out handovers in files of their own: they do not belong in the document."""
        out = after.copy()
        stems = {p.stem for p in (self._document.parent / "handovers").glob("*.md")}
        for key in stems - theirs.handovers.keys():
            out.handovers.pop(key, None)
        return out

    def close(self) -> None:
        """Close the descriptors."""
        self._lock.close()
