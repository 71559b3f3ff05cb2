"""The pages for developers agree with the code: data model, Python API."""

import dataclasses
import inspect
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

import registry_api
from backends.json_files.legacy.lens.dialects import FIELDS
from backends.jsonl.lines import encode_line
from backends.jsonl.times import Times
from backends.sql import schema
from backends.sql.rows import TABLES
from registry_api import errors
from registry_api.records import CLASSES, KINDS, Finding, Kind, ProgressEntry, json_text
from tests.docs import data_model

DOCS = Path(__file__).parents[2] / "docs"


def fields_of(kind):
    return [f.name for f in dataclasses.fields(CLASSES[kind])]


def test_the_data_model_is_current():
    """docs/data-model.md agrees with the code: after a change of it, run
    `python -m tests.docs.data_model`.
    """
    assert data_model.PAGE.read_text() == data_model.written()


@pytest.mark.parametrize("kind", Kind)
def test_every_field_has_a_meaning_and_a_place(kind):
    """A meaning for each field, and for no other name; a place in both dialects; a column."""
    assert list(data_model.MEANINGS[kind]) == fields_of(kind)
    assert all(data_model.MEANINGS[kind].values())
    assert all(all(data_model.places(kind, name)) for name in fields_of(kind))
    columns = {c.name for c in schema.metadata.tables[TABLES[kind]].columns}
    assert set(fields_of(kind)) <= columns
    assert columns - set(fields_of(kind)) <= data_model.COLUMNS.keys()


def test_no_place_is_stated_twice():
    """A place that the tables of the code state is not repeated in the script."""
    listed = {(kind, f.name) for kind, found in FIELDS.items() for f in found}
    theirs = data_model.PLACES.keys()
    assert theirs & listed <= {(Kind.VERDICT, "reviewer_id")}  # a library review has it elsewhere
    assert all(name in fields_of(kind) for kind, name in theirs)


@pytest.mark.parametrize("cls", [ProgressEntry, Finding])
def test_the_keys_of_log_lines_are_those_stated(cls):
    """What is written into a log has the keys that the page names."""
    kind = KINDS[cls]
    key = {"entry_id": "x"} if cls is ProgressEntry else {"finding_id": "x", "phase_index": 1}
    record = cls(task_id="t", agent_id="a", timestamp=datetime.now(UTC), foreign=True, **key)
    line = json_text.parse(encode_line(record, changeset="c", times=Times(UTC)))
    stated = {data_model.places(kind, name)[0].strip("`") for name in fields_of(kind)}
    assert line.keys() - {"changeset"} == stated - {"the task's folder", "the line's other keys"}


def test_every_status_has_a_meaning():
    """The page explains each status, and no other word."""
    for kind, meanings in data_model.STATUSES.items():
        assert list(meanings) == [s.value for s in kind]


def blocks(page):
    """Return the python blocks of a page, each at its line, so that errors name that line."""
    text = (DOCS / page).read_text()
    return [
        "\n" * text.count("\n", 0, found.start(1)) + found[1]
        for found in re.finditer(r"```python\n(.*?)```", text, re.DOTALL)
    ]


def test_the_examples_of_the_python_api_run(tmp_path, monkeypatch):
    """They run from top to bottom, and print what their comments say."""
    monkeypatch.chdir(tmp_path)
    for name in [n for n in registry_api.Settings.model_fields if n != "workspace"]:
        monkeypatch.delenv(f"REGISTRY_{name.upper()}", raising=False)
    lines = (DOCS / "python-api.md").read_text().splitlines()
    printed = []

    def check(*values):
        line = lines[sys._getframe(1).f_lineno - 1]
        text = " ".join(map(str, values))
        expected = line.partition(")  # ")[2]
        assert expected in {"", text}, line
        printed.append(text)

    scope = {"print": check}
    for block in blocks("python-api.md"):
        exec(compile(block, "docs/python-api.md", "exec"), scope)
    assert len(printed) > 20


def test_every_error_is_documented():
    """docs/python-api.md has a row for each class of registry_api/errors.py, at its place in the
    tree, with its code and whether a retry may help.
    """
    text = (DOCS / "python-api.md").read_text()
    rows = re.findall(
        r"^\| ((?:· )*)`(\w+)`(?: \((\w+)\))? \| `(\w+)` \| (yes|no) \|", text, re.MULTILINE
    )
    classes = [
        cls
        for _, cls in inspect.getmembers(errors, inspect.isclass)
        if cls.__module__ == errors.__name__
    ]
    assert sorted(name for _, name, *_ in rows) == sorted(c.__name__ for c in classes)
    above = list[type]()
    for dots, name, builtin, code, retryable in rows:
        cls, depth = getattr(errors, name), dots.count("·")
        above[depth:] = [cls]
        assert depth == 0 or above[depth - 1] in cls.__bases__, name
        assert (cls.code, "yes" if cls.retryable else "no") == (code, retryable), name
        assert not builtin or builtin in {b.__name__ for b in cls.__bases__}, name


def test_the_python_api_names_every_function():
    """Each public function is explained."""
    text = (DOCS / "python-api.md").read_text() + (DOCS / "writing-a-backend.md").read_text()
    functions = [n for n in registry_api.__all__ if inspect.isfunction(getattr(registry_api, n))]
    assert [n for n in functions if n not in text] == []
