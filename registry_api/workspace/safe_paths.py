"""Open files below the workspace part by part, so that no link and no ``..`` leads out of it."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from registry_api.errors import InvalidInput, Unavailable
from registry_api.records.models import is_id
from registry_api.workspace.ownership import open_owned

__all__ = [
    "APPEND",
    "ARCHIVE",
    "LOGS",
    "NEW",
    "open_file",
    "open_folder",
    "open_log",
    "open_parent",
    "read_log",
    "read_tail",
    "task_file",
]

NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL

APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND

LOGS, ARCHIVE = "logs", "archive"  # where an agent's log is, and where it is moved to later

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def task_file(workspace: Path, task_id: str, *parts: str) -> Path:
    """Return a path below a task's folder; raises InvalidInput for an invalid name."""
    for part in (task_id, *parts):
        if not is_id(part):
            raise InvalidInput(
                f"{part[:80]!r} is not a plain name", next_step="Use letters, digits, . _ and -"
            )
    return workspace.joinpath(task_id, *parts)


def open_file(workspace: Path, task_id: str, *parts: str, flags: int) -> int:
    """Open a file below a task's folder, creating its folders if the flags create files.

    Returns the descriptor of a regular file; a new one has mode 0600. Raises Unavailable if a part
    of the path is a link or of the wrong type, FileNotFoundError if it does not exist.
    """
    path = task_file(workspace, task_id, *parts)
    folder = _descend(workspace, path.parent, make=bool(flags & os.O_CREAT))
    safe = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = open_owned(path.name, flags | safe, 0o600, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unavailable(path, error.strerror) from error
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise _unavailable(path, "not a regular file")
    os.set_blocking(fd, True)
    return fd


def open_folder(workspace: Path, task_id: str) -> int:
    """Return a descriptor of a task's folder, creating it if it is missing."""
    return _descend(workspace, task_file(workspace, task_id), make=True)


def open_parent(workspace: Path, task_id: str, *parts: str, make: bool = False) -> int:
    """Return a descriptor of the folder that a file below a task's folder is in.

    ``make`` creates it. Raises as ``open_file``.
    """
    return _descend(workspace, task_file(workspace, task_id, *parts).parent, make=make)


def read_tail(
    workspace: Path, task_id: str, *parts: str, limit: int, before: int | None = None
) -> tuple[bytes, int, int]:
    """Return at most ``limit`` bytes that end at ``before``, their offset, and the file's size.

    Without ``before`` they end at the end of the file. Raises FileNotFoundError.
    """
    return _tail(
        open_file(workspace, task_id, *parts, flags=os.O_RDONLY), limit=limit, before=before
    )


def open_log(workspace: Path, task_id: str, name: str) -> int:
    """Open an agent's log for reading, in the task's ``logs`` or ``archive``.

    Raises as ``open_file``.
    """
    try:
        return open_file(workspace, task_id, LOGS, name, flags=os.O_RDONLY)
    except FileNotFoundError:
        return open_file(workspace, task_id, ARCHIVE, name, flags=os.O_RDONLY)


def read_log(
    workspace: Path, task_id: str, name: str, *, limit: int, before: int | None = None
) -> tuple[bytes, int, int]:
    """Return a part of an agent's log as ``read_tail`` does; of a missing one, nothing."""
    try:
        return _tail(open_log(workspace, task_id, name), limit=limit, before=before)
    except FileNotFoundError:
        return b"", 0, 0


def _tail(fd: int, *, limit: int, before: int | None) -> tuple[bytes, int, int]:
    with os.fdopen(fd, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        end = size if before is None else max(0, min(before, size))
        start = max(0, end - limit)
        file.seek(start)
        return file.read(end - start), start, size


def _descend(workspace: Path, folder: Path, *, make: bool) -> int:
    here = os.open(workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in folder.relative_to(workspace).parts:
        try:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=here)
                    if os.geteuid() == 0:
                        above = os.fstat(here)
                        os.chown(
                            part, above.st_uid, above.st_gid, dir_fd=here, follow_symlinks=False
                        )
            below = os.open(part, _FOLDER, dir_fd=here)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _unavailable(folder, error.strerror) from error
        finally:
            os.close(here)
        here = below
    return here


def _unavailable(path: Path, why: str | None) -> Unavailable:
    return Unavailable(
        f"{path} cannot be opened: {why}",
        next_step="It must be below the workspace, and no part of its path may be a link",
    )
