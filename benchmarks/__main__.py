"""``python -m benchmarks [--quick] [GROUP | CASE …]``: run groups of cases, single ones, or all.

A group's whole run is recorded and renews its part of docs/benchmarks.md. ``check`` runs the cases
of ratios quickly, and fails if one is more than 15 % worse than recorded.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import (
    commands,
    compaction,
    files,
    fleet,
    gate,
    machine,
    move,
    orchestrating,
    peers,
    postgresql,
    reads,
    record_progress,
    watching,
)
from benchmarks.measure import Row
from benchmarks.report import keep, line, recorded, slower, write

Case = Callable[..., Iterator[Row]]

# Each but the last takes some five minutes at most.
GROUPS: dict[str, tuple[str, dict[str, Case]]] = {
    "machine": ("This machine's own limits", {"limits": machine.machine}),
    "sqlite": (
        "SQLite: a report",
        {
            "alone": record_progress.alone,
            "processes": record_progress.processes,
            "together": record_progress.together,
            "gate": gate.gate,
        },
    ),
    "reads": ("SQLite: reads", {"load": reads.load, "registry": reads.registry}),
    "json": (
        "JSON, and both stores together",
        {"json-report": files.json_store, "dual": files.dual, "reading": move.reading},
    ),
    "peers": ("Other projects", {"peer-reports": peers.peers}),
    "moves": ("Moves", {"move": move.at_size, "beside": move.beside_writers}),
    "pauses": (
        "Moves: how long callers wait",
        {"pause": commands.pause, "cut": move.cut_over, "recovery": move.recovery},
    ),
    "starting": ("Starting", {"cold": commands.cold}),
    "orchestrator": (
        "The orchestrator",
        {
            "report": orchestrating.report,
            "fifty": orchestrating.fifty,
            "waiters": orchestrating.waiters,
        },
    ),
    "dashboard": (
        "The dashboard",
        {
            "summary": watching.summary,
            "streams": watching.streams,
            "log": watching.log,
            "paint": watching.paint,
            "seen": watching.seen,
        },
    ),
    "postgresql": ("PostgreSQL", {"postgresql-report": postgresql.postgresql}),
    # docs/scaling.md tells their figures.
    "scaling": (
        "",
        {"fleet": fleet.fleet, "sizes": fleet.sizes, "compaction": compaction.compaction},
    ),
}
CASES = {name: case for _, cases in GROUPS.values() for name, case in cases.items()}

_CHECKED = ("alone", "load", "json-report", "dual", "reading")
_WORSE = 0.15
_TRIES = 3  # a row counts as slower if it was each time


def main(words: list[str]) -> None:
    """Run what the command line names, or all groups."""
    quick = "--quick" in words
    named = [w for w in words if w != "--quick"]
    if named == ["check"]:
        sys.exit(check())
    unknown = [w for w in named if w not in CASES and w not in GROUPS]
    if unknown:
        sys.exit(
            f"no group and no case is called {unknown[0]}; there are "
            f"{', '.join(GROUPS)}, and {', '.join(CASES)}"
        )
    for name in named or GROUPS:
        if name in CASES:
            run(name, quick=quick)
            continue
        title, cases = GROUPS[name]
        rows = [row for case in cases for row in run(case, quick=quick)]
        if title and rows and not quick:
            keep(name, rows)
            write({group: title for group, (title, _) in GROUPS.items() if title})


def run(name: str, *, quick: bool) -> list[Row]:
    """Run a case; print its rows and return them."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="registry-bench-") as folder:
        for row in CASES[name](Path(folder), quick=quick):
            print(line(row), flush=True)
            rows.append(row)
    return rows


def check() -> str | None:
    """Run the cases of ratios quickly; return what to tell if one is worse than recorded."""
    worse: list[str] = []
    known = {row["name"] for group in recorded().values() for row in group["rows"]}
    for name in _CHECKED:
        again = set[str]()  # the rows that were worse each time so far
        for _ in range(_TRIES):
            rows = run(name, quick=True)
            if not any(row.name in known for row in rows):
                return f"{name} is not recorded: run `make bench` first"
            found = slower(rows, by=_WORSE)
            again = {line.partition(":")[0] for line in found} & (again or {r.name for r in rows})
            if not again:
                break
        worse += [line for line in found if line.partition(":")[0] in again]
    return "\n".join(["worse than recorded by more than 15 %:", *worse]) if worse else None


if __name__ == "__main__":
    main(sys.argv[1:])
