"""Detect whether a file may have changed: compare stat data as git does, with its racy rule."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

__all__ = ["Stamp", "stamp_of", "stat_stamp"]

# A change within one tick of the file system's clock does not change the times (1 to 10 ms on
# kernels without fine-grained times).
_RACY_NS = 50_000_000


@dataclass(frozen=True, slots=True)
class Stamp:
    """The stat data of a file; ``racy``: too young to prove that nothing changed since."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    racy: bool

    def proves(self, other: Stamp) -> bool:
        """Return whether this earlier stamp shows that the file did not change until ``other``."""
        return not self.racy and self.key() == other.key()

    def settled(self) -> Stamp:
        """Return the stamp as not ``racy``, for a caller whose file is checked again."""
        return replace(self, racy=False)

    def key(self) -> tuple[int, int, int, int, int]:
        """Return everything but ``racy``."""
        return self.device, self.inode, self.size, self.mtime_ns, self.ctime_ns


def _of(found: os.stat_result) -> Stamp:
    newest = max(found.st_mtime_ns, found.st_ctime_ns)
    return Stamp(
        found.st_dev,
        found.st_ino,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
        racy=time.time_ns() - newest < _RACY_NS,
    )


def stamp_of(fd: int) -> Stamp:
    """Return the stamp of an open file."""
    return _of(os.fstat(fd))


def stat_stamp(path: Path) -> Stamp | None:
    """Return the stamp of a path, not following a link; None if there is no file."""
    try:
        return _of(os.lstat(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
