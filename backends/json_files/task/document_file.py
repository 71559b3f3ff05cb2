"""The document of one task: decode and encode it, and know whether it changed since it was read."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from backends.files import Problem, require_writable
from backends.json_files.document.cache import Cached
from backends.json_files.document.patch import Patch
from backends.json_files.document.stamp import Stamp
from backends.json_files.document.text import content_hash, read_document, text_over
from backends.json_files.document.writer import write_in_place
from backends.json_files.journal.journal import Journal
from backends.json_files.journal.writer import JournalWriter
from backends.json_files.legacy.layout import load_document
from backends.json_files.legacy.lens.decoder import decode
from backends.json_files.legacy.lens.encoder import encode
from backends.json_files.task.workspace_state import Shared
from registry_api.errors import Busy, CorruptDocument
from registry_api.records import TaskState, json_text

__all__ = ["DocumentFile", "in_document"]


class DocumentFile:
    """The document of one task, and the state of it that this process has read.

    ``journal`` holds the hash of the document that belongs to its state. Used under the task's
    lock, but for ``is_still``.
    """

    __slots__ = (
        "_journal",
        "_journal_place",
        "_journal_writer",
        "_proven",
        "_shared",
        "_task_id",
        "place",
    )

    def __init__(self, shared: Shared, journal: Journal, journal_writer: JournalWriter) -> None:
        self._shared = shared
        self._journal = journal
        self._journal_writer = journal_writer
        self._task_id = journal.task_id
        self._proven: tuple[Stamp, str] | None = None
        # Paths as text, since every operation uses them.
        self.place = str(shared.layout.document(journal.task_id))
        self._journal_place = str(journal.path)

    @property
    def path(self) -> Path:
        """The path of the document."""
        return Path(self.place)

    # -- its text ----------------------------------------------------------------------------

    def parse(self, data: bytes) -> dict[str, Any]:
        """Return the JSON object in a text of the document; raises CorruptDocument."""
        return load_document(data, path=self.path, task_id=self._task_id)

    def decode(self, document: dict[str, Any]) -> TaskState:
        """Return the records in a parsed document."""
        problems: list[Problem] = []
        return decode(
            document,
            task_id=self._task_id,
            times=self._shared.times,
            path=self.path,
            problems=problems,
        )

    def try_decode(self, data: bytes) -> TaskState | None:
        """Return the records in a text of the document, None if it is not one."""
        try:
            document = self.parse(data)
        except CorruptDocument:
            return None
        return self.decode(document)

    def encode(self, before: TaskState, after: TaskState, document: dict[str, Any]) -> None:
        """Change a parsed document from one state to another."""
        encode(before, after, document, times=self._shared.times)

    def text_for(self, after: TaskState, old: bytes) -> tuple[bytes | None, dict[str, Any]]:
        """Return the document's text for a state, None if it need not change, and its value."""
        state, there = self._journal.state, self.try_decode(old)
        if there is not None and state is not None and in_document(state) == in_document(after):
            return None, {}
        self.forget()
        document: dict[str, Any] = {} if there is None else json_text.parse(old)
        before = TaskState(after.task) if there is None else there
        self.encode(before, self.without_file_handovers(after, before), document)
        return text_over(old, document), document

    def without_file_handovers(self, after: TaskState, theirs: TaskState) -> TaskState:
        """Leave out handovers in files of their own: they do not belong in the document."""
        out = after.copy()
        stems = {p.stem for p in (self.path.parent / "handovers").glob("*.md")}
        for key in stems - theirs.handovers.keys():
            out.handovers.pop(key, None)
        return out

    # -- the cache ---------------------------------------------------------------------------

    def hash_of(self, data: bytes) -> str:
        """Return the hash of a document's bytes.

        Most often the bytes are cached, and comparing them is faster than hashing.
        """
        cached = self._shared.documents.get(self._task_id)
        return cached.hash if cached is not None and cached.data == data else content_hash(data)

    def know(self, found: str, document: dict[str, Any], data: bytes) -> None:
        """Cache the document with the hash ``found``."""
        self._shared.documents.put(self._task_id, Cached(found, document, data))

    def forget(self) -> None:
        """Drop the cached document: a caller is about to change it in memory."""
        self._shared.documents.drop(self._task_id)

    def recorded(self, fd: int) -> Cached:
        """Return the document that the journal's state belongs to; raises Busy if it was changed.

        ``fd`` is the open document.
        """
        cached = self._shared.documents.get(self._task_id)
        if cached is not None and cached.hash == self._journal.hash:
            return cached
        data = read_document(fd)
        if self.hash_of(data) != self._journal.hash:
            raise self.overtaken()
        return Cached(self._journal.hash, json_text.parse_trusted(data), data)

    def overtaken(self) -> Busy:
        """Return the error for a document that changed while it was locked."""
        return Busy(
            f"another program wrote {self.path} without locking it; nothing was changed",
            next_step="Try again: its changes are absorbed first",
            path=self.place,
        )

    # -- whether it changed ------------------------------------------------------------------

    def prove(self, stamp: Stamp, found: str) -> None:
        """Note that the file had the content with the hash ``found`` when it had this stamp."""
        self._proven = (stamp, found)

    def is_proven(self, stamp: Stamp) -> bool:
        """Return whether a file with this stamp has the content that the journal belongs to."""
        if self._proven is None or self._journal.is_empty:
            return False
        known, content = self._proven
        return known.proves(stamp) and content == self._journal.hash

    def is_unchanged(self) -> bool:
        """Return whether document and journal are unchanged since they were last read."""
        try:
            return self.is_still(os.lstat(self.place))
        except (FileNotFoundError, NotADirectoryError):
            return False

    def is_still(self, found: os.stat_result) -> bool:
        """As ``is_unchanged``, for the stat data of a document that the caller has open."""
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
            and content == self._journal.hash
            and self.is_journal_read()
        )

    def is_journal_read(self) -> bool:
        """Return whether the journal is read to its end."""
        try:
            return os.stat(self._journal_place).st_size == self._journal.size  # noqa: PTH116  (hot path)
        except FileNotFoundError:
            return False

    # -- its template ------------------------------------------------------------------------

    @property
    def _template(self) -> Path:
        return self._journal.path.with_suffix(".base")

    def template(self) -> bytes | None:
        """Return the last text of the document that another program wrote, None if it is lost."""
        try:
            return self._template.read_bytes()
        except OSError:
            return None

    def keep_template(self, data: bytes) -> None:
        """Keep a text from which ``rebuild`` takes what the records do not hold."""
        self._shared.replace_file(self._template, data)

    def rebuild(self, fd: int) -> None:
        """Write the document from the records, based on its last text that could be read."""
        state = self._journal.state
        assert state is not None
        try:
            document = self.parse(self.template() or b"")
            before = self.decode(document)
        except CorruptDocument:
            document, before = {}, TaskState(state.task)
        self.encode(before, self.without_file_handovers(state, before), document)
        written = json_text.dump(document, indent=True)
        require_writable(fd, self.path)
        write_in_place(fd, Patch.whole(written), sync=self._shared.sync)
        if content_hash(written) != self._journal.hash:
            writer, at = self._journal_writer, self._shared.now()
            writer.append(writer.same_line(content_hash(written), at, logs={}))
        self.know(self._journal.hash, document, written)


def in_document(state: TaskState) -> TaskState:
    """Return the part of a state that a document holds."""
    return replace(state, latest={})
