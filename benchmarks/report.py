"""Keep the rows of each group's last run, write the page with its charts, compare a new run."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import charts
from benchmarks.measure import TIMES, Row

__all__ = ["RECORD", "keep", "line", "recorded", "slower", "write"]

RECORD = Path("benchmarks/record.json")
_PAGE = Path("docs/benchmarks.md")
_CHARTS = Path("docs/pictures/benchmarks")

_HEAD = """# Benchmarks

Written by `make bench`, group by group; `make bench ARGS=sqlite` runs one and renews its part of
this page, `make bench-check` compares a short run with the recorded ratios.

Every figure is measured through the public API. *times* is a ratio of this project and another
side, timed in the same run in alternating rounds: of times, above 1 this project is slower. For
SQLite, *raw* is `benchmarks/raw.py`: the same rows, feed line and log line into the same tables
with `sqlite3`, with the same durability, and nothing else. *Legacy* is what legacy programs do:
flock, `json.load`, `json.dump(indent=2)`. *Figure* is the median of the rounds, *worst* the worst
round. A figure beyond *defect beyond* is a defect. More is better where the goal is `≥`, otherwise
less is better. Machines are noisy: compare ratios, not microseconds.
"""

_TABLE = """
| measurement | figure | worst | goal | defect beyond | verdict | sides |
|---|---|---|---|---|---|---|
"""


def line(row: Row) -> str:
    """Return a row as text for a terminal."""
    return (
        f"{row.name:<72}{row.figure:>9.2f} {row.unit:<9}worst {row.worst:>9.2f}"
        f"  {row.verdict:<12} {row.detail}"
    )


def recorded() -> dict[str, Any]:
    """Return the recorded runs: ``{group: {machine, day, rows}}``."""
    return dict(json.loads(RECORD.read_text())) if RECORD.exists() else {}


def keep(group: str, rows: Iterable[Row]) -> None:
    """Record a group's run in place of its last one."""
    found = recorded()
    day = f"{datetime.now(UTC):%d %B %Y}".lstrip("0")
    found[group] = {"machine": _machine(), "day": day, "rows": [asdict(row) for row in rows]}
    RECORD.write_text(json.dumps(found, indent=1) + "\n")


def write(titles: Mapping[str, str]) -> None:
    """Write the page and its charts from what is recorded, in the order of the titles."""
    found = recorded()
    _CHARTS.mkdir(parents=True, exist_ok=True)
    page = [_HEAD]
    for group, title in titles.items():
        if group not in found:
            continue
        run = found[group]
        rows = [Row(**row) for row in run["rows"]]
        page.append(f"\n## {title}\n\n`{group}`, on {run['day']}, {run['machine']}.\n")
        for chart, lines in charts.lines_of(rows).items():
            name = charts.file_name(chart)
            (_CHARTS / name).write_text(charts.svg(chart, lines))
            page.append(f"\n![{chart}](pictures/benchmarks/{name})\n")
        page.append(_TABLE + "".join(map(_cells, rows)))
    _PAGE.write_text("".join(page))


def slower(rows: Iterable[Row], *, by: float) -> list[str]:
    """Return the ratios that are worse than the recorded ones by more than this share."""
    before = {row["name"]: row["figure"] for run in recorded().values() for row in run["rows"]}
    out = []
    for row in rows:
        if row.unit != TIMES or row.name not in before:
            continue
        was = before[row.name]
        share = was / row.figure if row.at_least else row.figure / was
        if share > 1 + by:
            out.append(f"{row.name}: {row.figure:.2f}, recorded {was:.2f}")
    return out


def _cells(row: Row) -> str:
    return (
        f"| {row.name} | {_number(row.figure)} {row.unit} | {_number(row.worst)} "
        f"| {_bound(row, row.goal)} | {_bound(row, row.defect)} | {row.verdict} | {row.detail} |\n"
    )


def _bound(row: Row, value: float | None) -> str:
    if value is None:
        return ""
    return f"{'≥' if row.at_least else '≤'} {value:g}"


def _number(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def _machine() -> str:
    cpu = platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        models = [v for k, _, v in (x.partition(":") for x in lines) if k.strip() == "model name"]
        cpu = models[0].strip() if models else cpu
    except OSError:
        pass
    return (
        f"{os.cpu_count()} cores ({cpu}), {platform.system()} {platform.release()}, "
        f"CPython {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    )
