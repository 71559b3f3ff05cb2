"""The json store compared with a legacy program, the dual store with its two stores alone."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from datetime import datetime
from itertools import count
from pathlib import Path

from benchmarks.measure import Row, compare, ratio
from benchmarks.work import create, legacy_task, opened, record_progress

__all__ = ["dual", "json_store"]


def json_store(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Time a report in a document of 10, 100 and 1000 agents, against a legacy program's edit."""
    for agents in (10, 100, 1000):
        theirs = legacy_task(folder / f"theirs-{agents}", "TASK-1", agents)
        place = folder / f"ours-{agents}"
        legacy_task(place, "TASK-1", agents)
        number = count()
        with opened(place) as store:
            found = compare(
                lambda store=store, number=number: record_progress(  # type: ignore[misc]
                    store, "TASK-1", f"a{next(number) % 10}", "a step of the work", 7
                ),
                lambda theirs=theirs, number=number: _edit(theirs, next(number)),  # type: ignore[misc]
                rounds=5 if quick else 11,
                each=max(10, (600 if quick else 2000) // agents),
            )
        goal, defect = (0.2, 0.4) if agents == 1000 else (None, None)
        name = f"json, a report among {agents} agents, against flock + load + dump(indent=2)"
        yield ratio(name, *found, goal=goal, defect=defect)


def _edit(path: Path, number: int) -> None:
    """Update one agent and append to its log, as legacy programs do."""
    now = datetime.now().isoformat()  # noqa: DTZ005  (as they do)
    log = path.parent / "progress" / f"a{number % 10}_progress.jsonl"
    line = {"timestamp": now, "agent_id": f"a{number % 10}", "status": "running", "progress": 7}
    with log.open("a") as file:
        file.write(json.dumps(line) + "\n")
    with path.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        document = json.load(file)
        agent = next(a for a in document["agents"] if a["id"] == f"a{number % 10}")
        agent |= {"status": "running", "progress": number % 100, "last_update": now}
        file.seek(0)
        file.truncate()
        json.dump(document, file, indent=2)


def dual(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Time a report in phases 1 and 2, against one to json alone plus one to sqlite alone."""
    rounds, each = (5, 60) if quick else (15, 150)
    with (
        opened(folder / "json", REGISTRY_PHASE="0") as source,
        opened(folder / "sqlite", REGISTRY_LOGS="off") as target,
    ):
        for phase in "12":
            with opened(folder / f"dual{phase}", REGISTRY_PHASE=phase) as both:
                number = count()
                for store in (source, target, both):
                    create(store, f"t{phase}", 8)

                def report(
                    *stores: object, phase: str = phase, number: Iterator[int] = number
                ) -> None:
                    n = next(number)
                    for store in stores:
                        record_progress(store, f"t{phase}", f"a{n % 8}", "a step", n % 100)  # type: ignore[arg-type]

                found = compare(
                    lambda: report(both),
                    lambda: report(source, target),
                    rounds=rounds,
                    each=each,
                )
            name = f"dual, phase {phase}, a report, against json alone + sqlite alone"
            yield ratio(name, *found, goal=1.10, defect=1.5)
