"""Open files of other programs without following links, and describe what is wrong with them."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from registry_api.workspace import open_owned

__all__ = [
    "Problem",
    "is_writable",
    "open_frozen",
    "open_inside",
    "open_regular",
    "require_writable",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something in a file that could not be read, and where; the file itself is left as it is."""

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


def open_inside(path: Path, flags: int = os.O_RDONLY, *, mode: int = 0o644) -> int:
    """Open a regular file; neither the file nor its folder may be a symbolic link.

    A linked folder holds somebody else's files: they would be adopted, and removed together with
    ours in phase 4. Raises OSError.
    """
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except NotADirectoryError as error:
        raise OSError(errno.ELOOP, "a symbolic link, not followed", str(path.parent)) from error
    try:
        flags |= os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        fd = open_owned(path.name, flags, mode, dir_fd=folder)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(f"not a regular file: {path}")
    return fd


def open_frozen(path: Path) -> int:
    """Open a file that we made read-only, for reading and writing; its mode does not change.

    Only the file's owner can do this. Callers hold the task's side lock: of two concurrent callers
    the slower one would restore the writable mode that the other had set for a moment. Raises
    OSError.
    """
    fd = open_inside(path)
    try:
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        os.fchmod(fd, mode | stat.S_IWUSR)
        try:
            return open_inside(path, os.O_RDWR)
        finally:
            os.fchmod(fd, mode)
    finally:
        os.close(fd)


def is_writable(fd: int) -> bool:
    """Return whether a descriptor was opened for writing."""
    return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY


def require_writable(fd: int, path: Path) -> None:
    """Raise PermissionError if a file could only be opened for reading."""
    if not is_writable(fd):
        raise PermissionError(
            errno.EACCES, f"it is read-only for this user (uid {os.geteuid()})", str(path)
        )
