"""Archive the file of a SQLite store that a move has left, remove it, and take it back.

The archive is a copy made by SQLite's backup API and verified: ``integrity_check``, the number of
rows of each table and a digest of every row, equal to those of the file that is in use, and the
SHA-256 of the copy. The file in use is never opened otherwise: that would drop SQLite's locks.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from backends.sql.sqlite.engine import SqliteEngine
from registry_api.authoring import ArchiveFiles, corrupt_archive
from registry_api.errors import RegistryError
from registry_api.workspace import sync_folder, wait_until_released

__all__ = ["SqliteRetirement"]

_SUFFIX = ".retired"
_PARTS = ("", "-wal", "-shm")  # renamed in this order: the file with the data first
_PAGES = 2_000  # pages copied between two progress reports
_ORDERED = "SELECT * FROM {table} ORDER BY {columns}"


class SqliteRetirement:
    """Retires one SQLite file; ``folder`` is where its archives are kept."""

    def __init__(self, engine: SqliteEngine, folder: Path, now: Callable[[], datetime]) -> None:
        self._engine = engine
        self._path = engine.path
        self._files = ArchiveFiles(folder, engine.path.stem, ".sqlite3", now)

    def archive(self, *, progress: Callable[[int, int], None] | None = None) -> str:
        """See MigrationSource.archive."""
        with self._files.new() as path:
            with self._engine.reading() as source, closing(sqlite3.connect(path)) as copy:
                source.backup(copy, pages=_PAGES, progress=_counted(progress))
                copy.execute("PRAGMA journal_mode=DELETE")
                if _digest(copy) != _digest(source):
                    raise corrupt_archive(path, "its rows are not those of the store")
            archive = self._files.finished(path)
            self.check(archive)
        return archive

    def check(self, archive: str) -> Path:
        """See MigrationSource.check_archive; returns the path of the archive."""
        path = self._files.checked(archive)
        try:
            with closing(_opened(path)) as copy:
                (found,) = copy.execute("PRAGMA integrity_check").fetchone()
        except sqlite3.Error as error:
            raise corrupt_archive(path, str(error)) from error
        if found != "ok":
            raise corrupt_archive(path, str(found))
        return path

    def retire(
        self,
        archive: str,
        *,
        wait: float,
        patience: float,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """See MigrationSource.retire; closes the store, which would create the file again."""
        self.check(archive)
        if self._path.exists():
            with suppress(RegistryError), self._engine.alone() as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._engine.close()
        for part in _PARTS:
            with suppress(FileNotFoundError):
                Path(f"{self._path}{part}").rename(f"{self._path}{_SUFFIX}{part}")
        sync_folder(self._path.parent)
        retired = self._retired()
        # A process that still has the file open, idle for hours perhaps, is refused by the stamp
        # in it.
        held = wait_until_released(
            retired, wait=wait, patience=patience, progress=progress, holders=False
        )
        if held:
            return  # the next call removes them
        for path in retired:
            path.unlink(missing_ok=True)
        sync_folder(self._path.parent)

    def _retired(self) -> list[Path]:
        return [Path(f"{self._path}{_SUFFIX}{part}") for part in _PARTS]

    def retiring(self) -> int:
        """See MigrationSource.retiring."""
        return sum(path.exists() for path in (self._path, self._retired()[0]))

    def reinstate(self, archive: str | None) -> None:
        """Create the file again, and fill it from an archive unless it holds a registry; raises
        CorruptDocument.
        """
        self._engine.prepare()
        if archive is None:
            return
        with self._engine.reading() as connection:
            if connection.execute("SELECT 1 FROM tasks LIMIT 1").fetchone():
                return
        with closing(_opened(self.check(archive))) as copy, self._engine.alone() as connection:
            copy.backup(connection)
        self._engine.prepare()  # the archive may be of an earlier schema


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)


def _counted(
    progress: Callable[[int, int], None] | None,
) -> Callable[[int, int, int], object] | None:
    if progress is None:
        return None
    return lambda _, left, of: progress(of - left, of)


def _digest(connection: sqlite3.Connection) -> list[tuple[str, int, str]]:
    """Return the name, the number of rows and the digest of the rows of each table."""
    names = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
    ).fetchall()
    return [(name, *_digest_of(connection, name)) for (name,) in names]


def _digest_of(connection: sqlite3.Connection, table: str) -> tuple[int, str]:
    columns = [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]
    ordered = ", ".join(f'"{name}"' for name in columns)
    rows, digest = 0, hashlib.sha256()
    row: tuple[Any, ...]
    for row in connection.execute(_ORDERED.format(table=f'"{table}"', columns=ordered)):
        rows += 1
        digest.update(repr(row).encode())
    return rows, digest.hexdigest()
