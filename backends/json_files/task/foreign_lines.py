"""Journal what other programs wrote: the lines they appended to logs, and changes of documents."""

from __future__ import annotations

import hashlib
import uuid

from backends.json_files.journal.lines import FOREIGN
from backends.json_files.task.task_files import TaskFiles
from registry_api.records import (
    Limits,
    Op,
    Put,
    ValidatedChangeset,
    new_changeset,
    validate_changeset,
)

__all__ = ["ForeignLines"]

_BATCH = 500
_UNLIMITED = Limits(ops=10**9, changeset_bytes=2**40)


class ForeignLines:
    """Journals foreign changes, which are in the files already."""

    __slots__ = ("_files",)

    def __init__(self, files: TaskFiles) -> None:
        self._files = files

    def absorb(self) -> None:
        """Absorb the lines that other programs appended, as history and signs of life."""
        files, journal = self._files, self._files.journal
        records, offsets = files.logs.unread(journal)
        if not offsets:
            return
        if not records:
            writer = files.journal_writer
            writer.append(writer.same_line(journal.hash, files.shared.now(), logs=offsets))
        batches = [records[n : n + _BATCH] for n in range(0, len(records), _BATCH)]
        for place, batch in enumerate(batches):
            last = place == len(batches) - 1
            self.commit(
                [Put(r) for r in batch],
                expected=None,
                before=journal.hash,
                after=journal.hash,
                logs=offsets if last else {},
            )

    def commit(
        self,
        ops: list[Op],
        *,
        expected: int | None,
        before: str,
        after: str,
        logs: dict[str, int] | None = None,
    ) -> None:
        """Journal a foreign change.

        ``before`` and ``after`` are the document's hashes, ``logs`` how far the logs are then read.
        """
        change = self.changeset(ops, expected=expected, before=before, after=after)
        files, journal = self._files, self._files.journal
        number = files.draw_number()
        line = files.journal_writer.change_line(
            change.changeset,
            digest=change.digest,
            text=change.text,
            number=number,
            hash_after=after,
            logs=logs or {},
            lineage=journal.lineage or str(uuid.uuid4()),
            trim_to=None,
        )
        files.journal_writer.append(line)
        files.intent.clear()

    def changeset(
        self, ops: list[Op], *, expected: int | None, before: str, after: str
    ) -> ValidatedChangeset:
        """Return the changeset of a foreign change; its id is derived from the change."""
        journal, task_id = self._files.journal, self._files.task_id
        seed = f"{journal.lineage} {task_id} {journal.revision + 1} {before} {after}"
        digest = bytearray(hashlib.sha256(seed.encode()).digest()[:16])
        digest[6] = digest[6] & 0x0F | 0x80
        digest[8] = digest[8] & 0x3F | 0x80
        changeset = new_changeset(
            task_id,
            ops,
            expected=expected,
            actor=FOREIGN,
            at=self._files.shared.now(),
            changeset_id=uuid.UUID(bytes=bytes(digest)),
        )
        return validate_changeset(changeset, _UNLIMITED, derived=True)
