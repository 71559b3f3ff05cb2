"""Append to a log: below a task's folder and nowhere else, on a line of its own."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

__all__ = ["append_line", "open_log"]


def open_log(folder: str, name: str, *, made: Callable[[Path], None] | None = None) -> int:
    """Open ``folder/name`` for reading and appending, made where it is missing.

    ``name`` is ``progress/…`` or ``findings/…``; ``made`` is told of a folder in which a name is
    new. Raises OSError; ELOOP where a link stands in place of the file or one of its folders.
    """
    inside = os.path.dirname(f"{folder}/{name}")  # noqa: PTH120  (hot path, as all below)
    for path in (folder, inside):
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            Path(path).mkdir(parents=True, exist_ok=True)
            if made is not None:
                made(Path(path).parent)
            continue
        if not stat.S_ISDIR(mode):
            raise OSError(errno.ELOOP, "no folder, or a link in place of one", path)
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(f"{folder}/{name}", flags, 0o644)


def append_line(fd: int, data: bytes, *, mend: bool = True) -> None:
    """Append a whole line; with ``mend`` another program's torn line is ended first.

    Raises OSError, after which a part of the line may be there.
    """
    if mend:
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            data = b"\n" + data
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
