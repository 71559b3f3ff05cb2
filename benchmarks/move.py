"""A migration of a large registry: throughput, how long callers wait, and memory."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median

from benchmarks.commands import writers
from benchmarks.measure import TIMES, Row, compare, ratio
from benchmarks.work import create, legacy_task, opened
from registry_api import load_settings, open_migration
from registry_api.migration import MigrationPhase
from registry_api.workspace import living, quantile

__all__ = ["at_size", "beside_writers", "cut_over", "reading", "recovery"]

_START = datetime(2026, 1, 4, 22, 15, 30)  # noqa: DTZ001  (legacy programs write no zone)


def _workspace(place: Path, tasks: int, agents: int, lines: int) -> None:
    for n in range(tasks):
        folder = legacy_task(place, f"TASK-{n:03}", agents).parent
        for agent in range(agents):
            log = folder / "progress" / f"a{agent}_progress.jsonl"
            with log.open("w") as file:
                for k in range(lines):
                    line = {"timestamp": (_START + timedelta(seconds=k)).isoformat()}
                    line |= {"agent_id": f"a{agent}", "status": "working", "message": f"step {k}"}
                    file.write(json.dumps(line | {"progress": k}) + "\n")


def at_size(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Switch 0 to 3 and back to 2 in a new process: 2,000 tasks, 20,000 agents, 200,000 lines."""
    tasks = 200 if quick else 2000
    command = [sys.executable, "-m", "benchmarks.move", str(folder / "big"), str(tasks)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    found = json.loads(done.stdout)
    size = f"{tasks:,} tasks, {tasks * 10:,} agents, {tasks * 100:,} lines"
    for name, key, unit, goal, defect in (
        ("0 to 3", "seconds", "s", 20, 40),
        ("back-fill", "filled", "records/s", 60_000, 40_000),
        ("verify", "verified", "records/s", 100_000, 50_000),
        ("pause of switch 2 to 3", "cut", "ms", None, None),
        ("pause of switch 3 to 2", "back", "ms", None, None),
        ("memory of the process that switches", "memory", "MiB", 120, None),
    ):
        yield Row(
            name=f"{name}, {size}",
            figure=found[key],
            worst=found[key],
            unit=unit,
            goal=None if quick else goal,
            defect=None if quick else defect,
            at_least=unit == "records/s",
        )


def _measure(place: Path, tasks: int) -> dict[str, float]:
    _workspace(place, tasks, 10, 10)
    times: dict[str, list[float]] = {}

    def progress(what: str, *_: int) -> None:
        times.setdefault(what, [time.perf_counter()]).append(time.perf_counter())

    with closing(open_migration(load_settings(place, env={}))) as migration:
        start = time.perf_counter()
        first = migration.switch(MigrationPhase(1), actor="benchmark", progress=progress).steps[0]
        assert first.verified is not None
        taken = {what: t[-1] - t[0] for what, t in times.items()}
        cut = migration.switch(MigrationPhase(3), actor="benchmark").steps[-1]
        seconds = time.perf_counter() - start
        back = migration.switch(MigrationPhase(2), actor="benchmark").steps[0]
    records = first.verified.records
    return {
        "seconds": seconds,
        "filled": records / taken["catch up"],
        "verified": records / taken["verify"],
        "cut": cut.pause_ms,
        "back": back.pause_ms,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def cut_over(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Time how long the cut-over blocks callers, by the number of documents to freeze."""
    for tasks, goal, defect in ((200, 30, 100), (1000 if quick else 10_000, 150, 250)):
        place = folder / f"frozen-{tasks}"
        _workspace(place, tasks, 1, 0)
        cut, back = [], []
        with closing(open_migration(load_settings(place, env={}))) as migration:
            migration.switch(MigrationPhase(2), actor="benchmark")
            for _ in range(1 if quick else 3):
                for phase, out in ((3, cut), (2, back)):
                    report = migration.switch(MigrationPhase(phase), actor="benchmark")
                    out.append(report.steps[0].pause_ms)
        for name, pauses in (("2 to 3", cut), ("3 to 2", back)):
            yield Row(
                name=f"pause of switch {name}, {tasks:,} tasks, no writers",
                figure=median(pauses),
                worst=max(pauses),
                unit="ms",
                goal=goal,
                defect=defect,
            )


_DYING = """
import os, signal, sys
from backends.json_files.migration_source import JsonMigrationSource
JsonMigrationSource.sweep = lambda self: os.kill(os.getpid(), signal.SIGKILL)
from backends.admin.cli import main
main(["switch", "3", "--workspace", sys.argv[1]])
"""


def recovery(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Kill a cut-over of 200 documents while the gate is held; time the next caller's answer."""
    samples = []
    for n in range(2 if quick else 5):
        place = folder / f"dead-{n}"
        _workspace(place, 200, 5, 0)
        with opened(place) as store:
            store.counts()
            subprocess.run([sys.executable, "-c", _DYING, str(place)], check=False)
            start = time.perf_counter()
            store.head("TASK-000")
            samples.append(time.perf_counter() - start)
    yield Row(
        name="recovery of a switch killed while it held the gate, 200 tasks",
        figure=median(samples),
        worst=max(samples),
        unit="s",
        goal=1.0,
    )


def reading(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Time ``load`` in phase 2 against sqlite alone: 10 and 100 agents."""
    with (
        opened(folder / "both", REGISTRY_PHASE="2") as both,
        opened(folder / "alone") as alone,
    ):
        for agents in (10, 100):
            task = f"t{agents}"
            for store in (both, alone):
                create(store, task, agents)
            time.sleep(0.1)  # a document changed more recently is not trusted by its stamp alone
            found = compare(
                lambda task=task: both.load(task),  # type: ignore[misc]
                lambda task=task: alone.load(task),  # type: ignore[misc]
                rounds=5 if quick else 15,
                each=200,
            )
            yield ratio(
                f"load in phase 2, {agents} agents, against sqlite alone",
                *found,
                goal=1.15 if agents == 10 else None,
                defect=1.3 if agents == 10 else None,
                names=("phase 2", "sqlite"),
            )


def beside_writers(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Time four writers while a switch fills and compares: their p99, against the p99 before."""
    place = folder / "throttled"
    _workspace(place, 200, 5, 20 if quick else 100)
    with opened(place) as store:
        store.counts()
    shares = []
    with closing(open_migration(load_settings(place, env={}))) as migration, writers(place):
        for _ in range(1 if quick else 3):
            before = _writes(place)
            time.sleep(3.0)
            between = _writes(place)
            migration.switch(MigrationPhase(1), actor="benchmark", timeout=30.0)
            after = _writes(place)
            without, during = _p99(before, between), _p99(between, after)
            shares.append(during / without)
            migration.switch(MigrationPhase(0), actor="benchmark", timeout=30.0)
    yield Row(
        name="p99 of 4 writers while switch 1 fills and compares, against before the switch",
        figure=median(shares),
        worst=max(shares),
        unit=TIMES,
        goal=2.0,
    )


def _writes(place: Path) -> list[int]:
    total: list[int] = []
    for process in living(place / ".registry"):
        buckets = process.times["write"]
        total = [a + b for a, b in zip(total or [0] * len(buckets), buckets, strict=True)]
    return total


def _p99(before: list[int], after: list[int]) -> float:
    return quantile([b - a for a, b in zip(before, after, strict=True)], 0.99) or 0.0


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_measure(Path(sys.argv[1]), int(sys.argv[2]))))
