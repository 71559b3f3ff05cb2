"""Waiting times of an operator: the pause of a switch under load, the start of new processes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median

from benchmarks.measure import Row, Side, ratio
from benchmarks.work import create, legacy_task, opened, record_progress
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
            goal=30,
            defect=100,
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
    """Time new processes beside one that only imports the libraries they need."""
    place = folder / "cold"
    for task in range(5):
        legacy_task(place, f"TASK-{task}", 5)
    with closing(open_migration(load_settings(place, env={}))) as migration:
        migration.switch(MigrationPhase.PARALLEL_WRITE, actor="benchmark")
    here, samples = ["--workspace", str(place)], 5 if quick else 21
    yield ratio(
        "status --json in a new process, against import pydantic, orjson",
        *_alternately(
            lambda: _run(_program("registry-backend"), "status", "--json", *here),
            lambda: _run(sys.executable, "-c", "import pydantic, orjson"),
            samples,
        ),
        goal=2.0,
        defect=2.5,
        scale=1e3,
        names=("status", "imports"),
    )
    yield ratio(
        "registry-orchestrator serve until it answers initialize, against import mcp",
        *_alternately(
            lambda: _initialize(_program("registry-orchestrator"), "serve", *here),
            lambda: _run(sys.executable, "-c", "import mcp"),
            samples,
        ),
        goal=1.3,
        scale=1e3,
        names=("serve", "import"),
    )
    with opened(new := folder / "new") as store:
        create(store, "t", 8)
    took = [json.loads(_run(sys.executable, "-c", _OPEN, str(new))) for _ in range(samples)]
    for which, times, goal in zip(
        ("first, with the import of its modules", "second"),
        zip(*took, strict=True),
        (None, 5),
        strict=True,
    ):
        yield Row(
            name=f"a store is opened in a new process, the {which}",
            figure=median(times) * 1e3,
            worst=max(times) * 1e3,
            unit="ms",
            goal=goal,
        )


_OPEN = """
import json, sys, time
from registry_api import load_settings, open_store
took = []
for _ in range(2):
    start = time.perf_counter()
    store = open_store(load_settings(sys.argv[1], env={}))
    took.append(time.perf_counter() - start)
    store.close()
print(json.dumps(took))
"""

_INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "benchmark", "version": "1"},
    },
}


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def _initialize(*command: str) -> None:
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(_INITIALIZE).encode() + b"\n")
        server.stdin.flush()
        assert b"serverInfo" in server.stdout.readline()
        server.kill()  # it need not end by itself


def _alternately(ours: Side, raw: Side, samples: int) -> tuple[list[float], list[float]]:
    found: tuple[list[float], list[float]] = ([], [])
    for n in range(samples):
        for side, out in ((ours, found[0]), (raw, found[1]))[:: 1 if n % 2 else -1]:
            start = time.perf_counter()
            side()
            out.append(time.perf_counter() - start)
    return found


if __name__ == "__main__":
    _write(Path(sys.argv[1]), int(sys.argv[2]))
