"""The limits of the machine itself: a write to its disk, a commit of SQLite, a lock."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.measure import Row, Side, flat

__all__ = ["machine"]


def machine(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Time an append with its sync, a commit of one row by sqlite3 alone, and a lock's turn."""
    each = 200 if quick else 2000
    fd = os.open(folder / "file", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)

    def append() -> None:
        os.write(fd, b"x" * 4096)
        os.fdatasync(fd)

    def turn() -> None:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fcntl.flock(lock, fcntl.LOCK_UN)

    yield _row("4 kB are appended and synced", append, each)
    for level in ("NORMAL", "FULL"):
        db = sqlite3.connect(folder / level, isolation_level=None)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute(f"PRAGMA synchronous={level}")
        db.execute("CREATE TABLE t (n INTEGER)")
        insert = db.execute
        yield _row(
            f"sqlite3 commits one row, synchronous={level}",
            lambda insert=insert: insert("INSERT INTO t VALUES (1)"),  # type: ignore[misc]
            each,
        )
        db.close()
    yield _row("flock and unlock", turn, each)
    os.close(fd)
    os.close(lock)


def _row(name: str, side: Side, each: int) -> Row:
    samples = flat(side, each=each)
    return Row(name=name, figure=median(samples) * 1e6, worst=max(samples) * 1e6, unit="µs")
