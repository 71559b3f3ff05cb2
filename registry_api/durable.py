"""Small files of ours, written so that they are there after a power loss; for their owner alone."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from registry_api.ownership import open_owned

__all__ = ["make_whole", "replace_file", "sync_folder", "write_file"]

Sync = Callable[[int], None]


def write_file(
    path: Path, data: bytes, *, sync: Sync = os.fsync, new: bool = False, mode: int = 0o600
) -> None:
    """Write a whole file; ``new``: only where there is none. Raises OSError."""
    flags = os.O_EXCL if new else os.O_TRUNC
    fd = open_owned(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flags, mode)
    with open(fd, "wb") as file:  # noqa: PTH123  (an open descriptor)
        file.write(data)
        file.flush()
        sync(fd)


def make_whole(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Let a file appear with its content in it, unless there is one. Raises OSError.

    By a link from a name nobody else has; where the file system has no links, and so no other way
    to do it, it is made and then written.
    """
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    write_file(aside, data, new=True, mode=mode)
    try:
        os.link(aside, path)
    except FileExistsError:
        pass  # somebody was faster
    except OSError:
        with suppress(FileExistsError):
            write_file(path, data, new=True, mode=mode)
    finally:
        aside.unlink(missing_ok=True)


def replace_file(path: Path, data: bytes, *, aside: Path, sync: Sync = os.fsync) -> None:
    """Replace a file atomically, by way of ``aside``, a name nobody else uses. Raises OSError."""
    write_file(aside, data, sync=sync)
    aside.rename(path)
    sync_folder(path.parent, sync=sync)


def sync_folder(path: Path, *, sync: Sync = os.fsync) -> None:
    """Make the names in a folder durable. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync(fd)
    finally:
        os.close(fd)
