"""Read the logs of a task folder: every generation once, wherever its file is."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from backends.files import Problem, open_regular
from backends.jsonl.lines import LineError, generation, parse_line
from backends.jsonl.times import Times
from registry_api.records import KINDS, History, Kind

__all__ = ["Identity", "Log", "find_logs", "identify", "lengths", "log_name", "read_lines"]

_NAMING = 4096  # bytes of the first line that identify a generation
_PART = 2**20
_MAX_LINE = 64 * 2**20
_FOLDERS = {
    Kind.PROGRESS: (("progress", "_progress.jsonl"), ("archive", "_progress.jsonl")),
    Kind.FINDING: (("findings", "_findings.jsonl"), ("archive", "_findings.jsonl")),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """One log file: what it holds, where it is and how long it is now (bytes)."""

    kind: Kind
    place: str
    generation: str
    size: int

    @property
    def path(self) -> Path:
        """The path of the file."""
        return Path(self.place)


Identity = dict[str, tuple[int, int, Log]]  # by path: device, inode, the log at its last length


def log_name(record: History) -> str:
    """Return the path of the log, below the task's folder, that a record's line goes to."""
    folder, suffix = _FOLDERS[KINDS[type(record)]][0]
    return f"{folder}/{record.agent_id}{suffix}"


def find_logs(folder: Path, problems: list[Problem], *, known: Identity | None = None) -> list[Log]:
    """Return the logs of a task folder, ``progress/`` and ``findings/`` before ``archive/``.

    ``known`` remembers logs between calls, so that only files that grew or changed are opened.
    """
    logs: list[Log] = []
    seen = set[tuple[Kind, str]]()
    for kind, places in _FOLDERS.items():
        for name, suffix in places:
            for path in _files(f"{folder}/{name}", suffix, problems):
                log = identify(kind, path, problems, known=known)
                if log is None:
                    continue
                if (kind, log.generation) in seen:
                    what = "a copy of another log, not read"
                    problems.append(Problem(path=log.path, what=what))
                    continue
                seen.add((kind, log.generation))
                logs.append(log)
    return logs


def lengths(folder: Path) -> bytes:
    """Return a digest of the logs' paths, inodes and lengths.

    It is the same as long as nobody appends to, moves or replaces a log.
    """
    out = hashlib.blake2b(digest_size=16)
    for places in _FOLDERS.values():
        for name, suffix in places:
            for path in _files(f"{folder}/{name}", suffix, []):
                with suppress(OSError):
                    found = os.lstat(path)
                    size = f"{path}\0{found.st_dev} {found.st_ino} {found.st_size}\0"
                    out.update(size.encode(errors="surrogateescape"))
    return out.digest()


def _files(folder: str, suffix: str, problems: list[Problem]) -> list[str]:
    try:
        names = os.listdir(folder)  # noqa: PTH208  (hot path)
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(Problem(path=Path(folder), what=f"cannot be listed: {error.strerror}"))
        return []
    return [f"{folder}/{name}" for name in sorted(names) if name.endswith(suffix)]


def identify(
    kind: Kind, place: str, problems: list[Problem], *, known: Identity | None = None
) -> Log | None:
    """Return the log at a path; None if there is none with a complete first line."""
    try:
        found = os.lstat(place)
        if known is not None and place in known:
            device, inode, log = known[place]
            if (device, inode, log.size) == (found.st_dev, found.st_ino, found.st_size):
                return log
        fd = open_regular(place)
    except FileNotFoundError:
        return None
    except OSError as error:
        what = f"cannot be read: {error.strerror or error}"
        problems.append(Problem(path=Path(place), what=what))
        return None
    with open(fd, "rb") as file:  # noqa: PTH123  (an open descriptor)
        first = file.readline(_NAMING)
        while first and not first.strip():  # blank: a line that was taken back
            first = file.readline(_NAMING)
        finished = first.endswith(b"\n") or any(b"\n" in part for part in _parts(file))
        size = os.fstat(fd).st_size
    if not finished:
        if first:
            what = "the first line is incomplete"
            problems.append(Problem(path=Path(place), position=0, what=what))
        return None
    log = Log(kind=kind, place=place, generation=generation(first), size=size)
    if known is not None:
        known[place] = (found.st_dev, found.st_ino, log)
    return log


def _parts(file: BinaryIO) -> Iterator[bytes]:
    while part := file.read(_PART):
        yield part


def read_lines(
    log: Log,
    *,
    task_id: str,
    times: Times,
    problems: list[Problem],
    start: int = 0,
) -> Iterator[tuple[int, History]]:
    """Yield (end offset, record) of the complete lines from byte ``start`` on.

    Lines that are not entries are added to ``problems`` and skipped, as is a torn last line.
    """
    try:
        fd = open_regular(log.place)
    except OSError as error:
        problems.append(Problem(path=log.path, what=f"cannot be read: {error.strerror or error}"))
        return
    with open(fd, "rb") as file:  # noqa: PTH123  (an open descriptor)
        file.seek(start)
        offset = start
        while raw := file.readline(_MAX_LINE):
            begin, offset = offset, offset + len(raw)
            if len(raw) == _MAX_LINE and not raw.endswith(b"\n"):
                while raw and not raw.endswith(b"\n"):
                    raw = file.readline(_PART)
                    offset += len(raw)
                problems.append(Problem(path=log.path, position=begin, what="the line is too long"))
                continue
            if not raw.endswith(b"\n"):
                problems.append(Problem(path=log.path, position=begin, what="a torn last line"))
                return
            if not raw.strip():
                continue
            try:
                record = parse_line(
                    raw.rstrip(b"\r\n"),
                    kind=log.kind,
                    task_id=task_id,
                    times=times,
                    log=log.generation,
                    offset=begin,
                )
            except LineError as error:
                problems.append(Problem(path=log.path, position=begin, what=str(error)))
                continue
            yield offset, record
