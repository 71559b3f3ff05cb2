"""A fleet of hosts that report to one PostgreSQL server on this machine, and registries by size.

100 hosts with 100 agents each, a task a host; every worker process stands for some of the hosts and
sends their reports one after the other, as fast as they are answered. Beside it, pgbench sends the
statements of a report from C: what the server alone can do. Both share this machine's cores, so the
rates are a lower bound of what a server of its own does.
"""

from __future__ import annotations

import multiprocessing
import resource
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import NamedTuple
from urllib.parse import urlsplit

import psycopg

from benchmarks.measure import Row
from benchmarks.postgresql import opened, served
from benchmarks.work import create, record_progress
from registry_api import RegistryStore, TaskQuery, TaskStatus
from tests.postgresql.programs import binaries

__all__ = ["fleet", "sizes"]

HOSTS, AGENTS = 100, 100
_GOAL = 10_000.0  # reports a second
_WORKERS, _THREADS = 4, 2
_FORK = multiprocessing.get_context("forkserver")

# What a report writes, in one pipeline; the changeset is as long as that of `record_progress`.
_PGBENCH = r"""
\set host random(0, 99)
\set agent random(0, 99)
\set step random(1, 1000000000)
\startpipeline
BEGIN;
SELECT pg_advisory_xact_lock_shared('meta'::regclass::oid::int, 0),
  pg_advisory_xact_lock('meta'::regclass::oid::int, 1 + :host);
UPDATE tasks SET revision = revision + 1 WHERE task_id = 't' || :host;
INSERT INTO progress SELECT 't' || :host, md5(random()::text), 'a' || :agent,
  clock_timestamp()::text, 'running', 'step ' || :step, 50, 0, '{}';
INSERT INTO agent_progress_latest SELECT 't' || :host, md5(random()::text), 'a' || :agent,
  clock_timestamp()::text, 'running', 'step ' || :step, 50, 0, '{}'
  ON CONFLICT (task_id, agent_id) DO UPDATE SET message = excluded.message;
UPDATE agents SET progress = 50 WHERE task_id = 't' || :host AND agent_id = 'a' || :agent;
UPDATE counters SET n = n + 1 WHERE kind = 'progress/' || (:host % 32);
INSERT INTO feed (number, task_id, lineage, revision, changeset_id, digest, at, changeset)
  SELECT nextval('feed_number'), 't' || :host, '', 0, gen_random_uuid()::text, repeat('d', 64),
  clock_timestamp()::text, repeat('c', 420);
COMMIT;
\endpipeline
"""


class _Share(NamedTuple):
    """What one worker did: the seconds of each report, and its seconds of CPU."""

    taken: list[float]
    cpu: float


