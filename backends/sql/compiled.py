"""Compile Core statements into driver SQL, ahead of time.

The result is checked in, one module per dialect (``sqlite_sql.py``), so that a process that opens a
store does not import SQLAlchemy (0.4 s). ``python -m backends.sql.compiled`` writes it again; a
test fails while it is out of date.
"""

from __future__ import annotations

import pprint
import re
from pathlib import Path
from typing import Any

from sqlalchemy.dialects import postgresql, sqlite

from backends.sql.statements import Flavour, ddl, fragments, statements

__all__ = ["FLAVOURS", "render"]


def sqlite_flavour() -> Flavour:
    """Return SQLite's flavour."""
    return Flavour(
        sqlite.dialect(paramstyle="named"),
        sqlite.insert,
        position="instr",
        limit="LIMIT :limit",
        greatest="max",
        drawn="NULL",
    )


def postgresql_flavour() -> Flavour:
    """Return PostgreSQL's flavour, with the parameters of psycopg."""
    dialect = postgresql.dialect(paramstyle="pyformat")  # type: ignore[no-untyped-call]
    dialect._bind_typing_render_casts = False  # noqa: SLF001  (no setting; psycopg types integers)
    return Flavour(
        dialect,
        postgresql.insert,
        position="strpos",
        limit="LIMIT %(limit)s",
        greatest="greatest",
        drawn="(SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM feed_number)",
        # A severity may be any text; its index refuses entries above some 2,700 bytes.
        without=frozenset({"idx_findings_severity"}),
    )


def render(flavour: Flavour) -> str:
    """Return the module's text: ``STATEMENTS``, ``FRAGMENTS`` and ``DDL``."""

    def compile_one(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: compile_one(v) for k, v in value.items()}
        if isinstance(value, str):
            return value
        text = str(value.compile(dialect=flavour.dialect))
        return re.sub(r"\s+", " ", text).strip()

    parts = {
        "STATEMENTS": compile_one(statements(flavour)),
        "FRAGMENTS": compile_one(fragments(flavour)),
        "DDL": [compile_one(s) for s in ddl(flavour)],
    }
    types = {
        "STATEMENTS": "dict[str, str]",
        "FRAGMENTS": "dict[str, dict[str, Any]]",
        "DDL": "list[str]",
    }
    head = (
        '"""Driver SQL, written by ``python -m backends.sql.compiled``: edit statements.py."""\n\n'
        "from __future__ import annotations\n\nfrom typing import Any\n\n"
    )
    body = "\n\n".join(
        f"{name}: {types[name]} = {pprint.pformat(value, width=96, sort_dicts=False)}"
        for name, value in parts.items()
    )
    return head + body + "\n"


FLAVOURS = {"sqlite_sql.py": sqlite_flavour, "postgresql_sql.py": postgresql_flavour}

if __name__ == "__main__":
    for name, flavour in FLAVOURS.items():
        Path(__file__).with_name(name).write_text(render(flavour()))
