"""The page of the benchmarks: what was recorded, with its charts; and the check against it."""

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks import charts, report
from benchmarks.__main__ import CASES, GROUPS
from benchmarks.measure import TIMES, Row, ratio

ROOT = Path(__file__).parents[2]
TITLES = {group: title for group, (title, _) in GROUPS.items() if title}


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Let the report read and write below tmp_path."""
    monkeypatch.chdir(tmp_path)
    for folder in ("benchmarks", "docs"):
        (tmp_path / folder).mkdir()
    return tmp_path


def test_the_page_and_its_charts_are_of_the_record(elsewhere):
    """`make bench` wrote all three together."""
    (elsewhere / report.RECORD).write_bytes((ROOT / report.RECORD).read_bytes())
    report.write(TITLES)
    for path in ("docs/benchmarks.md", "docs/pictures/benchmarks"):
        made, kept = elsewhere / path, ROOT / path
        files = sorted(made.iterdir()) if made.is_dir() else [made]
        assert files
        for file in files:
            assert file.read_text() == (kept / file.name if made.is_dir() else kept).read_text()


def test_every_group_was_recorded():
    assert sorted(json.loads((ROOT / report.RECORD).read_text())) == sorted(TITLES)


def test_a_group_replaces_only_its_own_rows(elsewhere):
    one = ratio("a", [2.0], [1.0], goal=1.5, defect=1.8)
    other = Row(name="b", figure=3, worst=4, unit="ms")
    report.keep("sqlite", [one])
    report.keep("reads", [other])
    report.keep("reads", [other])
    report.write(TITLES)
    page = (elsewhere / "docs" / "benchmarks.md").read_text()
    assert page.count("\n| b | 3.00 ms |") == 1
    line = "| a | 2.00 times | 2.00 | ≤ 1.5 | ≤ 1.8 | DEFECT | ours 2000000 µs, raw 1000000 µs |"
    assert line in page


def test_the_check_names_what_became_slower(elsewhere):
    """Only ratios count, each in its direction: more is better for some."""
    faster = Row(name="rate", figure=1.0, worst=1.0, unit=TIMES, at_least=True)
    report.keep("sqlite", [ratio("time", [2.0], [1.0]), faster])
    worse = [
        ratio("time", [2.4], [1.0]),
        Row(name="rate", figure=0.8, worst=0.8, unit=TIMES, at_least=True),
        ratio("not recorded", [9.0], [1.0]),
    ]
    assert report.slower(worse, by=0.15) == [
        "time: 2.40, recorded 2.00",
        "rate: 0.80, recorded 1.00",
    ]
    assert not report.slower([ratio("time", [2.2], [1.0]), faster], by=0.15)


def test_a_chart():
    """One line a side, labelled beside its end, without labels that cover each other."""
    rows = [
        Row(name="x", figure=1, worst=1, unit="µs", chart="c", at=n, sides={"ours": n, "<raw>": n})
        for n in (10, 100, 1000)
    ]
    (lines,) = charts.lines_of(rows).values()
    drawn = ET.fromstring(charts.svg("a & b", lines))
    texts = {t.text: float(t.get("y")) for t in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert {"a & b", "ours", "<raw>", "10", "100", "1k"} <= set(texts)
    assert abs(texts["ours"] - texts["<raw>"]) >= 14
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}polyline"))) == 2
    assert (
        charts.file_name("load of a task, by its agents (µs)") == "load-of-a-task-by-its-agents.svg"
    )


def test_a_chart_needs_two_points():
    row = Row(name="x", figure=1, worst=1, unit="µs", chart="c", at=1, sides={"ours": 1})
    assert charts.lines_of([row]) == {}


def test_names_of_groups_and_cases_differ():
    """A word of the command line names one of them."""
    assert not set(GROUPS) & set(CASES)
