"""A durable report with other projects' storage, in the same run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from statistics import median

from benchmarks.files import legacy_report
from benchmarks.measure import Row, flat, ratio
from benchmarks.work import create, legacy_task, opened, record_progress

__all__ = ["peers"]

_PYTHON = Path(".venv-peers/bin/python")
_PROGRAM = Path(__file__).with_name("peer_reports.py")
_PEERS = {
    "sqlalchemy": "SQLAlchemy's ORM on SQLite",
    "diskcache": "diskcache",
    "langgraph": "langgraph's SQLite checkpointer",
}


def peers(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Time a report of one of eight agents in our SQLite store, durable, beside each peer."""
    if not _PYTHON.exists():
        sys.stderr.write("the peers are left out: `make bench` installs them\n")
        return
    rounds, each = (3, 100) if quick else (7, 300)
    theirs: dict[str, list[float]] = {}
    legacy = legacy_task(folder / "legacy", "t", 8)
    ours, number = [], count()
    with opened(folder / "ours") as store:
        create(store, "t", 8)

        def report() -> None:
            n = next(number)
            record_progress(store, "t", f"a{n % 8}", f"step {n}", n % 100)

        for turn in range(rounds):
            ours.append(median(flat(report, each=each)))
            for name in _PEERS:
                (place := folder / f"{name}-{turn}").mkdir()
                command = [str(_PYTHON), str(_PROGRAM), name, str(place), str(each)]
                out = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
                theirs.setdefault(name, []).append(median(json.loads(out)))
            edit = flat(lambda: legacy_report(legacy, next(number), synced=True), each=each)
            theirs.setdefault("legacy", []).append(median(edit))
    for name, found in theirs.items():
        peer = _PEERS.get(name, "a legacy program that syncs its file")
        yield ratio(f"a durable report, against {peer}", ours, found, names=("ours", name))
