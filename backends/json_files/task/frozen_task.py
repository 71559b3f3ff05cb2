"""One task of a migration source: its document is frozen, moved away and put back."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from contextlib import suppress
from pathlib import Path

from backends.files import open_inside, open_regular
from backends.json_files.document.stamp import stamp_of
from backends.json_files.document.text import content_hash, read_document
from backends.json_files.task.replica import READ_ONLY, Now, ReplicaTask
from registry_api.capabilities import LateWrite
from registry_api.errors import Busy, CorruptDocument, RegistryError, TaskNotFound, Unavailable
from registry_api.records import Head
from registry_api.workspace import at_most, make_folder

__all__ = ["FrozenTask"]

_YOUNG_NS = 50_000_000  # as in stamp.py: a younger change may have left the file's times unchanged
_LOOK = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
Known = tuple[int, int, int, int]  # device, inode, size, mtime (ns)


class FrozenTask(ReplicaTask):
    """A task whose document can be frozen, removed and reinstated.

    ``_left`` identifies the document's content at the freeze, None: the document must be read.
    ``_at_freeze`` is the task's head at the freeze, None: another process froze it.
    """

    _left: Known | None = None
    _at_freeze: Head | None = None

    def mode(self) -> int | None:
        """Return the document's mode, None if there is no regular file."""
        try:
            found = os.lstat(self._document).st_mode
        except OSError:
            return None
        if os.path.islink(self._document.parent):  # noqa: PTH114  (hot path)
            return None
        return stat.S_IMODE(found) if stat.S_ISREG(found) else None

    def is_archived(self) -> bool:
        """Return whether phase 4 removes the document: one that no task was read from stays."""
        self.journal.refresh()
        return not self.journal.is_empty and self.mode() is not None

    def text(self) -> bytes | None:
        """Return the document's bytes; raises CorruptDocument if they are not the frozen ones."""
        data = self._bytes()
        if data is None or self.journal.is_empty:
            return data  # a new document of a legacy program: archived as it is
        if content_hash(data) != self.journal.hash:
            raise CorruptDocument(
                f"{self._document} changed after the freeze",
                next_step="Try again: the late write is first kept in .registry/conflicts",
                path=str(self._document),
            )
        return data

    def _bytes(self) -> bytes | None:
        self.journal.refresh()
        try:
            with open(open_inside(self._document), "rb") as file:  # noqa: PTH123  (a descriptor)
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
        if self.journal.is_empty or data is None:
            return None
        return None if content_hash(data) == self.journal.hash else "changed after the freeze"

    def stranger(self) -> str | None:
        """Return the hash of a document that no task was read from, None if there is none."""
        data = self._bytes()
        return None if data is None or not self.journal.is_empty else content_hash(data)

    def take_back(self, data: bytes, *, mode: int) -> None:
        """Restore a document from an archive.

        It becomes the template of the task's document, or the document itself if no task was read
        from it.
        """
        self.journal.refresh()
        if self.journal.is_empty:
            if not os.path.lexists(self._document):
                make_folder(self._document.parent, parents=True)
                fresh = self._document.with_name(f".{self._document.name}.back")
                self._shared.write_file(fresh, data, mode=mode)
                fresh.rename(self._document)
                self._shared.sync_folder(self._document.parent)
        elif content_hash(data) == self.journal.hash:
            self._keep(data)

    def keep_template(self) -> None:
        """Keep the document's current text as the template of a rollback. Raises Busy.

        Under the side lock, since writers replace the same file: of two concurrent callers one
        would find its temporary file renamed already.
        """
        with self._lock.held():
            data = self._bytes()
            if data is not None:
                self._keep(data)

    def remove_empty_intent(self) -> None:
        """Remove an empty intent file, unless somebody is writing.

        It is then one file less to check while the gate is held.
        """
        with suppress(RegistryError, OSError), at_most(0.0), self._lock.held():
            self._intent.remove_empty()

    def _keep(self, data: bytes) -> None:
        with suppress(OSError):
            if self._base.read_bytes() == data:
                return
        self._shared.replace_file(self._base, data)

    # -- freezing ----------------------------------------------------------------------------

    def stands(self, *, settle: bool) -> Head:
        """Return the task's head; Head() if there is no readable registry. Raises Busy.

        ``settle``: settle a killed writer's intent first, even if the document's stamp is
        unchanged.
        """
        if not settle:
            with suppress(FileNotFoundError):
                if self._is_still(os.lstat(self._place)):
                    return self._stands()
        try:
            self.current()
        except Busy:
            raise
        except (TaskNotFound, CorruptDocument, Unavailable):
            if self.journal.is_empty:
                return Head()
            raise
        return self._stands()

    def freeze(self) -> Head:
        """Settle the task and make its document read-only; return the task's head.

        A document that vanished is skipped: the target already has what the journal holds of it.
        """
        try:
            still = self._freeze_still()
            head = self._at_freeze = self._stands() if still else self._freeze()
            return head
        except OSError as error:
            raise self._typed(error) from error

    def _freeze_still(self) -> bool:
        """Freeze a document that nobody has written since it was last read; return whether it was.

        Most documents are frozen here. This must be fast: writers wait while the gate is held.
        """
        with _LockedAtOnce(self._place) as fd:
            if fd is None:
                return False
            found = os.fstat(fd)
            if not self._is_still(found):
                return False
            os.fchmod(fd, stat.S_IMODE(found.st_mode) & READ_ONLY)
            self._left = _known(found)  # an unchanged document is not young
            return True

    def _freeze(self) -> Head:
        for _ in range(3):
            with suppress(FileNotFoundError), self._held() as fd:
                stamp = stamp_of(fd)
                if self._is_proven(stamp) and self._is_read():
                    found = os.fstat(fd)
                    os.fchmod(fd, stat.S_IMODE(found.st_mode) & READ_ONLY)
                    young = found.st_mtime_ns >= time.time_ns() - _YOUNG_NS
                    self._left = None if young else _known(found)
                    return self._stands()
            if not self.stands(settle=True).revision:
                return Head()  # reported by `status`, and left alone
            if not os.path.lexists(self._document):
                return self._stands()
            self._prove()
        raise Busy(f"{self._document} keeps changing", next_step="Try again")

    def _prove(self) -> None:
        """Read the document under its lock and trust even a young stamp: none of us writes now."""
        with suppress(FileNotFoundError), self._held() as fd:
            stamp = stamp_of(fd)
            if content_hash(read_document(fd)) == self.journal.hash:
                self._proven = (stamp.settled(), self.journal.hash)

    def _stands(self) -> Head:
        return self.journal.head()

    def sweep(self) -> Head | None:
        """Absorb what was written since ``freeze``; return the task's head if it changed.

        It has changed too if a reader absorbed the write in the meantime.
        """
        if not self._is_as_left():
            self._take_in()
        if self._at_freeze is None:
            self.journal.refresh()
        head = self._stands()
        return head if head != (self._at_freeze or Head()) else None

    def _take_in(self) -> None:
        try:
            with self._held() as fd:
                if content_hash(read_document(fd)) == self.journal.hash:
                    return
        except (FileNotFoundError, Busy):
            return  # whatever the holder of its lock writes is a late write
        with suppress(RegistryError), self._lock.held() as deadline:
            self._settled(deadline)
        self.set_writable(self._document, writable=False)

    def _is_as_left(self) -> bool:
        """Return whether the document is unchanged since the freeze and not locked."""
        with _LockedAtOnce(self._place) as fd:
            return fd is not None and self._left == _known(os.fstat(fd))

    # -- removal and rollback ----------------------------------------------------------------

    def put_aside(self, data: bytes, now: Now) -> LateWrite | None:
        """Keep the bytes of a late write in ``.registry/conflicts``."""
        return self._put_aside(data, content_hash(data), now)

    def move_to(self, place: Path) -> None:
        """Move the document to ``place`` under its locks; its inode stays the same."""
        with self._lock.held(), suppress(FileNotFoundError), self._held():
            self._document.rename(place)
            self._shared.sync_folder(place.parent)

    def reinstate(self, aside: Path | None) -> None:
        """Put a missing document back as it was frozen.

        ``aside``: the file that a removal had moved it to, None: write it from the template.
        """
        self.journal.refresh()
        if self.journal.is_empty and aside is None:
            return
        with self._lock.held():
            if os.path.lexists(self._document):
                if self.mode() is None:
                    raise CorruptDocument(
                        f"{self._document} is not a regular file",
                        next_step="Move it away and try again: the document is written there",
                        path=str(self._document),
                    )
                return
            make_folder(self._document.parent, parents=True)
            if aside is not None:
                aside.rename(self._document)
                self._shared.sync_folder(self._document.parent)
                return
            self._put_back()

    def _put_back(self) -> None:
        base = self._base.read_bytes() if self._base.exists() else b""
        fresh = self._document.with_name(f".{self._document.name}.back")
        self._shared.write_file(fresh, base, mode=0o644)
        if content_hash(base) != self.journal.hash:
            # The template is of an earlier state, or lost: write the document from the records.
            fd = open_regular(fresh, os.O_RDWR)
            try:
                self._rebuild(fd)
            finally:
                os.close(fd)
        self.set_writable(fresh, writable=False)
        fresh.rename(self._document)
        self._shared.sync_folder(self._document.parent)


class _LockedAtOnce:
    """A document opened for reading and locked, without waiting for the lock.

    Gives None if it does not exist or another process has it locked. This must be fast: writers
    wait while the gate is held.
    """

    __slots__ = ("_fd", "_place")

    def __init__(self, place: str) -> None:
        self._place = place

    def __enter__(self) -> int | None:
        self._fd = -1
        try:
            self._fd = os.open(self._place, _LOOK)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (FileNotFoundError, BlockingIOError):
            return None
        except OSError:
            self.__exit__()
            raise
        return self._fd

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)


def _known(found: os.stat_result) -> Known:
    """Return what differs after a later change of the content, unless the file is young."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
