"""Write the result as a page: the machine, then one row per figure with its goal."""

from __future__ import annotations

import os
import platform
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.measure import Row

__all__ = ["line", "write"]

_HEAD = """# Benchmarks

Written by `make bench` on {machine}, on {day}.

Every figure is measured through the public API. A ratio (`x`) is this project / a raw program,
timed in the same run in alternating rounds: of times, above 1 this project is slower. For SQLite,
`benchmarks/raw.py` writes the same rows, feed line and log line into the same tables with
`sqlite3`, with the same durability, and does nothing else. For the json store, the raw program does
what legacy programs do: flock, `json.load`, `json.dump(indent=2)`. *figure* is the median of the
rounds, *worst* the worst round. A figure beyond *defect beyond* is a defect. More is better where
the goal is `≥`, otherwise less is better. Machines are noisy: compare ratios, not microseconds.

| measurement | figure | worst | goal | defect beyond | verdict | ours / raw |
|---|---|---|---|---|---|---|
"""


def line(row: Row) -> str:
    """Return a row as text for a terminal."""
    return (
        f"{row.name:<72}{row.figure:>9.2f} {row.unit:<9}worst {row.worst:>9.2f}"
        f"  {row.verdict:<12} {row.detail}"
    )


def write(path: Path, rows: list[Row]) -> None:
    """Write the page."""
    body = "".join(
        f"| {r.name} | {_number(r.figure)} {r.unit} | {_number(r.worst)} | {_bound(r, r.goal)} "
        f"| {_bound(r, r.defect)} | {r.verdict} | {r.detail} |\n"
        for r in rows
    )
    day = f"{datetime.now(UTC):%d %B %Y}".lstrip("0")
    path.write_text(_HEAD.format(machine=_machine(), day=day) + body)


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
