"""Waiting times of an operator: the pause of a switch under load, a cold ``status``."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median

from benchmarks.measure import Row
from benchmarks.work import legacy_task, opened, record_progress
from registry_api import load_settings, open_migration
from registry_api.migration import MigrationPhase

__all__ = ["cold", "pause", "writers"]

_TASKS, _WRITERS = 200, 4


def pause(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Time how long a switch blocks callers: 200 tasks, four writers without pauses."""
    found: dict[str, list[float]] = {}
    for n in range(2 if quick else 5):
        place = folder / f"pause-{n}"
        for task in range(_TASKS):
            legacy_task(place, f"TASK-{task:03}", 5)
        with opened(place) as store:
            store.counts()
        migration = open_migration(load_settings(place, env={}))
        with closing(migration), writers(place):
            for phase in (1, 2, 1, 0):
                for step in migration.switch(MigrationPhase(phase), actor="benchmark").steps:
                    name = f"pause of switch {step.from_phase:d} to {step.to_phase:d}"
                    found.setdefault(name, []).append(step.pause_ms)
    for name, pauses in found.items():
        yield Row(
            name=f"{name}, {_TASKS} tasks, {_WRITERS} writers",
            figure=median(pauses),
            worst=max(pauses),
            unit="ms",
            goal=50,
            defect=250,
        )


@contextmanager
def writers(place: Path) -> Iterator[None]:
    """Run four processes that write reports without pauses."""
    command = [sys.executable, "-m", "benchmarks.commands", str(place)]
    writers = [
        subprocess.Popen([*command, str(n)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for n in range(_WRITERS)
    ]
    try:
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.readline()
        yield
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()


def _write(place: Path, mine: int) -> None:
    with opened(place) as store:
        sys.stdout.write("started\n")
        sys.stdout.flush()
        n = mine
        while True:
            record_progress(store, f"TASK-{n % _TASKS:03}", f"a{n % 5}", f"step {n}", n % 100)
            n += _WRITERS


def cold(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Time ``registry-backend status --json`` in a new process."""
    place = folder / "cold"
    for task in range(5):
        legacy_task(place, f"TASK-{task}", 5)
    with closing(open_migration(load_settings(place, env={}))) as migration:
        migration.switch(MigrationPhase.PARALLEL_WRITE, actor="benchmark")
    command = [str(Path(sys.executable).with_name("registry-backend")), "status", "--json"]
    samples = []
    for _ in range(5 if quick else 21):
        start = time.perf_counter()
        subprocess.run([*command, "--workspace", str(place)], check=True, capture_output=True)
        samples.append(time.perf_counter() - start)
    yield Row(
        name="cold status --json, in a new process",
        figure=median(samples) * 1000,
        worst=max(samples) * 1000,
        unit="ms",
        goal=300,
        defect=600,
    )


if __name__ == "__main__":
    _write(Path(sys.argv[1]), int(sys.argv[2]))
