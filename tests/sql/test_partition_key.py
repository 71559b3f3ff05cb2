"""``task_id`` is the partition key: what is written or read beyond one task is listed here, and in
docs/scaling.md.
"""

import pytest

from backends.sql.postgresql.report_function import CREATE
from backends.sql.postgresql_sql import STATEMENTS

# Counters and the state of the feed are the registry's; a new feed is adopted once, by a move.
WRITE_MORE = {"count", "raise_meta", "write_meta", "drop_whole_feed"}
READ_MORE = {"changes", "counts", "feed_ages", "feed_state", "positions", "read_meta"}
_CHANGES = ("INSERT ", "UPDATE ", "DELETE ")


def of_one_task(statement):
    """Return whether a statement names the task that it is about."""
    return "task_id = %(" in statement or "of_task)s" in statement


def writes(statement):
    return any(word in statement for word in _CHANGES)


def test_every_write_is_of_one_task():
    """Rows are inserted with a task's id, and changed or deleted where it is the one given."""
    for name, statement in STATEMENTS.items():
        if writes(statement) and name not in WRITE_MORE:
            inserted = "INSERT INTO" in statement and "%(task_id)s" in statement
            assert inserted or of_one_task(statement), name


def test_every_read_is_of_one_task_or_listed():
    """Pages of the whole registry are fragments, not statements."""
    more = {n for n, s in STATEMENTS.items() if not writes(s) and not of_one_task(s)}
    assert more == READ_MORE


@pytest.mark.parametrize("table", ["progress", "agent_progress_latest", "agents", "tasks", "feed"])
def test_the_function_of_a_report_is_of_one_task(table):
    """It changes the rows of its task, and one counter."""
    changes = [part for part in CREATE.split(";") if writes(part)]
    mine = [part for part in changes if f" {table} " in part]
    assert mine
    assert all("p_task_id" in part for part in mine)
    assert [part for part in changes if "p_task_id" not in part and " counters " not in part] == []
