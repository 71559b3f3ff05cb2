"""Semantics 8 and 11: which values a store accepts, keeps and refuses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from contract_tests import build
from contract_tests.harness import Harness
from registry_api import Delete, Kind, Put, Task, errors, new_changeset

TEXTS = [
    "",
    " ",
    "line\nline\r\n\ttab",
    "quote ' \" ; DROP TABLE tasks; --",
    "Ünïcödé ✓ 日本語 😀 é",
    "\u2028\u2029\x01\x7f",
    "${workspaceFolder}\\path",
    "x" * 100_000,
]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_text_is_kept(harness: Harness, text: str) -> None:
    """Semantics 8: any Unicode but U+0000 and lone surrogates is returned unchanged."""
    store = harness.open()
    build.make(store, "t", build.agent("t", prompt=text), description=text)
    build.put(store, build.report("t", message=text), expected=None)
    store = harness.open()
    assert store.load("t").task.description == text
    assert store.load("t").agents[0].prompt == text
    assert store.list_records(Kind.PROGRESS).items[0].message == text  # type: ignore[union-attr]


def test_times_come_back_in_utc_with_microseconds(harness: Harness) -> None:
    """Semantics 8: a time in any zone is returned as the same moment in UTC."""
    store = harness.open()
    zone = timezone(timedelta(hours=5, minutes=45))
    moments = [
        datetime(2026, 3, 1, 12, 0, 0, 1, tzinfo=zone),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(2026, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    ]
    for n, moment in enumerate(moments):
        build.make(store, f"t{n}", created_at=moment)
        kept = store.load(f"t{n}").task.created_at
        assert kept == moment
        assert kept.tzinfo is UTC


@pytest.mark.parametrize("number", [0, -1, 250, 2**53, -(2**53)])
def test_integers_are_kept(harness: Harness, number: int) -> None:
    """Semantics 8: integers within ±2**53 are returned exactly."""
    store = harness.open()
    build.make(store, "t", build.agent("t", progress=number, pid=number))
    assert store.load("t").agents[0].progress == number
    assert store.load("t").agents[0].pid == number


def test_unknown_fields_are_kept_as_their_text(harness: Harness) -> None:
    """Semantics 8: `extra` keeps the JSON text of each value and the order, but not white space."""
    store = harness.open()
    extra = '{"z": 1.0, "a": 1e5, "big": 123456789012345678901234567890, "n": [null, {"k": "é"}]}'
    build.make(store, "t", build.agent("t", extra=extra), extra=extra)
    snapshot = harness.open().load("t")
    kept = extra.replace(", ", ",").replace(": ", ":")
    assert snapshot.task.extra == kept
    assert snapshot.agents[0].extra == kept


@pytest.mark.parametrize("good", ["a", "A", "0", "_", "-x", "a.b", "x" * 128, "TASK-1.2_3-z"])
def test_ids_that_are_taken(harness: Harness, good: str) -> None:
    """Semantics 11: an id has up to 128 letters, digits and ._-, and no leading dot."""
    store = harness.open()
    build.make(store, good, build.agent(good, good))
    assert store.load(good).agents[0].agent_id == good


@pytest.mark.parametrize(
    "bad", ["", ".", "..", "../x", "a/b", "a\\b", "a b", "a\n", "é", "x" * 129, "a\x00", ".hidden"]
)
def test_ids_that_are_refused(harness: Harness, bad: str) -> None:
    """Semantics 11: any other id raises InvalidChangeset, as a task's id and as an agent's."""
    store = harness.open()
    with pytest.raises(errors.InvalidChangeset):
        build.make(store, bad)
    with pytest.raises(errors.InvalidChangeset):
        build.make(store, "t", build.agent("t", bad))
    assert store.list_tasks().items == ()


def test_case_counts_in_ids(harness: Harness) -> None:
    """Semantics 11: ids that differ only in case are different."""
    store = harness.open()
    build.make(store, "Task", build.agent("Task", "A"), build.agent("Task", "a"))
    build.make(store, "task")
    assert [t.task_id for t in store.list_tasks().items] == ["Task", "task"]
    assert [a.agent_id for a in store.load("Task").agents] == ["A", "a"]


BAD: dict[str, dict[str, Any]] = {
    "nul": {"description": "a\x00b"},
    "surrogate": {"description": "\ud800"},
    "naive": {"created_at": datetime(2026, 1, 1)},  # noqa: DTZ001  (a naive time is the test)
    "year 0": {"created_at": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5)))},
    "year 10000": {"created_at": datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-5)))},
    "huge": {"max_agents": 2**53 + 1},
    "float": {"max_agents": 1.5},
    "bool": {"max_agents": True},
    "status": {"recorded_status": "DONE"},
    "extra": {"extra": "[1]"},
    "extra text": {"extra": "{"},
    "extra twice": {"extra": '{"a": 1, "a": 2}'},
    "extra nan": {"extra": '{"a": NaN}'},
    "extra deep": {"extra": '{"a":' * 100_000},
    "none": {"description": None},
}


@pytest.mark.parametrize("fields", BAD.values(), ids=BAD)
def test_bad_values_are_refused(harness: Harness, fields: dict[str, Any]) -> None:
    """Semantics 8: a value outside the model is refused with the name of its field and changes
    nothing.
    """
    store = harness.open()
    changeset = build.creating("t")
    changeset = new_changeset("t", [Put(Task(task_id="t", **fields))], expected=0)
    with pytest.raises(errors.InvalidChangeset, match=next(iter(fields))):
        store.commit(changeset)
    assert store.head("t").revision == 0


def test_a_changeset_is_of_one_task_and_has_ops(harness: Harness) -> None:
    """Semantics 2: a changeset with ops on another task, without ops, with a wrong kind of
    `expected`, or that creates a task without its record is refused.
    """
    store = harness.open()
    build.make(store, "t")
    for changeset in (
        new_changeset("t", [Put(build.agent("other"))], expected=1),
        new_changeset("t", [], expected=1),
        new_changeset("new", [Put(build.agent("new"))], expected=0),
        new_changeset("t", [Put(build.agent("t"))], expected=None),
        new_changeset("t", [Put(build.agent("t"))], expected=-1),
    ):
        with pytest.raises(errors.InvalidChangeset):
            store.commit(changeset)
    assert store.head("t").revision == 1


@pytest.mark.parametrize("key", ["", "x", "00", "0_0", "٠", " 0", "9" * 20, "1" * 5000, "-0"])
def test_phase_keys_are_plain_numbers(harness: Harness, key: str) -> None:
    """Semantics 2: a delete names a phase by its index in plain decimal; other keys are refused."""
    store = harness.open()
    build.make(store, "t", build.phase("t", 0))
    with pytest.raises(errors.InvalidChangeset):
        store.commit(new_changeset("t", [Delete(Kind.PHASE, key)], expected=1))
    assert len(store.load("t").phases) == 1


def test_too_large_a_changeset_is_refused(harness: Harness) -> None:
    """Semantics 2: a changeset that exceeds the declared limits is refused, not truncated."""
    store = harness.open()
    build.make(store, "t")
    many = [Put(build.finding("t")) for _ in range(store.info.limits.ops + 1)]
    with pytest.raises(errors.InvalidChangeset, match="Split it"):
        store.commit(new_changeset("t", many, expected=None))
