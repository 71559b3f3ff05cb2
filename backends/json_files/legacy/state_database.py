"""The legacy system's own database, ``registry/state.sqlite3``: its last write and row counts.

It is only read. The operator decides whether the database or the JSON files are up to date.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

__all__ = ["LegacyState", "legacy_state"]

_TABLES = ("tasks", "agents")


@dataclass(frozen=True, slots=True)
class LegacyState:
    """The database's path and the time of its last write; as text also its row counts."""

    path: Path
    written: datetime

    def __str__(self) -> str:
        rows = _counted(self.path)
        counted = ", ".join(f"{n} {name}" for name, n in rows.items()) or "not readable"
        return (
            f"{self.path}: the legacy system's own database, written "
            f"{self.written:%Y-%m-%d %H:%M} UTC: {counted}"
        )


def legacy_state(workspace: Path) -> LegacyState | None:
    """Return the state of the legacy database, None if there is no database."""
    path = workspace / "registry" / "state.sqlite3"
    times = []
    for name in (path, path.with_name(path.name + "-wal")):
        with suppress(OSError):
            times.append(name.lstat().st_mtime)
    if not times:
        return None
    return LegacyState(path, datetime.fromtimestamp(max(times), UTC))


def _counted(path: Path) -> dict[str, int]:
    counts: dict[str, int] = {}
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with suppress(sqlite3.Error), closing(sqlite3.connect(uri, uri=True, timeout=1.0)) as found:
        for table in _TABLES:
            with suppress(sqlite3.Error):
                query = f"SELECT count(*) FROM {table}"  # noqa: S608  (a name of ours above)
                counts[table] = found.execute(query).fetchone()[0]
    return counts
