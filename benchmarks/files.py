"""The json store compared with a legacy program, the dual store with its two stores alone."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from datetime import datetime
from itertools import count
from pathlib import Path

from benchmarks.measure import Row, compare, ratio
from benchmarks.work import create, legacy_task, opened, record_progress

__all__ = ["dual", "json_store", "legacy_report"]

_GOALS = {  # agents, synced: goal, defect
    (10, True): (1.0, 1.5),
    (10, False): (2.5, 4.0),
    (1000, False): (1 / 8, 1 / 5),
}


def json_store(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Time a report in a document of 10, 100 and 1000 agents, against a legacy program's edit, and
    against one that syncs the document.
    """
    for agents in (10, 100, 1000):
        place = folder / f"ours-{agents}"
        legacy_task(place, "TASK-1", agents)
        number = count()
        for synced in (False, True):
            theirs = legacy_task(folder / f"theirs-{agents}-{synced}", "TASK-1", agents)
            with opened(place) as store:
                found = compare(
                    lambda store=store, number=number: record_progress(  # type: ignore[misc]
                        store, "TASK-1", f"a{next(number) % 10}", "a step of the work", 7
                    ),
                    lambda theirs=theirs, number=number, synced=synced: legacy_report(  # type: ignore[misc]
                        theirs, next(number), synced=synced
                    ),
                    rounds=5 if quick else 11,
                    each=max(10, (600 if quick else 2000) // agents),
                )
            goal, defect = _GOALS.get((agents, synced), (None, None))
            side = "legacy, synced" if synced else "legacy"
            yield ratio(
                f"json, a report among {agents} agents, against {side}",
                *found,
                goal=goal,
                defect=defect,
                names=("ours", side),
                chart="a report in json, by the task's agents (µs)",
                at=agents,
            )


def legacy_report(path: Path, number: int, *, synced: bool) -> None:
    """Update one agent of a document and append to its log, as legacy programs do: flock,
    ``json.load``, ``json.dump(indent=2)``. ``synced``: and make the document durable.
    """
    now = datetime.now().isoformat()  # noqa: DTZ005  (as they do)
    log = path.parent / "progress" / f"a{number % 8}_progress.jsonl"
    line = {"timestamp": now, "agent_id": f"a{number % 8}", "status": "running", "progress": 7}
    with log.open("a") as file:
        file.write(json.dumps(line) + "\n")
    with path.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        document = json.load(file)
        agent = next(a for a in document["agents"] if a["id"] == f"a{number % 8}")
        agent |= {"status": "running", "progress": number % 100, "last_update": now}
        file.seek(0)
        file.truncate()
        json.dump(document, file, indent=2)
        if synced:
            file.flush()
            os.fdatasync(file.fileno())


def dual(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Time a report in phases 1 and 2, against one to json alone plus one to sqlite alone."""
    rounds, each = (5, 60) if quick else (15, 150)
    with (
        opened(folder / "json", REGISTRY_PHASE="0") as source,
        opened(folder / "sqlite", REGISTRY_LOGS="off", REGISTRY_DURABLE="0") as target,
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
            name = f"dual, phase {phase}, a report, against json alone + sqlite NORMAL alone"
            yield ratio(name, *found, goal=1.10, defect=1.3, names=("dual", "both alone"))
