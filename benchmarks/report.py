"""The result as a page: the machine, then a row per figure beside its goal."""

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

Every figure comes through the public API. Ratios are to a raw side timed in the same run, turn by
turn: `benchmarks/raw.py` writes the same rows, feed line and log line into the same tables with
`sqlite3`, as durably, and nothing else; the older programs' side is flock, `json.load`,
`json.dump(indent=2)`. The figure is the median of the rounds, *worst* that of the worst round.
Machines are noisy: compare ratios, not microseconds.

| what | figure | worst | goal | defect beyond | | ours / raw |
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
