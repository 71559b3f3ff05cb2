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

from sqlalchemy.dialects import sqlite

from backends.sql.statements import Flavour, ddl, fragments, statements

__all__ = ["render", "sqlite_flavour"]


def sqlite_flavour() -> Flavour:
    """Return SQLite's flavour."""
    return Flavour(sqlite.dialect(paramstyle="named"), sqlite.insert, "instr")


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
        "DDL": [compile_one(s) for s in ddl()],
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


if __name__ == "__main__":
    Path(__file__).with_name("sqlite_sql.py").write_text(render(sqlite_flavour()))
