"""What ``doctor`` asks of the SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

from registry_api.health import Issue
from registry_api.opening import SQLITE_FILE, STATE_DIR, OpenContext

__all__ = ["check_sqlite"]

_RESET_RACE = ((3, 7, 0), (3, 51, 2))
_MOST = 10


def check_sqlite(context: OpenContext) -> Iterator[Issue]:
    """Whether SQLite finds its pages and indexes in order, and the known fault of its version."""
    path = context.workspace / STATE_DIR / SQLITE_FILE
    if not path.exists():
        return
    first, last = _RESET_RACE
    if first <= sqlite3.sqlite_version_info <= last:
        yield Issue(
            what=f"SQLite {sqlite3.sqlite_version} can lose a commit when its log is reset beside "
            "another one: our writers queue, so they are safe; no other program should write to "
            f"{path}"
        )
    uri = f"{path.absolute().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=5.0)) as connection:
            faults = connection.execute(f"PRAGMA quick_check({_MOST})").fetchall()
    except sqlite3.Error as error:
        if error.sqlite_errorname.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN")):
            # Not to be looked at is not broken.
            yield Issue(what=f"{path}: {error}", next_step=f"Let this user write in {path.parent}")
            return
        faults = [(str(error),)]
    for (fault,) in faults:
        if fault != "ok":
            yield Issue(what=f"{path}: {fault}", next_step="Restore it from a backup")
