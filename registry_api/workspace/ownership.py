"""Create files and folders; those that root creates get the owner of their folder.

Else `sudo registry-backend status` would leave files that the owner's agents may not open.
For an ordinary user these are plain ``os.open`` and ``mkdir``.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["make_folder", "open_owned"]


def open_owned(
    path: str | os.PathLike[str], flags: int, mode: int = 0o600, *, dir_fd: int | None = None
) -> int:
    """Open a file as ``os.open`` does; one that root creates gets the owner of its folder.

    Nobody can have used the file before it has that owner: its name is new and it is empty. Raises
    OSError; if the owner cannot be set, the file is removed.
    """
    if os.geteuid() != 0 or not flags & os.O_CREAT:
        return os.open(path, flags, mode, dir_fd=dir_fd)
    while True:
        try:
            fd = os.open(path, flags | os.O_EXCL | os.O_NOFOLLOW, mode, dir_fd=dir_fd)
        except FileExistsError:
            if flags & os.O_EXCL:
                raise
            with suppress(FileNotFoundError):  # removed meanwhile
                return os.open(path, flags & ~os.O_CREAT, mode, dir_fd=dir_fd)
            continue
        try:
            folder = Path(path).parent.stat() if dir_fd is None else os.fstat(dir_fd)
            made = os.fstat(fd)
            if (made.st_uid, made.st_gid) != (folder.st_uid, folder.st_gid):
                os.fchown(fd, folder.st_uid, folder.st_gid)
        except OSError:
            os.close(fd)
            os.unlink(path, dir_fd=dir_fd)
            raise
        return fd


def make_folder(path: Path, *, mode: int = 0o777, parents: bool = False) -> None:
    """Create a folder unless it exists; one that root creates gets the owner of its parent.

    Raises OSError.
    """
    if os.geteuid() != 0:
        path.mkdir(mode=mode, parents=parents, exist_ok=True)
        return
    if parents and not path.parent.exists():
        make_folder(path.parent, parents=True)
    try:
        path.mkdir(mode=mode)
    except OSError:  # as pathlib does: a full disk does not matter if the folder exists
        if not path.is_dir():
            raise
        return
    above = path.parent.stat()
    try:
        os.chown(path, above.st_uid, above.st_gid, follow_symlinks=False)
    except OSError:
        path.rmdir()
        raise
