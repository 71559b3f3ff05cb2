"""Files below the workspace, opened part by part so that no link and no ``..`` leads out of it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from registry_api.errors import InvalidInput, Unavailable
from registry_api.models import is_id

__all__ = ["append_file", "new_file", "read_tail", "task_file"]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def task_file(workspace: Path, task_id: str, *parts: str) -> Path:
    """Return a path below a task's folder; raises InvalidInput for a part that is no name."""
    for part in (task_id, *parts):
        if not is_id(part):
            raise InvalidInput(
                f"{part[:80]!r} is no plain name", next_step="Use letters, digits, . _ and -"
            )
    return workspace.joinpath(task_id, *parts)


def new_file(workspace: Path, task_id: str, *parts: str, data: bytes) -> Path:
    """Write a file that must not be there yet, readable by its owner alone; returns its path."""
    path = task_file(workspace, task_id, *parts)
    fd = _open(workspace, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
    return path


def append_file(workspace: Path, task_id: str, *parts: str) -> Path:
    """Make sure that a file is there that can be appended to; returns its path."""
    path = task_file(workspace, task_id, *parts)
    os.close(_open(workspace, path, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
    return path


def read_tail(
    workspace: Path, task_id: str, *parts: str, limit: int, before: int | None = None
) -> tuple[bytes, int, int]:
    """Return at most ``limit`` bytes that end at ``before``, where they begin, and the file's size.

    Without ``before`` they end at the end. A file that is not there is empty.
    """
    path = task_file(workspace, task_id, *parts)
    try:
        fd = _open(workspace, path, os.O_RDONLY | os.O_NONBLOCK, make=False)
    except FileNotFoundError:
        return b"", 0, 0
    with os.fdopen(fd, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        end = size if before is None else max(0, min(before, size))
        start = max(0, end - limit)
        file.seek(start)
        return file.read(end - start), start, size


def _open(workspace: Path, path: Path, flags: int, *, make: bool = True) -> int:
    """Open a file, making its folders; raises Unavailable where a part is a link or no folder."""
    parts = path.relative_to(workspace).parts
    here = os.open(workspace, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=here)
            below = os.open(part, _FOLDER, dir_fd=here)
            os.close(here)
            here = below
        return os.open(parts[-1], flags | os.O_NOFOLLOW, 0o600, dir_fd=here)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Unavailable(
            f"{path} cannot be opened: {error.strerror}",
            next_step="It must be a plain file below the workspace, and no part of it a link",
        ) from error
    finally:
        os.close(here)