def fleet(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Measure the sustained rate of reports, its latency, the feed's lag and the tables' growth."""
    seconds = 10.0 if quick else 60.0
    with served(folder, max_connections="100", shared_buffers="512MB") as url:
        with closing(opened(folder, url)) as store:
            for n in range(HOSTS):
                create(store, f"t{n}", AGENTS)
        before = _bytes(url)
        with _follower(folder, url) as lags:
            shares, idle = _work(folder, url, seconds)
        taken = sorted(t for share in shares for t in share.taken)
        rate = len(taken) / seconds
        grown = (_bytes(url) - before) / len(taken)
        bench = _pgbench(folder, url, seconds / 3)
    cpu = sum(share.cpu for share in shares) / seconds
    yield Row(
        name=f"fleet, {HOSTS} hosts x {AGENTS} agents",
        figure=rate,
        worst=rate,
        unit="/s",
        goal=_GOAL,
        at_least=True,
        detail=f"the clients used {cpu:.2f} cores, {100 * idle:.0f} % of the machine was idle; "
        f"pgbench with the same rows {bench:.0f}",
    )
    for name, values in {"fleet, a report": taken, "fleet, lag of the feed": sorted(lags)}.items():
        half, late, last = values[len(values) // 2], values[int(0.99 * len(values))], values[-1]
        detail = f"p50 {1000 * half:.1f}, p99 {1000 * late:.1f} ms"
        yield Row(name=name, figure=1000 * half, worst=1000 * last, unit="ms", detail=detail)
    yield Row(name="fleet, growth of the tables, a report", figure=grown, worst=grown, unit="bytes")


def _work(folder: Path, url: str, seconds: float) -> tuple[list[_Share], float]:
    """Return what each worker did, and the share of the cores' time that was idle meanwhile."""
    with _FORK.Pool(_WORKERS) as pool:
        start = time.time() + 5.0  # every worker has opened its store by then
        orders = [(folder, url, n, start, seconds) for n in range(_WORKERS)]
        working = pool.starmap_async(_worker, orders)
        time.sleep(max(0.0, start - time.time()))
        before = _cores()
        shares = working.get()
        idle, whole = (b - a for a, b in zip(before, _cores(), strict=True))
    return shares, idle / whole


def _cores() -> tuple[int, int]:
    """Return the idle and the whole time of all cores so far; waiting for the disk is idle."""
    values = [int(n) for n in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return values[3] + values[4], sum(values)


def _worker(folder: Path, url: str, number: int, start: float, seconds: float) -> _Share:
    hosts = range(number, HOSTS, _WORKERS)
    with closing(opened(folder, url)) as store:
        store.head("t0")
        time.sleep(max(0.0, start - time.time()))
        before, stop = _cpu(), time.monotonic() + seconds
        taken: list[list[float]] = [[] for _ in range(_THREADS)]

        def work(thread: int) -> None:
            mine, n = hosts[thread::_THREADS], 0
            while (now := time.monotonic()) < stop:
                host, agent = mine[n % len(mine)], n // len(mine) % AGENTS
                record_progress(store, f"t{host}", f"a{agent}", f"step {n}", n % 100)
                taken[thread].append(time.monotonic() - now)
                n += 1

        threads = [threading.Thread(target=work, args=(n,)) for n in range(_THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return _Share([t for each in taken for t in each], _cpu() - before)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class _follower:  # noqa: N801  (reads as a function)
    """A reader of the feed; gives the seconds from a report's own time until it was seen."""

    def __init__(self, folder: Path, url: str) -> None:
        self._store = opened(folder, url)
        self._stop = threading.Event()
        self._lags: list[float] = []
        self._thread = threading.Thread(target=self._follow)

    def __enter__(self) -> list[float]:
        self._thread.start()
        return self._lags

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._store.close()

    def _follow(self) -> None:
        after = None
        while not self._stop.is_set():
            page = self._store.changes(after, limit=1000)
            now = time.time()
            if after is not None:
                self._lags += [now - change.changeset.at.timestamp() for change in page]
            if page:
                after = page[-1].cursor
            else:
                self._stop.wait(0.05)


def _bytes(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    assert row is not None
    return int(row[0])


def _pgbench(folder: Path, url: str, seconds: float) -> float:
    """Return the transactions a second of pgbench with the rows of a report."""
    script = folder / "report.sql"
    script.write_text(_PGBENCH)
    parts, found = urlsplit(url), binaries()
    assert found is not None
    server = ["-h", str(parts.hostname), "-p", str(parts.port), "-U", str(parts.username)]
    database = parts.path.strip("/")
    load = ["-c", str(_WORKERS * _THREADS), "-j", "2", "-T", str(max(1, int(seconds)))]
    done = subprocess.run(
        [
            str(found / "pgbench"),
            "-n",
            "-M",
            "prepared",
            "-f",
            str(script),
            *load,
            *server,
            database,
        ],
        env={"PGPASSWORD": str(parts.password)},
        check=True,
        capture_output=True,
        text=True,
    )
    tps = next(line for line in done.stdout.splitlines() if line.startswith("tps = "))
    return float(tps.split()[2])


# -- registries by size --------------------------------------------------------------------------


def sizes(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Time a report and the common reads in registries of 10⁴, 10⁵ and 10⁶ agents, 10 a task."""
    with served(folder, shared_buffers="512MB") as url, closing(opened(folder, url)) as store:
        create(store, "t0", 10)
        record_progress(store, "t0", "a0", "step", 1)
        tasks = 1
        time.sleep(1.5)
        store.head("t0")  # reports what this session has counted on tables that were empty
        for agents in (10_000, 100_000) if quick else (10_000, 100_000, 1_000_000):
            _copy(url, tasks, agents // 10)
            tasks = agents // 10
            before = _scans(url)
            for name, (side, goal) in _sides(store, tasks).items():
                yield _timed(f"{agents:,} agents, {name}", side, goal, 100 if quick else 300)
            scans = _scans(url) - before
            yield Row(
                name=f"{agents:,} agents, scans of a table",
                figure=scans,
                worst=scans,
                unit="",
                goal=0,
            )


def _sides(store: RegistryStore, tasks: int) -> dict[str, tuple[Callable[[int], object], float]]:
    """Return what is timed, with its goal in ms."""

    def task(n: int) -> str:
        return f"t{n * 7919 % tasks}"

    active = TaskQuery(status=TaskStatus.ACTIVE)
    return {
        "a report": (lambda n: record_progress(store, task(n), "a1", f"s{n}", n % 100), 10.0),
        "load": (lambda n: store.load(task(n)), 3.0),
        "counts": (lambda _: store.counts(), 1.0),
        "50 tasks": (lambda _: store.list_tasks(limit=50), 3.0),
        "50 active tasks": (lambda _: store.list_tasks(active, limit=50), 3.0),
    }


def _timed(name: str, side: Callable[[int], object], goal: float, each: int) -> Row:
    side(0)
    taken = []
    for n in range(each):
        start = time.perf_counter()
        side(n)
        taken.append(1000 * (time.perf_counter() - start))
    taken.sort()
    worst = taken[int(0.99 * each)]
    return Row(name=name, figure=median(taken), worst=worst, unit="ms", goal=goal)


def _scans(url: str) -> int:
    """Return how many sequential scans there were of tables with more than 1,000 rows."""
    time.sleep(1.5)  # a session reports what it has counted once a second
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT sum(seq_scan) FROM pg_stat_user_tables JOIN pg_class ON oid = relid "
            "WHERE reltuples > 1000"
        ).fetchone()
    assert row is not None
    return int(row[0])


def _copy(url: str, first: int, end: int) -> None:
    """Copy the task t0 to the tasks ``first`` to ``end``, by the server itself."""
    with psycopg.connect(url, autocommit=True) as connection:
        for table in ("tasks", "agents", "progress", "agent_progress_latest"):
            names = connection.execute(
                "SELECT string_agg(quote_ident(column_name), ', ' ORDER BY ordinal_position) FROM "
                "information_schema.columns WHERE table_name = %s AND column_name <> 'task_id'",
                (table,),
            ).fetchone()
            assert names is not None
            connection.execute(
                f"INSERT INTO {table} (task_id, {names[0]}) SELECT 't' || n, {names[0]} "
                f"FROM {table}, generate_series({first}, {end - 1}) n WHERE task_id = 't0'".encode()
            )
        connection.execute(
            "UPDATE counters SET n = n + %s * CASE WHEN kind LIKE 'agent%%' THEN 10 ELSE 1 END "
            "WHERE n > 0",
            (end - first,),
        )
        connection.execute("ANALYZE")
