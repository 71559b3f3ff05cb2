"""What appends lines to a journal; used under the task's lock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from backends.json_files.journal import lines
from backends.json_files.journal.journal import Journal
from backends.json_files.journal.retention import expired
from registry_api.records import Changeset, next_chain

__all__ = ["JournalWriter"]

_BASE_FACTOR = 4


class JournalWriter:
    """Appends lines to one journal, durably, and applies them."""

    __slots__ = ("_journal", "_sync", "_sync_folder")

    def __init__(
        self, journal: Journal, sync: Callable[[int], None], sync_folder: Callable[[Path], None]
    ) -> None:
        self._journal = journal
        self._sync = sync
        self._sync_folder = sync_folder

    def change_line(
        self,
        changeset: Changeset,
        *,
        digest: str,
        text: str,
        number: int,
        hash_after: str,
        lineage: str,
        logs: dict[str, int] | None = None,
        trim_to: tuple[int, datetime] | None = None,
        revision: int | None = None,
        chain: str | None = None,
        shown: bool = True,
    ) -> bytes:
        """Return the line of a change, of the next revision unless ``revision`` is given, and then
        ``chain``.

        See lines.change_line.
        """
        journal = self._journal
        if revision is None:
            revision = journal.revision + 1
        return lines.change_line(
            changeset,
            digest=digest,
            chain=next_chain(journal.chain, revision, digest) if chain is None else chain,
            text=text,
            revision=revision,
            number=number,
            hash_after=hash_after,
            logs=logs or {},
            lineage=lineage,
            base=journal.known.base,
            trim_to=trim_to,
            shown=shown,
        )

    def same_line(self, hash_after: str, at: datetime, *, logs: dict[str, int]) -> bytes:
        """Return the line of a foreign write that changed no record."""
        return lines.same_line(hash_after, at, base=self._journal.known.base, logs=logs)

    def trimmed(self, now: datetime) -> tuple[int, datetime] | None:
        """Return ``trim_to`` of the next change line: None unless lines have expired."""
        return expired(self._journal.known, self._journal.known_ids(), now)

    def make_room(self, size: int) -> None:
        """Reserve space for the next line, so that a full disk fails before the write.

        Readers ignore it: it has no newline.
        """
        self._journal.file.reserve(self._journal.size, size)

    def give_room_back(self) -> None:
        """Cut off space that a killed or failed writer reserved and did not fill."""
        self._journal.file.cut(self._journal.size)

    def append(self, data: bytes) -> None:
        """Append complete lines durably and apply them, overwriting what a kill left of one."""
        self._journal.extend(data, self._write)

    def _write(self, data: bytes, size: int) -> int:
        inode = self._journal.file.write(data, size, sync=self._sync)
        if not size:
            self._sync_folder(self._journal.path.parent)
        return inode

    def rebase(self, document_size: int) -> None:
        """Append a base line if the lines after the last one exceed four times the document."""
        known = self._journal.known
        if known.tail >= _BASE_FACTOR * max(document_size, 4096):
            self.append(known.base_line())
