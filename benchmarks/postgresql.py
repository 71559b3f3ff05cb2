"""The store ``postgresql`` beside hand-written psycopg that writes the same rows, on a real server.

The raw side sends the statements of a report in one pipeline, as fast as psycopg can.
"""

from __future__ import annotations

import hashlib
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from statistics import median

import orjson
import psycopg
from uuid_utils import uuid7

from benchmarks.measure import TIMES, Row, compare, ratio
from benchmarks.work import create, record_progress
from registry_api import RegistryStore, load_settings, open_store
from tests.postgresql.server import PostgresServer

__all__ = ["opened", "postgresql", "served"]

WRITERS = 8

_COLUMNS = 'task_id, entry_id, agent_id, timestamp, status, message, progress, "foreign", extra'
_ENTRY = f"INSERT INTO progress ({_COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s, 0, '{{}}')"
_LATEST = f"""INSERT INTO agent_progress_latest ({_COLUMNS})
VALUES (%s, %s, %s, %s, %s, %s, %s, 0, '{{}}') ON CONFLICT (task_id, agent_id) DO UPDATE SET
entry_id = excluded.entry_id, timestamp = excluded.timestamp, status = excluded.status,
message = excluded.message, progress = excluded.progress"""
_AGENT = "UPDATE agents SET status=%s, progress=%s, last_update=%s WHERE task_id=%s AND agent_id=%s"
_TASK = "UPDATE tasks SET revision=revision+1, updated_at=%s WHERE task_id=%s RETURNING revision"
_FEED = (
    "INSERT INTO feed (number, task_id, lineage, revision, changeset_id, digest, at, changeset) "
    "VALUES (nextval('feed_number'), %s, '', %s, %s, %s, %s, %s) RETURNING number"
)
_COUNT = (
    "INSERT INTO counters (kind, status, n) VALUES (%s, '', 1) "
    "ON CONFLICT (kind, status) DO UPDATE SET n = counters.n + 1"
)


class Raw:
    """A writer into the tables that the store created."""

    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url, autocommit=True)

    def record_progress(self, task: str, agent: str, message: str, progress: int) -> None:
        """Append one report: two round trips, since the revision is part of the feed line."""
        now = datetime.now(UTC).isoformat()
        entry, change = uuid7().hex, str(uuid7())
        row = (task, entry, agent, now, "running", message, progress)
        text = orjson.dumps([change, *row])
        digest = hashlib.sha256(text).hexdigest()
        with self.connection.pipeline():
            execute = self.connection.execute
            execute("BEGIN")
            updated = execute(_TASK, (now, task))
            execute(_ENTRY, row)
            execute(_LATEST, row)
            execute(_AGENT, ("running", progress, now, task, agent))
            execute(_COUNT, (f"progress/{zlib.crc32(task.encode()) % 32}",))
            (revision,) = updated.fetchone() or (0,)
            execute(_FEED, (task, revision, change, digest, now, text.decode()))
            execute("COMMIT")


@contextmanager
def served(folder: Path, **settings: str) -> Iterator[str]:
    """Run a server that syncs; give the URL of its database."""
    with PostgresServer(folder, settings={"fsync": "on", **settings}) as server:
        yield server.url("postgres")


def opened(folder: Path, url: str) -> RegistryStore:
    """Open the database without the gate of a workspace."""
    settings = load_settings(folder, env={}, backend=url, logs="off")
    return open_store(settings, gated=False)


def postgresql(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Time a report by one writer and by eight, and reads, in a database of 100 tasks."""
    with served(folder) as url, closing(opened(folder, url)) as store:
        for n in range(100):
            create(store, f"t{n}", 10)
        raw, number = Raw(url), count()

        def ours() -> None:
            n = next(number)
            record_progress(store, "t0", "a0", f"step {n}", n % 100)

        def theirs() -> None:
            n = next(number)
            raw.record_progress("t1", "a0", f"step {n}", n % 100)

        rounds, each = (5, 100) if quick else (9, 400)
        found = compare(ours, theirs, rounds=rounds, each=each)
        yield ratio("postgresql, a report", *found, goal=1.25, defect=2.0)
        yield _together(folder, url, seconds=2.0 if quick else 5.0)
        for name, side in {
            "load of 10 agents": lambda: store.load("t5"),
            "head": lambda: store.head("t5"),
            "counts": store.counts,
            "page of 50 tasks": lambda: store.list_tasks(limit=50),
        }.items():
            yield _alone(f"postgresql, {name}", side, 100 if quick else 500)


def _alone(name: str, side: Callable[[], object], each: int) -> Row:
    taken = []
    for _ in range(each):
        start = time.perf_counter()
        side()
        taken.append(1000 * (time.perf_counter() - start))
    return Row(name=name, figure=median(taken), worst=sorted(taken)[int(0.99 * each)], unit="ms")


def _together(folder: Path, url: str, *, seconds: float) -> Row:
    """Compare the throughput of eight threads, each with a task of its own."""
    rates: tuple[list[float], list[float]] = ([], [])
    for _ in range(3):
        with closing(opened(folder, url)) as store:
            ours = [_report(store, n) for n in range(WRITERS)]
            rates[0].append(_rate(ours, seconds))
        raws = [Raw(url) for _ in range(WRITERS)]
        rates[1].append(_rate([_raw_report(raw, n) for n, raw in enumerate(raws)], seconds))
        for raw in raws:
            raw.connection.close()
    each = [a / b for a, b in zip(*rates, strict=True)]
    return Row(
        name=f"postgresql, throughput of {WRITERS} threads",
        figure=median(each),
        worst=min(each),
        unit=TIMES,
        goal=0.9,
        defect=0.6,
        at_least=True,
        detail=f"{median(rates[0]):.0f} / {median(rates[1]):.0f} reports a second",
    )


def _report(store: RegistryStore, n: int) -> Callable[[int], object]:
    return lambda k: record_progress(store, f"t{10 + n}", "a0", f"step {k}", k % 100)


def _raw_report(raw: Raw, n: int) -> Callable[[int], object]:
    return lambda k: raw.record_progress(f"t{20 + n}", "a0", f"step {k}", k % 100)


def _rate(writers: list[Callable[[int], object]], seconds: float) -> float:
    done, stop = [0] * len(writers), time.monotonic() + seconds

    def work(n: int) -> None:
        while time.monotonic() < stop:
            writers[n](done[n])
            done[n] += 1

    threads = [threading.Thread(target=work, args=(n,)) for n in range(len(writers))]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.monotonic() - start)
