"""Freeze the document of one task: settled, read-only, and read once more afterwards."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress

from backends.json_files.document.mode import READ_ONLY, set_writable
from backends.json_files.document.stamp import stamp_of
from backends.json_files.document.text import content_hash, read_document
from backends.json_files.task.task_files import TaskFiles
from registry_api.errors import Busy, RegistryError
from registry_api.records import Head

__all__ = ["Freezer"]

_YOUNG_NS = 50_000_000  # as in stamp.py: a younger change may have left the file's times unchanged
_LOOK = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
Known = tuple[int, int, int, int]  # device, inode, size, mtime (ns)


class Freezer:
    """Freezes one task.

    ``_left`` identifies the document's content at the freeze, None: the document must be read.
    ``_at_freeze`` is the task's head at the freeze, None: another process froze it.
    """

    __slots__ = (
        "_at_freeze",
        "_document",
        "_files",
        "_journal",
        "_left",
        "_settle",
        "_settled_head",
    )

    def __init__(
        self,
        files: TaskFiles,
        *,
        head: Callable[[], Head],
        settle: Callable[[float], None],
    ) -> None:
        self._files = files
        self._document = files.document
        self._journal = files.journal
        self._settle = settle
        self._settled_head = head
        self._left: Known | None = None
        self._at_freeze: Head | None = None

    def freeze(self) -> Head:
        """Settle the task and make its document read-only; return the task's head.

        A document that vanished is skipped: the target already has what the journal holds of it.
        """
        try:
            still = self._freeze_still()
            head = self._at_freeze = self._journal.head() if still else self._freeze()
            return head
        except OSError as error:
            raise self._files.typed(error) from error

    def _freeze_still(self) -> bool:
        """Freeze a document that nobody has written since it was last read; return whether it was.

        Most documents are frozen here. This must be fast: writers wait while the gate is held.
        """
        with _LockedAtOnce(self._document.place) as fd:
            if fd is None:
                return False
            found = os.fstat(fd)
            if not self._document.is_still(found):
                return False
            os.fchmod(fd, stat.S_IMODE(found.st_mode) & READ_ONLY)
            self._left = _known(found)  # an unchanged document is not young
            return True

    def _freeze(self) -> Head:
        for _ in range(3):
            with suppress(FileNotFoundError), self._files.locked_for_reading() as fd:
                stamp = stamp_of(fd)
                if self._document.is_proven(stamp) and self._document.is_journal_read():
                    found = os.fstat(fd)
                    os.fchmod(fd, stat.S_IMODE(found.st_mode) & READ_ONLY)
                    young = found.st_mtime_ns >= time.time_ns() - _YOUNG_NS
                    self._left = None if young else _known(found)
                    return self._journal.head()
            if not self._settled_head().revision:
                return Head()  # reported by `status`, and left alone
            if not os.path.lexists(self._document.path):
                return self._journal.head()
            self._prove()
        raise Busy(f"{self._document.path} keeps changing", next_step="Try again")

    def _prove(self) -> None:
        """Read the document under its lock and trust even a young stamp: none of us writes now."""
        with suppress(FileNotFoundError), self._files.locked_for_reading() as fd:
            stamp = stamp_of(fd)
            if content_hash(read_document(fd)) == self._journal.hash:
                self._document.prove(stamp.settled(), self._journal.hash)

    def sweep(self) -> Head | None:
        """Absorb what was written since ``freeze``; return the task's head if it changed.

        It has changed too if a reader absorbed the write in the meantime.
        """
        if not self._is_as_left():
            self._take_in()
        if self._at_freeze is None:
            self._journal.refresh()
        head = self._journal.head()
        return head if head != (self._at_freeze or Head()) else None

    def _take_in(self) -> None:
        try:
            with self._files.locked_for_reading() as fd:
                if content_hash(read_document(fd)) == self._journal.hash:
                    return
        except (FileNotFoundError, Busy):
            return  # whatever the holder of its lock writes is a late write
        with suppress(RegistryError), self._files.held() as deadline:
            self._settle(deadline)
        set_writable(self._document.path, writable=False)

    def _is_as_left(self) -> bool:
        """Return whether the document is unchanged since the freeze and not locked."""
        with _LockedAtOnce(self._document.place) as fd:
            return fd is not None and self._left == _known(os.fstat(fd))


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
