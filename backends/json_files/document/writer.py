"""Write a document in place, so that the next process recognises an interrupted write.

The inode must stay the same: legacy programs wait in flock on the file itself, and after a rename
their acknowledged write would go into a file that no longer has a name.

A patch of a known text is one ``pwrite`` within the file's length; blanks first extend the file if
it is too short. So a reader without a lock finds the old text or the new one, except during that
call. What a kill or a power loss leaves is recognised by its pages and sectors (``Patch.is_torn``).
A text that replaces an unknown one is written with NUL in byte 0 until it is complete, each step on
disk before the next: the old text did not parse, or was a late write over the frozen text.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from backends.json_files.document.patch import Patch

__all__ = ["pwrite_all", "write_again", "write_in_place"]


def write_in_place(fd: int, patch: Patch, *, sync: Callable[[int], None]) -> None:
    """Patch the content of an open file; raises OSError, after which the file may be torn."""
    if patch.over is None:
        _write_whole(fd, patch.data, sync)
        return
    size = patch.over.size
    if patch.size > size:
        _make_longer(fd, size, patch.size)
    pwrite_all(fd, patch.data + b" " * (size - patch.size), patch.start)
    sync(fd)
    if patch.size < size:
        os.ftruncate(fd, patch.size)
        sync(fd)


def write_again(fd: int, patch: Patch, *, sync: Callable[[int], None]) -> None:
    """Write the bytes of a patch again over the same bytes, and sync.

    What a killed writer left, or one whose sync failed, may be in memory only: after a failed sync
    the kernel treats the page as clean.
    """
    pwrite_all(fd, patch.first, 0)
    pwrite_all(fd, patch.data, patch.start)
    sync(fd)


def _make_longer(fd: int, size: int, wanted: int) -> None:
    """Append blanks: a full disk fails here, before anything was overwritten."""
    try:
        pwrite_all(fd, b" " * (wanted - size), size)
    except OSError:
        with suppress(OSError):
            os.ftruncate(fd, size)
        raise


def _write_whole(fd: int, data: bytes, sync: Callable[[int], None]) -> None:
    size = os.fstat(fd).st_size
    if len(data) > size and hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, len(data))
    if size:
        os.pwrite(fd, b"\x00", 0)
        sync(fd)
    pwrite_all(fd, data[1:], 1)
    if size > len(data):
        os.ftruncate(fd, len(data))
    sync(fd)
    os.pwrite(fd, data[:1], 0)
    sync(fd)


def pwrite_all(fd: int, data: bytes, offset: int) -> None:
    """Write all bytes, in one call unless a signal or a full disk interrupts it.

    A reader without a lock may see the file between two calls.
    """
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest, offset)
        rest, offset = rest[written:], offset + written
