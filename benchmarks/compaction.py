"""How fast the expired lines of a feed are dropped, what writers notice, and what stays on disk."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

import psycopg

from benchmarks.measure import Row
from benchmarks.postgresql import opened, served
from benchmarks.work import create, record_progress
from registry_api import RegistryStore, load_settings, open_store
from registry_api.client import compact

__all__ = ["compaction"]

_MONTHS = 3


def compaction(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Write reports to tasks, wait a month by the clock, compact while another task is written to;
    do so three times.
    """
    tasks, reports = (20, 50) if quick else (40, 500)
    (folder / "sqlite").mkdir()
    settings = load_settings(folder / "sqlite", env={}, backend="sqlite", logs="off")
    with (
        closing(open_store(settings, gated=False)) as store,
        closing(open_store(settings, gated=False, now=_later)) as later,
    ):
        for month in range(_MONTHS):
            _work(store, month, tasks, reports)
            yield from _compacted(f"sqlite, month {month + 1}", store, later)
    with served(folder) as url, closing(opened(folder, url)) as store:
        settings = load_settings(folder, env={}, backend=url, logs="off")
        for month in range(_MONTHS):
            _work(store, month, tasks, reports)
            with closing(open_store(settings, gated=False, now=_later)) as later:
                yield from _compacted(f"postgresql, month {month + 1}", store, later)
            yield _size(url, month)


def _later() -> datetime:
    return datetime.now(UTC) + timedelta(days=31)


def _work(store: RegistryStore, month: int, tasks: int, reports: int) -> None:
    create(store, f"m{month}", 1)
    for n in range(tasks):
        create(store, f"m{month}t{n}", 1)
        for k in range(reports):
            record_progress(store, f"m{month}t{n}", "a0", f"step {k}", k % 100)


def _compacted(name: str, store: RegistryStore, later: RegistryStore) -> Iterator[Row]:
    task = store.list_tasks(limit=1).items[0].task_id
    alone, beside, done = _reports(store, task, 200), list[float](), threading.Event()

    def write() -> None:
        while not done.is_set():
            beside.extend(_reports(store, task, 10))

    writer = threading.Thread(target=write)
    writer.start()
    start = time.perf_counter()
    lines = compact(later).lines
    took = time.perf_counter() - start
    done.set()
    writer.join()
    yield Row(
        name=f"compaction, {name}",
        figure=lines / took,
        worst=lines / took,
        unit="lines/s",
        at_least=True,
        detail=f"{lines} lines; a report meanwhile {1000 * median(beside):.2f} ms, "
        f"p99 {_p99(beside):.1f}; alone {1000 * median(alone):.2f} ms, p99 {_p99(alone):.1f}",
    )


def _reports(store: RegistryStore, task: str, times: int) -> list[float]:
    taken = []
    for n in range(times):
        start = time.perf_counter()
        record_progress(store, task, "a0", f"step {n}", n % 100)
        taken.append(time.perf_counter() - start)
    return taken


def _p99(taken: list[float]) -> float:
    return 1000 * sorted(taken)[int(0.99 * len(taken))]


def _size(url: str, month: int) -> Row:
    """Measure the table after a vacuum, which a server in use does by itself."""
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        connection.execute("VACUUM feed")
        row = connection.execute("SELECT pg_total_relation_size('feed')").fetchone()
    assert row is not None
    size = row[0] / 2**20
    return Row(name=f"the feed's table, month {month + 1}", figure=size, worst=size, unit="MiB")
