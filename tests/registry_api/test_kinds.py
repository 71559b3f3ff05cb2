"""A kind of record that is forgotten in one of the tables fails here, not in production."""

import dataclasses

import pytest

from backends.json_files.legacy.lens import dialects
from backends.sql.rows import TABLES
from registry_api import TaskSnapshot
from registry_api.records import models, query

TABLES_OF_KINDS = {
    "classes": models.CLASSES,
    "key fields": models.KEY_FIELD,
    "plurals": models.PLURALS,
    "orders": query.SORT,
    "filters": {models.Kind.TASK, *query.FILTERS},  # tasks have a query of their own
    "tables of SQL": TABLES,
}


@pytest.mark.parametrize("table", TABLES_OF_KINDS.values(), ids=TABLES_OF_KINDS)
def test_every_kind_is_in_the_table(table):
    assert set(table) == set(models.Kind)


def test_a_snapshot_holds_every_kind_that_is_no_history():
    """``verify`` compares the fields of these names."""
    fields = {field.name for field in dataclasses.fields(TaskSnapshot)}
    assert {models.PLURALS[kind] for kind in models.PARTS} <= fields


def test_every_kind_that_is_no_history_has_a_place_in_a_document():
    """Progress and findings are lines of logs."""
    assert {kind for kind in models.Kind if kind not in models.HISTORIES} <= set(dialects.FIELDS)
