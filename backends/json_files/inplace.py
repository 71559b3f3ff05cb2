"""Write a document in place, so that a write that was cut off is recognised by whoever comes next.

The inode must stay: legacy programs wait in flock on the file itself, and a rename would send their
acknowledged write into a file that nobody can see.

A patch for a known text is one ``pwrite`` within the file's length, which blanks make long enough
before: a reader without a lock finds one text or the other, but in the moment of that call. What a
kill or a power loss leaves is known by its pages and sectors (``Patch.is_torn``). A text that
replaces an unknown one is marked by NUL in byte 0 while it is written, each step on disk before the
next: what was there did not parse, or is a late write over the frozen text.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from backends.json_files.patch import Patch

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
    """Write the bytes of a patch over themselves and sync: what a killed writer left there, or one
    whose sync failed, may be in memory only, and a page that failed counts as clean.
    """
    pwrite_all(fd, patch.first, 0)
    pwrite_all(fd, patch.data, patch.start)
    sync(fd)


def _make_longer(fd: int, size: int, wanted: int) -> None:
    """Append blanks: a full disk shows here, where nothing was written over."""
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
    """Write all bytes, in one call unless a signal or a full disk cuts it short: a reader without a
    lock sees each call.
    """
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest, offset)
        rest, offset = rest[written:], offset + written
