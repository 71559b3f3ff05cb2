"""The document of a task that a move has frozen: archived, moved away and put back."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from backends.files import open_inside, open_regular
from backends.json_files.document.mode import set_writable
from backends.json_files.document.text import content_hash
from backends.json_files.task.task_files import TaskFiles
from registry_api.errors import CorruptDocument, RegistryError
from registry_api.workspace import at_most, make_folder

__all__ = ["FrozenDocument"]


class FrozenDocument:
    """The document of one task before, during and after the phases in which it is frozen."""

    __slots__ = ("_document", "_files", "_journal", "_path", "_shared")

    def __init__(self, files: TaskFiles) -> None:
        self._files = files
        self._document = files.document
        self._journal = files.journal
        self._path = files.document.path
        self._shared = files.shared

    def mode(self) -> int | None:
        """Return the document's mode, None if there is no regular file."""
        try:
            found = os.lstat(self._path).st_mode
        except OSError:
            return None
        if os.path.islink(self._path.parent):  # noqa: PTH114  (hot path)
            return None
        return stat.S_IMODE(found) if stat.S_ISREG(found) else None

    def is_archived(self) -> bool:
        """Return whether phase 4 removes the document: one that no task was read from stays."""
        self._journal.refresh()
        return not self._journal.is_empty and self.mode() is not None

    def text(self) -> bytes | None:
        """Return the document's bytes; raises CorruptDocument if they are not the frozen ones."""
        data = self._bytes()
        if data is None or self._journal.is_empty:
            return data  # a new document of a legacy program: archived as it is
        if content_hash(data) != self._journal.hash:
            raise CorruptDocument(
                f"{self._path} changed after the freeze",
                next_step="Try again: the late write is first kept in .registry/conflicts",
                path=str(self._path),
            )
        return data

    def _bytes(self) -> bytes | None:
        self._journal.refresh()
        try:
            with open(open_inside(self._path), "rb") as file:  # noqa: PTH123  (a descriptor)
                return file.read()
        except FileNotFoundError:
            return None

    def difference(self) -> str | None:
        """Return how the document differs from its frozen text, None if it does not.

        A removed document is not a difference: a rollback writes it from the records.
        """
        try:
            data = self._bytes()
        except OSError:
            return "is not a regular file"
        if self._journal.is_empty or data is None:
            return None
        return None if content_hash(data) == self._journal.hash else "changed after the freeze"

    def stranger(self) -> str | None:
        """Return the hash of a document that no task was read from, None if there is none."""
        data = self._bytes()
        return None if data is None or not self._journal.is_empty else content_hash(data)

    def take_back(self, data: bytes, *, mode: int) -> None:
        """Restore a document from an archive.

        It becomes the template of the task's document, or the document itself if no task was read
        from it.
        """
        self._journal.refresh()
        if self._journal.is_empty:
            if not os.path.lexists(self._path):
                make_folder(self._path.parent, parents=True)
                fresh = self._path.with_name(f".{self._path.name}.back")
                self._shared.write_file(fresh, data, mode=mode)
                fresh.rename(self._path)
                self._shared.sync_folder(self._path.parent)
        elif content_hash(data) == self._journal.hash:
            self._keep(data)

    def keep_template(self) -> None:
        """Keep the document's current text as the template of a rollback. Raises Busy.

        Under the side lock, since writers replace the same file: of two concurrent callers one
        would find its temporary file renamed already.
        """
        with self._files.held():
            data = self._bytes()
            if data is not None:
                self._keep(data)

    def remove_empty_intent(self) -> None:
        """Remove an empty intent file, unless somebody is writing.

        It is then one file less to check while the gate is held.
        """
        with suppress(RegistryError, OSError), at_most(0.0), self._files.held():
            self._files.intent.remove_empty()

    def _keep(self, data: bytes) -> None:
        if self._document.template() != data:
            self._document.keep_template(data)

    def move_to(self, place: Path) -> None:
        """Move the document to ``place`` under its locks; its inode stays the same."""
        with self._files.held(), suppress(FileNotFoundError), self._files.locked_for_reading():
            self._path.rename(place)
            self._shared.sync_folder(place.parent)

    def reinstate(self, aside: Path | None) -> None:
        """Put a missing document back as it was frozen.

        ``aside``: the file that a removal had moved it to, None: write it from the template.
        """
        self._journal.refresh()
        if self._journal.is_empty and aside is None:
            return
        with self._files.held():
            if os.path.lexists(self._path):
                if self.mode() is None:
                    raise CorruptDocument(
                        f"{self._path} is not a regular file",
                        next_step="Move it away and try again: the document is written there",
                        path=str(self._path),
                    )
                return
            make_folder(self._path.parent, parents=True)
            if aside is not None:
                aside.rename(self._path)
                self._shared.sync_folder(self._path.parent)
                return
            self._put_back()

    def _put_back(self) -> None:
        base = self._document.template() or b""
        fresh = self._path.with_name(f".{self._path.name}.back")
        self._shared.write_file(fresh, base, mode=0o644)
        if content_hash(base) != self._journal.hash:
            # The template is of an earlier state, or lost: write the document from the records.
            fd = open_regular(fresh, os.O_RDWR)
            try:
                self._document.rebuild(fd)
            finally:
                os.close(fd)
        set_writable(fresh, writable=False)
        fresh.rename(self._path)
        self._shared.sync_folder(self._path.parent)
