"""Files of other programs: opened with care, and what is wrong with them."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Problem", "open_regular"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something in a file that could not be taken, kept as it was: where, and what is wrong."""

    path: Path
    what: str
    position: int | None = None

    def __str__(self) -> str:
        where = f"{self.path}" if self.position is None else f"{self.path} at byte {self.position}"
        return f"{where}: {self.what}"


def open_regular(path: Path | str, flags: int = os.O_RDONLY) -> int:
    """Open a regular file without following a link; raises OSError."""
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(f"not a regular file: {path}")
    return fd
