"""Append lines to logs, only below a task's folder, and never to a torn line."""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from registry_api.workspace import ForkSafeLock, make_folder, open_owned

__all__ = ["Appender", "append_line", "open_log"]

_KEPT = 64  # logs that an Appender keeps open


def open_log(folder: str, name: str, *, made: Callable[[Path], None] | None = None) -> int:
    """Open ``folder/name`` for reading and appending, creating it if it is missing.

    ``name`` is ``progress/…`` or ``findings/…``; ``made`` is called with each folder in which a
    folder was created. Raises OSError; ELOOP if the file or one of its folders is a link.
    """
    inside = Path(folder, name).parent
    for path in (Path(folder), inside):
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            make_folder(path, parents=True)
            if made is not None:
                made(path.parent)
            continue
        if not stat.S_ISDIR(mode):
            raise OSError(errno.ELOOP, "not a folder, or a link in place of one", str(path))
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    return open_owned(f"{folder}/{name}", flags, 0o644)


def append_line(fd: int, data: bytes, *, end_torn: bool = True) -> None:
    """Append a whole line; with ``end_torn`` first end another program's torn line.

    Raises OSError, after which a part of the line may be there.
    """
    if end_torn:
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            data = b"\n" + data
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


class Appender:
    """An appender that does not sync, and keeps the latest logs open; thread-safe.

    Each append first checks the path: a log that another program moved to ``archive/`` or replaced
    by a link is no longer written.
    """

    def __init__(self) -> None:
        self._lock = ForkSafeLock()
        self._open = OrderedDict[str, list[int]]()  # path: descriptor, device, inode, size

    def append(self, folder: str, name: str, data: bytes) -> None:
        """Append a whole line to ``folder/name``; raises OSError."""
        path = f"{folder}/{name}"
        with self._lock:
            entry = self._open.get(path)
            try:
                found = os.lstat(path)
            except FileNotFoundError:
                found = None
            if entry is not None and (found is None or entry[1:3] != [found.st_dev, found.st_ino]):
                os.close(self._open.pop(path)[0])
                entry = None
            if entry is None:
                entry = self._opened(path, open_log(folder, name))
            # If the size is still ours, the log ends with our line.
            append_line(entry[0], data, end_torn=found is None or found.st_size != entry[3])
            entry[3] = (found.st_size if found else 0) + len(data)

    def _opened(self, path: str, fd: int) -> list[int]:
        if len(self._open) >= _KEPT:
            _, oldest = self._open.popitem(last=False)
            os.close(oldest[0])
        found = os.fstat(fd)
        self._open[path] = entry = [fd, found.st_dev, found.st_ino, -1]
        return entry

    def close(self) -> None:
        """Close every log."""
        with self._lock:
            while self._open:
                os.close(self._open.popitem()[1][0])
