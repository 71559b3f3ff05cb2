"""Archive the rows of a registry that a move has left, delete them, and take them back.

The archive is a file: for each table a line of JSON (its name, its columns, its number of rows and
of bytes) and its rows as COPY writes them, as text. It is read back when it is written: the number
of rows of each table and the SHA-256 of the file. Stamps are left out: they tell whose store it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import orjson
from psycopg import sql

from backends.sql.postgresql.engine import PostgresEngine
from registry_api.authoring import ArchiveFiles, corrupt_archive

__all__ = ["PostgresRetirement"]

_MAGIC = b"registry-backend PostgreSQL archive 1\n"
_CHUNK = 2**20
_TABLES = """
SELECT table_name, array_agg(column_name::text ORDER BY ordinal_position)
FROM information_schema.columns
WHERE table_schema = (SELECT relnamespace::regnamespace::text FROM pg_class
  WHERE oid = 'meta'::regclass) AND table_name = ANY(%(names)s) GROUP BY table_name ORDER BY 1
"""
_NAMES = [
    "agent_progress_latest",
    "agents",
    "counters",
    "feed",
    "findings",
    "handovers",
    "meta",
    "phases",
    "progress",
    "reviews",
    "tasks",
    "verdicts",
]


class _Part(NamedTuple):
    """The rows of one table in an archive; ``start`` and ``size`` in bytes."""

    table: str
    columns: list[str]
    rows: int
    start: int
    size: int


class PostgresRetirement:
    """Retires the registry of one database; ``folder`` is where its archives are kept."""

    def __init__(self, engine: PostgresEngine, folder: Path, now: Callable[[], datetime]) -> None:
        self._engine = engine
        self._files = ArchiveFiles(folder, "postgresql", ".pgcopy", now)

    def archive(self, *, progress: Callable[[int, int], None] | None = None) -> str:
        """See MigrationSource.archive."""
        with self._files.new() as path:
            with path.open("wb") as file, self._engine.copying(write=False) as connection:
                file.write(_MAGIC)
                found = connection.execute(_TABLES, {"names": _NAMES}).fetchall()
                for done, (table, columns) in enumerate(found):
                    rows = _write(file, connection, table, columns)
                    count = sql.SQL("SELECT count(*) FROM {}").format(_kept(table))
                    if connection.execute(count).fetchone() != (rows,):
                        raise corrupt_archive(path, f"it lacks rows of the table {table}")
                    if progress is not None:
                        progress(done + 1, len(found))
            archive = self._files.finished(path)
            self.check(archive)
        return archive

    def check(self, archive: str) -> Path:
        """See MigrationSource.check_archive; returns the path of the archive."""
        path = self._files.checked(archive)
        if [part.table for part in _parts(path)] != _NAMES:
            raise corrupt_archive(path, "it does not hold every table")
        return path

    def retire(
        self,
        archive: str,
        *,
        wait: float,
        patience: float,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """See MigrationSource.retire: deletes every row but the stamps, and closes the store."""
        self.check(archive)
        with self._engine.copying(write=True) as connection:
            for table in _NAMES:
                connection.execute(sql.SQL("DELETE FROM {}").format(_table(table)) + _where(table))
        self._engine.close()

    def retiring(self) -> int:
        """See MigrationSource.retiring: nothing is left for later."""
        return 0

    def reinstate(self, archive: str | None) -> None:
        """Create the tables if they are missing, and fill empty ones from an archive; raises
        CorruptDocument.
        """
        self._engine.prepare()
        if archive is None:
            return
        path = self.check(archive)
        with self._engine.copying(write=True) as connection, path.open("rb") as file:
            if connection.execute("SELECT 1 FROM tasks LIMIT 1").fetchone():
                return
            connection.execute(sql.SQL("DELETE FROM meta") + _where("meta"))
            for part in _parts(path):
                _read(file, connection, part)


def _table(name: str) -> sql.Composable:
    return sql.Identifier(name)


def _where(table: str) -> sql.Composable:
    """Return the condition that leaves the stamps out."""
    return sql.SQL(" WHERE name NOT LIKE 'stamp.%'" if table == "meta" else "")


def _kept(table: str) -> sql.Composable:
    return _table(table) + _where(table)


def _list(columns: list[str]) -> sql.Composable:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def _write(file: BinaryIO, connection: Any, table: str, columns: list[str]) -> int:
    """Write one table; return its number of rows. The line before it is completed afterwards."""
    head = file.tell()
    file.write(_line(_Part(table, columns, 0, 0, 0)))
    start, rows = file.tell(), 0
    query = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT").format(_list(columns), _kept(table))
    with connection.cursor().copy(query) as copy:
        for data in copy:
            file.write(data)
            rows += bytes(data).count(b"\n")  # a line break in a value is written as \n
    size = file.tell() - start
    file.seek(head)
    file.write(_line(_Part(table, columns, rows, start, size)))
    file.seek(0, 2)
    return rows


def _line(part: _Part) -> bytes:
    """Return the line of a part, padded: its numbers are written later."""
    return orjson.dumps(part._asdict()).ljust(2000) + b"\n"


def _parts(path: Path) -> Iterator[_Part]:
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise corrupt_archive(path, "it is not an archive of a PostgreSQL store")
        while line := file.readline():
            part = _Part(**orjson.loads(line))
            yield part
            file.seek(part.start + part.size)


def _read(file: BinaryIO, connection: Any, part: _Part) -> None:
    query = sql.SQL("COPY {} ({}) FROM STDIN").format(_table(part.table), _list(part.columns))
    file.seek(part.start)
    left = part.size
    with connection.cursor().copy(query) as copy:
        while left and (data := file.read(min(left, _CHUNK))):
            left -= len(data)
            copy.write(data)
