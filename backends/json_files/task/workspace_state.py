"""What the tasks of one workspace share: paths, clock, zone, the feed's numbers, how to sync."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from backends.json_files.document.cache import DocumentCache
from backends.json_files.journal.feed_counter import FeedNumbers
from backends.json_files.legacy.layout import Layout
from backends.jsonl.times import Times
from registry_api.workspace import make_folder, replace_file, sync_folder, write_file

__all__ = ["Shared", "as_recorded", "is_as_recorded"]

_AS_RECORDED = ContextVar("as_recorded", default=False)


@contextmanager
def as_recorded() -> Iterator[None]:
    """See ForeignWriters.as_recorded."""
    token = _AS_RECORDED.set(True)
    try:
        yield
    finally:
        _AS_RECORDED.reset(token)


def is_as_recorded() -> bool:
    """Return whether reads use the journals only, without checking the documents."""
    return _AS_RECORDED.get()


@dataclass(slots=True)
class LineWaits:
    """From when (monotonic) log lines of others may be awaited again, after it was in vain."""

    not_before: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What the tasks of one workspace share.

    ``timeout`` bounds waits for locks (seconds). ``epoch`` returns the move's epoch, 0 without one.
    ``successor`` names the store that has taken over as the writer of record, empty while none has;
    what others write to documents is then a late write. ``freezing`` holds the epoch in which a
    switch, which still holds the gate, has made documents read-only.
    """

    layout: Layout
    times: Times
    numbers: FeedNumbers
    now: Callable[[], datetime]
    timeout: float
    durable: bool
    epoch: Callable[[], int]
    successor: Callable[[], str] = lambda: ""
    freezing: set[int] = field(default_factory=set)
    line_waits: LineWaits = field(default_factory=LineWaits)
    documents: DocumentCache = field(default_factory=DocumentCache)

    def frozen(self) -> bool:
        """Return whether another store is the writer of record."""
        return bool(self.successor())

    def is_read_only(self) -> bool:
        """Return whether we have made the documents read-only."""
        return self.frozen() or (bool(self.freezing) and self.epoch() in self.freezing)

    def sync(self, fd: int) -> None:
        """Make a file's content durable, if the store is durable."""
        if self.durable:
            os.fsync(fd)

    def sync_folder(self, path: Path) -> None:
        """Make the names in a folder durable, if the store is durable."""
        if self.durable:
            sync_folder(path)

    def folder(self, name: str) -> Path:
        """Return a folder below ``.registry``, created with mode 0700 if it is missing."""
        path = self.layout.state / name
        make_folder(path, mode=0o700, parents=True)
        if path.is_symlink():
            raise OSError(errno.ELOOP, "a symbolic link in place of our folder", str(path))
        return path

    def write_file(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        """Write a file durably, by default readable by its owner only."""
        write_file(path, data, sync=self.sync, mode=mode)

    def keep(self, folder: str, name: str, data: bytes) -> Path:
        """Keep bytes in a new file below ``.registry``, durably; returns its path."""
        parent = self.folder(folder)
        for n in range(1_000_000):
            path = parent / (f"{name}.{n}" if n else name)
            try:
                write_file(path, data, sync=self.sync, new=True)
            except FileExistsError:
                continue
            self.sync_folder(parent)
            return path
        raise FileExistsError(parent / name)

    def replace_file(self, path: Path, data: bytes) -> None:
        """Replace a file of ours atomically and durably."""
        replace_file(path, data, aside=path.with_name(path.name + ".new"), sync=self.sync)
