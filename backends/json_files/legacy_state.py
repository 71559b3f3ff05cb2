"""The older system's own database, ``registry/state.sqlite3``: when it was written, what it counts.

It is only looked at: which of the two is the truth is for the operator to say.
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
    """Where it is and when it was last written; as text also its rows by table."""

    path: Path
    written: datetime

    def __str__(self) -> str:
        rows = _counted(self.path)
        counted = ", ".join(f"{n} {name}" for name, n in rows.items()) or "not readable"
        return (
            f"{self.path}: the older system's own database, written "
            f"{self.written:%Y-%m-%d %H:%M} UTC: {counted}"
        )


def legacy_state(workspace: Path) -> LegacyState | None:
    """Return what there is of it, None: nothing."""
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
