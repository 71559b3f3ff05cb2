"""Files and folders that root makes for somebody else: they belong to the folder's owner.

`sudo registry-backend status` would else leave files behind that the owner's agents may not open.
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
    """Open a file as ``os.open`` does; one that root makes gets the owner of its folder.

    It has its owner before anybody else can use it: the name is new and the content empty. Raises
    OSError; where the owner cannot be given, nothing is left behind.
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
    """Make a folder unless it is there; one that root makes gets the owner of the one above.

    Raises OSError.
    """
    if os.geteuid() != 0:
        path.mkdir(mode=mode, parents=parents, exist_ok=True)
        return
    if parents and not path.parent.exists():
        make_folder(path.parent, parents=True)
    try:
        path.mkdir(mode=mode)
    except OSError:  # as pathlib judges it: a full disk does not matter where it is there
        if not path.is_dir():
            raise
        return
    above = path.parent.stat()
    try:
        os.chown(path, above.st_uid, above.st_gid, follow_symlinks=False)
    except OSError:
        path.rmdir()
        raise
