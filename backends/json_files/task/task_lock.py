"""The locks of one task: our writers queue on a side lock, then lock as legacy programs do.

Legacy programs poll the document's flock every 100 ms and give up after 10 s. Our writers therefore
leave the document unlocked at least a quarter of the time they use it, however many they are: the
writer that unlocks it notes until when, and the next one waits until then (without this a legacy
program next to one busy writer timed out 2 of 2 times, with it 0 of 74).
"""

from __future__ import annotations

import fcntl
import os
import random
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from backends.files import open_frozen, open_inside
from registry_api.errors import Busy
from registry_api.workspace import (
    Flock,
    ForkSafeLock,
    give_way,
    giving_way,
    holders_in_words,
    note_wait,
    patience,
)

__all__ = ["TaskLock", "lock_document"]

_PAUSE = 0.0005
_FREE_SHARE = 1 / 3  # of the time held: a quarter of the whole


class TaskLock:
    """The lock that serialises this process's threads and all processes on one task."""

    def __init__(
        self, path: Path, document: Path, *, timeout: float, read_only: Callable[[], bool]
    ) -> None:
        self._path = path
        self._document = document
        self._timeout = timeout
        self._read_only = read_only
        self._thread = ForkSafeLock()
        self._side = Flock(path)

    @contextmanager
    def held(self) -> Iterator[float]:
        """Hold the side lock; gives the monotonic deadline for waits inside."""
        deadline = time.monotonic() + patience(self._timeout)
        if not self._thread.acquire(timeout=deadline - time.monotonic(), path=self._path):
            raise Busy(f"another thread works on {self._document.parent}", next_step="Try again")
        try:
            with self._side.exclusive(max(0.0, deadline - time.monotonic())):
                yield deadline
        finally:
            self._side.close()  # there may be more tasks than descriptors for a process
            self._thread.release()

    @contextmanager
    def idle(self) -> Iterator[bool]:
        """Keep this process's other threads out; gives False if one already holds the lock."""
        free = self._thread.acquire(timeout=0)
        try:
            yield free
        finally:
            if free:
                self._thread.release()

    @contextmanager
    def document(self, deadline: float, *, create: bool = False) -> Iterator[int]:
        """Lock the document, inside ``held``; gives its descriptor.

        It is open for reading and writing, or only for reading if this user may not write the file.
        With ``create`` the document is created exclusively. Raises FileNotFoundError if there is
        none, Busy if a legacy program keeps it locked until the deadline.
        """
        self._leave_free()
        fd = self._open_locked(deadline, create=create)
        start = time.monotonic()
        try:
            yield fd
        finally:
            # Unlock explicitly: a forked child may hold another descriptor of the same open file.
            fcntl.flock(fd, fcntl.LOCK_UN)
            _close(fd)
            now = time.monotonic()
            self._note_free_until(now + (now - start) * _FREE_SHARE)

    def _open_locked(self, deadline: float, *, create: bool) -> int:
        while True:
            if create:
                fd = open_inside(self._document, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            else:
                fd = self._open()
            _open_documents.add(fd)
            try:
                with giving_way(None) if create else nullcontext():  # the file exists by now
                    lock_document(fd, self._document, deadline)
                if os.fstat(fd).st_ino == os.lstat(self._document).st_ino:
                    return fd
            except BaseException:
                _close(fd)
                raise
            # An editor or a checkout replaced the file while we waited: we locked the old one.
            _close(fd)
            create = False

    def _open(self) -> int:
        try:
            return open_inside(self._document, os.O_RDWR)
        except PermissionError:
            if self._read_only():
                with suppress(PermissionError):  # it is another user's
                    return open_frozen(self._document)
            return open_inside(self._document)  # enough for a caller that only reads

    def _leave_free(self) -> None:
        try:
            noted = self._path.read_bytes()
        except FileNotFoundError:
            return
        if len(noted) == 8:
            left: float = struct.unpack("<d", noted)[0] - time.monotonic()
            # More than a second is not meant: the note is from the clock of an earlier boot.
            if 0 < left < 1:
                time.sleep(left)

    def _note_free_until(self, moment: float) -> None:
        # The work is done: a full disk must not make it fail here.
        with suppress(OSError):
            fd = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.pwrite(fd, struct.pack("<d", moment), 0)
            finally:
                os.close(fd)

    def close(self) -> None:
        """Close the side lock's descriptor."""
        self._side.close()


def lock_document(fd: int, path: Path, deadline: float) -> None:
    """Lock an open document as legacy programs do; raises Busy, naming the holder."""
    start = time.monotonic()
    try:
        _poll(fd, path, deadline)
    finally:
        note_wait(time.monotonic() - start)


def _poll(fd: int, path: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise Busy(
                    f"{path} is locked by {holders_in_words(path)}",
                    next_step="Try again; if it stays locked, check what that process is doing",
                    path=str(path),
                ) from None
            give_way(path)
            time.sleep(random.uniform(_PAUSE / 2, _PAUSE))
        else:
            return


# A forked child closes the inherited descriptors without unlocking: otherwise the lock of a killed
# parent would live on in the child.
_open_documents = set[int]()


def _close(fd: int) -> None:
    _open_documents.discard(fd)
    os.close(fd)


def _forget_in_child() -> None:
    for fd in list(_open_documents):
        _close(fd)


os.register_at_fork(after_in_child=_forget_in_child)
