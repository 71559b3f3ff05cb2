"""The file of a journal: scan it without applying its lines, and append to it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import orjson

from backends.json_files.document.writer import pwrite_all
from backends.json_files.journal.lines import (
    BASE,
    IDS,
    IDS_OF_HISTORIES,
    MARKS,
    WITH_HISTORIES,
    History,
)
from backends.json_files.journal.recent_states import RECENT
from registry_api.records import Kind, decode_record, unstamp
from registry_api.workspace import open_owned

__all__ = ["JournalFile", "KnownIds", "find_start"]

KnownIds = dict[uuid.UUID, tuple[int, int, str]]  # (revision, feed number, digest)


class JournalFile:
    """The file of a journal. Offsets are in bytes; ``end`` is how far the caller has read it."""

    __slots__ = ("path",)

    def __init__(self, path: Path) -> None:
        self.path = path

    def lines(self, start: int, end: int) -> Iterator[tuple[bytes, int]]:
        """Yield each line that begins between the offsets, and its own offset."""
        offset = start
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                for raw in file:
                    if offset >= end:
                        return
                    yield raw, offset
                    offset += len(raw)
        except FileNotFoundError:
            return

    def changeset_ids(self, start: int, end: int, *, floor: int) -> KnownIds:
        """Return the ids of the changes whose feed number is above ``floor``."""
        ids: KnownIds = {}
        for raw, _ in self.lines(start, end):
            found = IDS.match(raw)
            if found and int(found[2]) > floor:
                key = uuid.UUID(found[3].decode())
                ids[key] = (int(found[1]), int(found[2]), found[4].decode())
        return ids

    def history_ids(self, start: int, end: int) -> set[tuple[Kind, str]]:
        """Return the ids of progress entries and findings."""
        return {
            (Kind(kind.decode()), key.decode())
            for raw, _ in self.lines(start, end)
            if raw.startswith(WITH_HISTORIES)
            for kind, key in IDS_OF_HISTORIES.findall(raw)
        }

    def histories(self, kind: Kind, end: int) -> Iterator[History]:
        """Yield the history records of one kind in the order of their commits, streaming."""
        mark = MARKS[kind]
        for raw, _ in self.lines(0, end):
            if raw.startswith(WITH_HISTORIES) and mark in raw:
                line = orjson.loads(raw)
                puts = (
                    (op[1:] for op in line["cs"]["ops"] if op[0] == "put") if "cs" in line else ()
                )
                for item in (*line.get("records", ()), *puts):
                    if item[0] == kind:
                        yield cast(History, decode_record(item))

    # -- writing -----------------------------------------------------------------------------

    def reserve(self, start: int, size: int) -> None:
        """Reserve space, so that a full disk fails before the write; raises OSError.

        Readers ignore it: it has no newline.
        """
        fd = self._open()
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(fd, start, size)
        finally:
            os.close(fd)

    def cut(self, end: int) -> None:
        """Cut off what lies after an offset, if the file is there."""
        with suppress(FileNotFoundError):
            if os.stat(self.path).st_size > end:  # noqa: PTH116  (hot path)
                os.truncate(self.path, end)

    def write(self, data: bytes, start: int, *, sync: Callable[[int], None]) -> int:
        """Write lines at an offset, durably, as the last of the file; returns its inode."""
        fd = self._open()
        try:
            pwrite_all(fd, data, start)
            os.ftruncate(fd, start + len(data))
            sync(fd)
            return os.fstat(fd).st_ino
        finally:
            os.close(fd)

    def _open(self) -> int:
        return open_owned(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)


def find_start(file: BinaryIO, *, reaches_back: bool) -> int:
    """Return the offset of the base line to start reading at: the newest, or one old enough.

    ``reaches_back``: the states of the last 15 minutes are wanted. Raises ValueError, KeyError or
    TypeError if the last line is damaged.
    """
    end = file.seek(0, 2)
    block = 4096
    while block < 2 * end:
        file.seek(max(0, end - block))
        lines = file.read().split(b"\n")
        # The last part follows the last newline: empty, or a line cut off by a kill.
        if len(lines) > 2 or (end <= block and len(lines) > 1):
            last = orjson.loads(lines[-2])
            own = end - len(lines[-1]) - len(lines[-2]) - 1
            newest = own if last["k"] == "base" else max(0, last["b"])
            file.seek(newest)
            if newest and file.read(len(BASE)) != BASE:
                raise ValueError(f"no base line at byte {newest}, which the last line names")
            return _base_before(file, newest, last) if reaches_back else newest
        block *= 4
    return 0


def _base_before(file: BinaryIO, offset: int, last: dict[str, Any]) -> int:
    while offset > 0:
        file.seek(offset)
        line = orjson.loads(file.readline())
        if unstamp(last["at"]) - unstamp(line["at"]) > RECENT:
            break
        offset = max(0, line["b"])
    return offset
