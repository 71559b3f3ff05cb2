"""The mode of a document: read-only for a frozen one, which is a hint to legacy programs."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

__all__ = ["READ_ONLY", "set_writable"]

READ_ONLY = ~0o222


def set_writable(path: os.PathLike[str], *, writable: bool, mode: int | None = None) -> None:
    """Make a file read-only or writable for its owner, or give it its earlier ``mode`` again.

    Missing files and links are skipped, and so is a file that is writable already.
    """
    with suppress(FileNotFoundError):
        found = os.lstat(path).st_mode
        if not stat.S_ISREG(found):
            return
        if writable and found & 0o200 and not _left_open(found, mode):
            return
        wanted = found & READ_ONLY
        if writable:
            wanted = found | 0o200 if mode is None else mode
        if stat.S_IMODE(found) != stat.S_IMODE(wanted):
            os.chmod(path, stat.S_IMODE(wanted))  # noqa: PTH101  (through the descriptor's path)


def _left_open(found: int, mode: int | None) -> bool:
    """Return whether only the owner may write a file: a killed ``open_frozen`` left it so."""
    return mode is not None and stat.S_IMODE(found) & ~0o200 == mode & READ_ONLY
