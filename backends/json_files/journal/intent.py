"""The intent of a task: what a write is about to do, durable before it begins.

One file per task, rewritten in place and emptied when the write is done. A checksum distinguishes a
complete intent from one that a crash cut off; in the latter case the write itself has not begun.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from backends.json_files.document.patch import Over, Patch
from backends.json_files.document.text import content_hash
from registry_api.records import Kind
from registry_api.workspace import boot, open_owned

__all__ = ["AppendedLine", "Intent", "IntentFile", "pending_numbers"]

_NUMBER = struct.Struct("<q")
_PLACE, _SUM = 8, 32


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendedLine:
    """A line to append to a log: its path below the task folder, its byte offset and its bytes."""

    kind: Kind
    path: str
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """A redo record: the journal line to write, the document's hashes before and after, the patch.

    The patch is empty if the document does not change.
    """

    number: int
    epoch: int
    journal: bytes
    before: str
    after: str
    patch: Patch
    lines: tuple[AppendedLine, ...] = ()
    creates: bool = False
    boot: str = field(default_factory=boot)

    def is_torn(self, data: bytes) -> bool:
        """Return whether a document is what an interruption of this write leaves."""
        patch, rebooted = self.patch, self.boot != boot()
        whole = content_hash(patch.applied(data)) if patch.is_torn(data, rebooted=rebooted) else ""
        return whole == self.after


class IntentFile:
    """The intent file of one task; used under the task's lock."""

    def __init__(
        self, path: Path, *, sync: Callable[[int], None], sync_folder: Callable[[Path], None]
    ) -> None:
        self._path = path
        self._place = str(path)
        self._sync = sync
        self._sync_folder = sync_folder
        self._new = False

    def reserve(self, number: int) -> None:
        """Record a drawn feed number, while the counter is still locked."""
        self._note_if_new()
        fd = open_owned(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(fd, _NUMBER.pack(number))
        finally:
            os.close(fd)

    def _note_if_new(self) -> None:
        self._new = self._new or not self._path.exists()

    def write(self, intent: Intent) -> None:
        """Write the intent durably."""
        self._note_if_new()
        over = intent.patch.over
        head = {
            "epoch": intent.epoch,
            "boot": intent.boot,
            "before": intent.before,
            "after": intent.after,
            "creates": intent.creates,
            "journal": len(intent.journal),
            "patch": [intent.patch.first.decode("latin-1"), intent.patch.start, intent.patch.size],
            "over": None if over is None else [over.size, len(over.gone), over.kept],
            "lines": [
                [line.kind, line.path, line.offset, line.data.decode()] for line in intent.lines
            ],
        }
        body = orjson.dumps(head) + b"\n" + intent.journal + intent.patch.data
        body += b"" if over is None else over.gone
        number = _NUMBER.pack(intent.number)
        data = number + hashlib.sha256(number + body).digest() + body
        fd = open_owned(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.ftruncate(fd, len(data))
            self._sync(fd)
        finally:
            os.close(fd)
        if self._new:  # here, not in reserve: there the feed counter is locked
            self._sync_folder(self._path.parent)
            self._new = False

    def read(self) -> Intent | None:
        """Return the intent, None if there is none or it was cut off."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None
        return _parse(data)

    def exists(self) -> bool:
        """Return whether an intent is pending, complete or cut off."""
        try:
            return os.stat(self._place).st_size > 0  # noqa: PTH116  (hot path)
        except FileNotFoundError:
            return False

    def remove_empty(self) -> None:
        """Remove the file if nothing is pending; the next writer creates it again."""
        with suppress(FileNotFoundError):
            if not os.stat(self._place).st_size:  # noqa: PTH116  (hot path)
                os.unlink(self._place)  # noqa: PTH108  (hot path)

    def clear(self) -> None:
        """Empty the file: the write is done, or is dropped."""
        os.truncate(self._path, 0)


def _parse(data: bytes) -> Intent | None:
    number, total, body = data[:_PLACE], data[_PLACE : _PLACE + _SUM], data[_PLACE + _SUM :]
    if hashlib.sha256(number + body).digest() != total:
        return None
    line, _, rest = body.partition(b"\n")
    head: dict[str, Any] = orjson.loads(line)
    journal = head["journal"]
    over, end = None, len(rest)
    if head.get("over") is not None:
        before, gone, kept = head["over"]
        end -= gone
        over = Over(size=before, gone=rest[end:], kept=kept)
    first, start, size = head["patch"]
    patch = Patch(
        start=start,
        data=rest[journal:end],
        size=size,
        over=over,
        first=first.encode("latin-1"),
    )
    return Intent(
        number=_NUMBER.unpack(number)[0],
        epoch=head["epoch"],
        boot=head.get("boot", ""),
        before=head["before"],
        after=head["after"],
        creates=head["creates"],
        journal=rest[:journal],
        patch=patch,
        lines=tuple(
            AppendedLine(kind=Kind(kind), path=path, offset=offset, data=text.encode())
            for kind, path, offset, text in head["lines"]
        ),
    )


def pending_numbers(folder: Path) -> dict[str, int]:
    """Return the feed number that each pending intent holds, by task.

    Complete only while the feed counter is locked.
    """
    out = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # removed meanwhile: it was empty
                if not entry.stat().st_size:  # most of them; must be fast: writers may wait
                    continue
                with open(entry.path, "rb") as file:  # noqa: PTH123  (a name from scandir)
                    head = file.read(_PLACE)
                if head:
                    out[entry.name] = _NUMBER.unpack(head.ljust(_PLACE, b"\0"))[0]
    return out
