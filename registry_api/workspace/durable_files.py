"""Write small state files that survive power loss and that only their owner can read."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from registry_api.workspace.ownership import open_owned

__all__ = ["make_whole", "replace_file", "sync_folder", "write_file"]

Sync = Callable[[int], None]


def write_file(
    path: Path, data: bytes, *, sync: Sync = os.fsync, new: bool = False, mode: int = 0o600
) -> None:
    """Write a whole file; ``new``: FileExistsError if there is one. Raises OSError."""
    flags = os.O_EXCL if new else os.O_TRUNC
    fd = open_owned(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flags, mode)
    with open(fd, "wb") as file:  # noqa: PTH123  (an open descriptor)
        file.write(data)
        file.flush()
        sync(fd)


def make_whole(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Create a file that never appears without its content; keep an existing one. Raises OSError.

    It is written under a unique name and then linked. On a file system without hard links it is
    created and then written.
    """
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    write_file(aside, data, new=True, mode=mode)
    try:
        os.link(aside, path)
    except FileExistsError:
        pass  # another process was faster
    except OSError:
        with suppress(FileExistsError):
            write_file(path, data, new=True, mode=mode)
    finally:
        aside.unlink(missing_ok=True)


def replace_file(path: Path, data: bytes, *, aside: Path, sync: Sync = os.fsync) -> None:
    """Replace a file atomically: write ``aside``, a unique name, and rename it. Raises OSError."""
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
