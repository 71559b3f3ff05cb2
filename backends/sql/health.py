"""The check ``sqlite`` of ``doctor``: the integrity of the SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

from registry_api.plugins import Issue, OpenContext
from registry_api.workspace import SQLITE_FILE, STATE_DIR

__all__ = ["check_sqlite"]

_RESET_RACE = ((3, 7, 0), (3, 51, 2))
_MOST = 10


def check_sqlite(context: OpenContext) -> Iterator[Issue]:
    """Yield the damage that SQLite finds in its file, and a known bug of the SQLite version."""
    path = context.workspace / STATE_DIR / SQLITE_FILE
    if not path.exists():
        return
    first, last = _RESET_RACE
    if first <= sqlite3.sqlite_version_info <= last:
        yield Issue(
            what=f"SQLite {sqlite3.sqlite_version} can lose a commit if its log is reset during "
            "another one: writers of this library queue and are safe, but no other program should "
            f"write to {path}"
        )
    uri = f"{path.absolute().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=5.0)) as connection:
            faults = connection.execute(f"PRAGMA quick_check({_MOST})").fetchall()
    except sqlite3.Error as error:
        if error.sqlite_errorname.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN")):
            # A file that cannot be read is not a damaged file.
            yield Issue(what=f"{path}: {error}", next_step=f"Let this user write to {path.parent}")
            return
        faults = [(str(error),)]
    for (fault,) in faults:
        if fault != "ok":
            yield Issue(what=f"{path}: {fault}", next_step="Restore it from a backup")
