"""A progress report of one agent: by one process, and by eight at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from statistics import median

from benchmarks.measure import TIMES, Row, compare, ratio
from benchmarks.raw import RawStore
from benchmarks.work import create, opened, record_progress

__all__ = ["alone", "processes", "together"]

_AGENTS = 8
_GOALS = {False: (1.15, 1.35), True: (1.08, 1.2)}


def alone(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Time one process, one task of eight agents, with synchronous NORMAL and FULL."""
    for full in (False, True):
        env = {"REGISTRY_DURABLE": str(int(full))}
        name = "FULL" if full else "NORMAL"
        raw_folder = folder / f"raw-{name}"
        with opened(raw_folder, **env) as made:
            create(made, "t", _AGENTS)
            record_progress(made, "t", "a0", "first", 1)
        raw = RawStore(raw_folder, full=full)
        with opened(folder / f"ours-{name}", **env) as store:
            create(store, "t", _AGENTS)
            number = count()

            def report(write: Callable[..., object], *first: object) -> None:
                n = next(number)
                write(*first, "t", f"a{n % _AGENTS}", f"step {n} of the work is done", n % 100)

            found = compare(
                lambda: report(record_progress, store),
                lambda: report(raw.record_progress),
                rounds=5 if quick else 15,
                each=200 if quick else 600,
            )
        goal, defect = _GOALS[full]
        yield ratio(f"record_progress, synchronous={name}", *found, goal=goal, defect=defect)


def together(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Time eight processes at once, on one task and on eight: commits a second, longest wait."""
    for tasks in (1, 8):
        rates, waits = _side_by_side(folder / str(tasks), 8, tasks, quick=quick)
        yield _share(f"8 processes on {tasks} task(s), commits a second, against raw", rates)
        yield Row(
            name=f"8 processes on {tasks} task(s), the longest wait of any commit",
            figure=median(waits["ours"]) * 1000,
            worst=max(waits["ours"]) * 1000,
            unit="ms",
            goal=100,
            defect=250,
            detail=f"raw {median(waits['raw']) * 1000:.0f} ms",
        )


def processes(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Time one, two and four processes at once, each on a task of its own."""
    for number in (1, 2, 4):
        rates, _ = _side_by_side(folder / str(number), number, number, quick=quick)
        name = f"{number} process(es), each on a task of its own, commits a second, against raw"
        yield _share(name, rates, at=number)


def _share(name: str, rates: dict[str, list[float]], *, at: int = 8) -> Row:
    shares = [a / b for a, b in zip(rates["ours"], rates["raw"], strict=True)]
    rate = {side: median(found) for side, found in rates.items()}
    return Row(
        name=name,
        figure=median(shares),
        worst=min(shares),
        unit=TIMES,
        goal=1.0 if at == 8 else None,
        defect=0.8 if at == 8 else None,
        at_least=True,
        detail=f"ours {rate['ours']:.0f}, raw {rate['raw']:.0f} a second",
        chart="" if "on 1 task(s)" in name else "commits a second, by processes",
        at=at,
        sides=rate,
    )


def _side_by_side(
    folder: Path, number: int, tasks: int, *, quick: bool
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return the commits a second and the longest waits in seconds of each round, by side."""
    seconds, rounds = (1.0, 2) if quick else (3.0, 5)
    places = {kind: folder / kind for kind in ("ours", "raw")}
    folder.mkdir()
    for place in places.values():
        with opened(place) as store:
            for n in range(tasks):
                create(store, f"t{n}", _AGENTS)
                record_progress(store, f"t{n}", "a0", "first", 1)
    rates: dict[str, list[float]] = {"ours": [], "raw": []}
    waits: dict[str, list[float]] = {"ours": [], "raw": []}
    for n in range(rounds):
        for kind in ("ours", "raw") if n % 2 else ("raw", "ours"):
            rate, wait = _round(kind, places[kind], number, tasks, seconds)
            rates[kind].append(rate)
            waits[kind].append(wait)
    return rates, waits


def _round(kind: str, place: Path, number: int, tasks: int, seconds: float) -> tuple[float, float]:
    """Run processes that write; returns commits a second and the longest wait in seconds."""
    before = _rows(place)
    command = [sys.executable, "-m", "benchmarks.record_progress"]
    writers = [
        subprocess.Popen(
            [*command, kind, str(place), f"t{n % tasks}", f"a{n}", str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for n in range(number)
    ]
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.readline()  # until it has started
    answers = [json.loads(out) for out in _all_at_once(writers)]
    done = sum(a["done"] for a in answers)
    if _rows(place) - before != done:
        raise AssertionError(f"{done} commits were acknowledged, {_rows(place) - before} are there")
    return done / seconds, max(a["worst"] for a in answers)


def _all_at_once(writers: list[subprocess.Popen[bytes]]) -> list[bytes]:
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"go\n")
        writer.stdin.flush()
    return [writer.communicate()[0] for writer in writers]


def _rows(place: Path) -> int:
    db = RawStore(place, full=True).db
    try:
        rows: int = db.execute("SELECT count(*) FROM progress").fetchone()[0]
    finally:
        db.close()
    return rows


def _write(kind: str, place: Path, task: str, agent: str, *, seconds: float) -> None:
    with opened(place) as store:
        raw = RawStore(place, full=True)
        done, worst = 0, 0.0
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            begin = time.perf_counter()
            if kind == "ours":
                record_progress(store, task, agent, f"step {done}", done % 100)
            else:
                raw.record_progress(task, agent, f"step {done}", done % 100)
            worst = max(worst, time.perf_counter() - begin)
            done += 1
        raw.db.close()
    sys.stdout.write(json.dumps({"done": done, "worst": worst, "pid": os.getpid()}))


if __name__ == "__main__":
    _kind, _place, _task, _agent, _seconds = sys.argv[1:]
    _write(_kind, Path(_place), _task, _agent, seconds=float(_seconds))
