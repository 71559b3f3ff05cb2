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

from backends.json_files.cache import DocumentCache
from backends.json_files.feed_number import FeedNumbers
from backends.json_files.layout import Layout
from backends.jsonl.times import Times
from registry_api.durable import replace_file, sync_folder, write_file
from registry_api.ownership import make_folder

__all__ = ["Shared", "as_recorded", "is_as_recorded"]

_AS_RECORDED = ContextVar("as_recorded", default=False)


@contextmanager
def as_recorded() -> Iterator[None]:
    """See MigrationSource.as_recorded."""
    token = _AS_RECORDED.set(True)
    try:
        yield
    finally:
        _AS_RECORDED.reset(token)


def is_as_recorded() -> bool:
    """Return whether reads leave the documents alone."""
    return _AS_RECORDED.get()


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """``timeout`` bounds waits for locks (seconds); ``epoch`` is that of the move, 0 without;
    ``frozen``: another store has taken over, what others write to documents is put aside;
    ``freezing``: the epoch in which documents are read-only already, behind the gate of the switch
    that does it.
    """

    layout: Layout
    times: Times
    numbers: FeedNumbers
    now: Callable[[], datetime]
    timeout: float
    durable: bool
    epoch: Callable[[], int]
    frozen: Callable[[], bool] = lambda: False
    freezing: set[int] = field(default_factory=set)
    documents: DocumentCache = field(default_factory=DocumentCache)

    def is_read_only(self) -> bool:
        """Return whether it is we who made the documents read-only."""
        return self.frozen() or (bool(self.freezing) and self.epoch() in self.freezing)

    def sync(self, fd: int) -> None:
        """Make a file's content durable, where the store is to be."""
        if self.durable:
            os.fsync(fd)

    def sync_folder(self, path: Path) -> None:
        """Make the names in a folder durable, where the store is to be."""
        if self.durable:
            sync_folder(path)

    def folder(self, name: str) -> Path:
        """Return a folder below ``.registry``, made with mode 0700 where it is missing."""
        path = self.layout.state / name
        make_folder(path, mode=0o700, parents=True)
        if path.is_symlink():
            raise OSError(errno.ELOOP, "a link in place of a folder of ours", str(path))
        return path

    def write_file(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        """Write a file durably; by default one of ours."""
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
