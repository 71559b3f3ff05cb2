"""One task whose document is given up as the truth: frozen, moved away, put back."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from contextlib import suppress
from pathlib import Path

from backends.files import open_inside, open_regular
from backends.json_files.content import content_hash, read_document
from backends.json_files.replica import READ_ONLY, Now, ReplicaTask
from backends.json_files.stamp import stamp_of
from registry_api.deadline import at_most
from registry_api.errors import Busy, CorruptDocument, RegistryError, TaskNotFound, Unavailable
from registry_api.ownership import make_folder
from registry_api.snapshot import Head
from registry_api.store import LateWrite

__all__ = ["FrozenTask"]

_YOUNG_NS = 50_000_000  # as stamps: a younger change may have left the times as they are
_LOOK = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
Known = tuple[int, int, int, int]  # device, inode, size, time of change of the content


class FrozenTask(ReplicaTask):
    """A task, frozen and back. ``_left``: the document as it was left frozen, None: to be read;
    ``_at_freeze``: where the task stood then, None: another process froze it.
    """

    _left: Known | None = None
    _at_freeze: Head | None = None

    def mode(self) -> int | None:
        """Return the document's mode, None where there is no regular file."""
        try:
            found = os.lstat(self._document).st_mode
        except OSError:
            return None
        if os.path.islink(self._document.parent):  # noqa: PTH114  (hot path)
            return None
        return stat.S_IMODE(found) if stat.S_ISREG(found) else None

    def is_archived(self) -> bool:
        """Whether the document is removed with phase 4: one that no task was made of stays."""
        self.journal.refresh()
        return not self.journal.is_empty and self.mode() is not None

    def text(self) -> bytes | None:
        """Return the document's bytes, which are the frozen ones; raises CorruptDocument if not."""
        data = self._bytes()
        if data is None or self.journal.is_empty:
            return data  # a new one of an older program: archived as it is
        if content_hash(data) != self.journal.hash:
            raise CorruptDocument(
                f"{self._document} is not what was frozen",
                next_step="Try again: it is put aside first",
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
        """Return what of the frozen document is not as it was, None: nothing.

        One that somebody removed is no difference: the way back writes it from the records.
        """
        try:
            data = self._bytes()
        except OSError:
            return "is no regular file"
        if self.journal.is_empty or data is None:
            return None
        return None if content_hash(data) == self.journal.hash else "is not what was frozen"

    def stranger(self) -> str | None:
        """Return the hash of a document that is no registry of ours; None where there is none."""
        data = self._bytes()
        return None if data is None or not self.journal.is_empty else content_hash(data)

    def take_back(self, data: bytes, *, mode: int) -> None:
        """Take over what an archive holds: as the template, or as the document where it was no
        registry.
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
        """Keep the document's present text: what the way back begins with. Raises Busy.

        In turn with the writers, who keep it too: of two at once one would find nothing to rename.
        """
        with self._lock.held():
            data = self._bytes()
            if data is not None:
                self._keep(data)

    def remove_empty_intent(self) -> None:
        """Leave one file less to be looked at behind the gate, unless somebody writes just now."""
        with suppress(RegistryError, OSError), at_most(0.0), self._lock.held():
            self._intent.remove_empty()

    def _keep(self, data: bytes) -> None:
        with suppress(OSError):
            if self._base.read_bytes() == data:
                return
        self._shared.replace_file(self._base, data)

    # -- freezing ----------------------------------------------------------------------------

    def stands(self, *, settle: bool) -> Head:
        """Return where the task stands; Head() where there is no registry, or none yet. ``settle``:
        what a killed writer left is settled first, whatever the document's stamp says. Raises Busy.
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
        """Settle the task and make its document read-only; returns where it stands.

        A document that vanished is passed over: what the journal knows of it has been taken over.
        """
        try:
            still = self._freeze_still()
            head = self._at_freeze = self._stands() if still else self._freeze()
            return head
        except OSError as error:
            raise self._typed(error) from error

    def _freeze_still(self) -> bool:
        """Freeze a document that nobody has written since it was last looked at: most, and quickly,
        since everybody waits.
        """
        with _LockedAtOnce(self._place) as fd:
            if fd is None:
                return False
            found = os.fstat(fd)
            if not self._is_still(found):
                return False
            os.fchmod(fd, stat.S_IMODE(found.st_mode) & READ_ONLY)
            self._left = _known(found)  # what is still is not young
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
                return Head()  # named by status, and left alone
            if not os.path.lexists(self._document):
                return self._stands()
            self._prove()
        raise Busy(f"{self._document} does not come to rest", next_step="Try again")

    def _prove(self) -> None:
        """Read the document under its lock, however young it is: nobody of ours writes it now."""
        with suppress(FileNotFoundError), self._held() as fd:
            stamp = stamp_of(fd)
            if content_hash(read_document(fd)) == self.journal.hash:
                self._proven = (stamp.settled(), self.journal.hash)

    def _stands(self) -> Head:
        return self.journal.head()

    def sweep(self) -> Head | None:
        """Take in what was written since ``freeze``; returns where the task stands if it moved,
        also where whoever read it meanwhile has taken that in.
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
            return  # whoever holds it will have written a straggler
        with suppress(RegistryError), self._lock.held() as deadline:
            self._settled(deadline)
        self.set_writable(self._document, writable=False)

    def _is_as_left(self) -> bool:
        """Whether the document is as it was frozen, and nobody has it locked."""
        with _LockedAtOnce(self._place) as fd:
            return fd is not None and self._left == _known(os.fstat(fd))

    # -- removal and the way back ------------------------------------------------------------

    def put_aside(self, data: bytes, now: Now) -> LateWrite | None:
        """Keep bytes that another program wrote too late."""
        return self._put_aside(data, content_hash(data), now)

    def move_to(self, place: Path) -> None:
        """Move the document away under its locks, the inode kept."""
        with self._lock.held(), suppress(FileNotFoundError), self._held():
            self._document.rename(place)
            self._shared.sync_folder(place.parent)

    def reinstate(self, aside: Path | None) -> None:
        """Put the document back as it was frozen, or lies aside, where it is not there."""
        self.journal.refresh()
        if self.journal.is_empty and aside is None:
            return
        with self._lock.held():
            if os.path.lexists(self._document):
                if self.mode() is None:
                    raise CorruptDocument(
                        f"{self._document} is no regular file",
                        next_step="Move it away and try again: the document is put in its place",
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
            # The template is of an earlier state, or lost: the records are what counts.
            fd = open_regular(fresh, os.O_RDWR)
            try:
                self._rebuild(fd)
            finally:
                os.close(fd)
        self.set_writable(fresh, writable=False)
        fresh.rename(self._document)
        self._shared.sync_folder(self._document.parent)


class _LockedAtOnce:
    """A document open for a look and locked, without a wait: None where it is not there, or
    somebody else has it locked. Quick, since everybody waits.
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
    """Return what tells a later change of the content, unless it is young."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
