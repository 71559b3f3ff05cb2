"""The dashboard in its own process: a large registry, fifty streams, a large log, a browser."""

from __future__ import annotations

import asyncio
import fcntl
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import httpx2
import psutil
from uuid_utils.compat import uuid7

from benchmarks.measure import TIMES, Row
from benchmarks.work import T0, create, legacy_task, opened, record_progress
from registry_api import (
    Agent,
    AgentStatus,
    Phase,
    PhaseStatus,
    Put,
    RegistryStore,
    Task,
    load_settings,
    new_changeset,
    open_migration,
)
from registry_api.migration import MigrationPhase

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["log", "paint", "seen", "streams", "summary"]

_PAINTED = """new Promise(done => new PerformanceObserver(list => {
  for (const entry of list.getEntriesByName("first-contentful-paint")) done(entry.startTime);
}).observe({ type: "paint", buffered: true }))"""
_SUMMARY = "/api/tasks/summary/dashboard"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Served:
    url: str
    headers: dict[str, str]
    process: psutil.Process

    def client(self) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, headers=self.headers, timeout=120)


@contextmanager
def _serving(workspace: Path) -> Iterator[_Served]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("REGISTRY_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "dashboard", "serve", "--port", "0"],
        env={**kept, "REGISTRY_WORKSPACE": str(workspace)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        link = urlsplit(process.stdout.readline().strip())
        token = parse_qs(link.query)["token"][0]
        yield _Served(
            url=f"http://{link.netloc}",
            headers={"authorization": f"Bearer {token}"},
            process=psutil.Process(process.pid),
        )
    finally:
        process.terminate()
        process.communicate()


def _fill(store: RegistryStore, tasks: int) -> None:
    """Create tasks of two phases and ten agents; in every 100th all are active, half silent."""
    now = datetime.now(UTC)
    for n in range(tasks):
        task_id = f"TASK-{n:06}"
        status = AgentStatus.COMPLETED if n % 100 else AgentStatus.WORKING
        done = PhaseStatus.APPROVED if n % 100 else PhaseStatus.ACTIVE
        phases = [Phase(task_id=task_id, phase_index=m, status=done) for m in range(2)]
        records = [
            Agent(
                task_id=task_id,
                agent_id=f"a{m}",
                type="builder",
                status=status,
                started_at=T0,
                last_update=now + timedelta(hours=-1 if m % 2 else 1),
            )
            for m in range(10)
        ]
        task = Task(task_id=task_id, description=f"task {n} of the benchmark", created_at=T0)
        ops = [Put(task), *map(Put, phases), *map(Put, records)]
        store.commit(new_changeset(task_id, ops, expected=0))


def summary(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Time the summary over HTTP, without writes and with ten reports before each request."""
    tasks, each = (2000, 50) if quick else (100_000, 200)
    place = folder / "summary"
    with opened(place, REGISTRY_DURABLE="false") as store:
        _fill(store, tasks)
    with opened(place) as store, _serving(place) as served, served.client() as client:

        def ask() -> float:
            start = time.perf_counter()
            found = client.get(_SUMMARY)
            took = time.perf_counter() - start
            assert found.json()["global_counts"]["active_agents"] == tasks // 10, found.text
            return took * 1e3

        first = ask()
        resting = [ask() for _ in range(each)]
        busy = []
        for n in range(each):
            for m in range(10):
                record_progress(store, f"TASK-{100 * (m % 10):06}", "a0", f"{n}", m)
            busy.append(ask())
        page = [_page(client) for _ in range(20)]
    size = f"{tasks:,} tasks, {tasks * 10:,} agents, 1 % active"
    yield Row(
        name=f"dashboard's summary over HTTP: {size}",
        figure=median(resting),
        worst=max(resting),
        unit="ms",
        goal=10,
        defect=100,
        detail=f"the first {first:.0f} ms",
    )
    yield Row(
        name="the same, ten reports in ten tasks between two",
        figure=median(busy),
        worst=max(busy),
        unit="ms",
        goal=25,
        defect=250,
    )
    yield Row(
        name="the first page with its style and script, on the wire",
        figure=median(size for size, _ in page) / 1e3,
        worst=max(size for size, _ in page) / 1e3,
        unit="kB",
        goal=50,
        defect=200,
        detail=f"the page alone took {median(t for _, t in page):.0f} ms",
    )


def _page(client: httpx2.Client) -> tuple[int, float]:
    start = time.perf_counter()
    page = client.get("/", headers={"accept": "text/html"})
    took = time.perf_counter() - start
    parts = (page, *(client.get(f"/static/{name}") for name in ("page.css", "live.js")))
    return sum(part.num_bytes_downloaded for part in parts), took * 1e3


def streams(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Time deliveries to fifty open streams at a hundred reports a second.

    BENCH_SECONDS says for how long, 60 by default.
    """
    seconds = 10 if quick else int(os.environ.get("BENCH_SECONDS", "60"))
    place = folder / "streams"
    with opened(place) as store:
        create(store, "TASK-0", 50)
        with _serving(place) as served:
            delays, heard, cpu, memory = asyncio.run(_listened(served, store, seconds))
    yield Row(
        name=f"50 streams, 100 events a second for {seconds} s: p99 of {len(delays):,} deliveries",
        figure=quantiles(delays, n=100)[98] * 1e3,
        worst=max(delays) * 1e3,
        unit="ms",
        goal=250,
        defect=2500,
        detail=f"median {median(delays) * 1e3:.0f} ms; {heard} of 50 heard everything in order",
    )
    yield Row(
        name="the dashboard's share of a core meanwhile",
        figure=cpu,
        worst=cpu,
        unit="cores",
        goal=1,
        defect=2,
    )
    half = len(memory) // 2
    yield Row(
        name="its memory, second half against the first",
        figure=median(memory[half:]) / median(memory[:half]),
        worst=max(memory) / min(memory),
        unit=TIMES,
        goal=1.05,
        defect=1.5,
        detail=f"{max(memory) / 2**20:.0f} MiB at most",
    )


async def _listened(
    served: _Served, store: RegistryStore, seconds: int
) -> tuple[list[float], int, float, list[int]]:
    total, sent = 100 * seconds, dict[int, float]()
    ready, begun = asyncio.Barrier(51), asyncio.Event()
    memory: list[int] = []

    async def listen() -> tuple[list[float], bool]:
        delays, order = list[float](), list[int]()
        async with (
            httpx2.AsyncClient(headers=served.headers, timeout=120) as client,
            client.stream("GET", served.url + "/api/events") as answer,
        ):
            async for line in answer.aiter_lines():
                if line == "event: hello":
                    await ready.wait()
                elif line.startswith("data: {") and '"revision"' in line:
                    at, revision = time.perf_counter(), json.loads(line[6:])["revision"]
                    delays.append(at - sent[revision])
                    order.append(revision)
                    if revision == total + 1:
                        break
        return delays, order == list(range(2, total + 2))

    async def write() -> None:
        await ready.wait()
        start = time.perf_counter()
        begun.set()
        for n in range(total):
            await asyncio.sleep(max(0.0, start + n / 100 - time.perf_counter()))
            sent[n + 2] = time.perf_counter()
            await asyncio.to_thread(record_progress, store, "TASK-0", f"a{n % 50}", f"{n}", n % 100)
            if n % 100 == 50:
                memory.append(served.process.memory_info().rss)

    async with asyncio.TaskGroup() as group:
        listeners = [group.create_task(listen()) for _ in range(50)]
        writer = group.create_task(write())
        await begun.wait()
        before, start = served.process.cpu_times(), time.perf_counter()
        await writer
        after, took = served.process.cpu_times(), time.perf_counter() - start
    used = (after.user + after.system - before.user - before.system) / took
    found = [task.result() for task in listeners]
    delays = [d for one, _ in found for d in one]
    return delays, sum(ordered for _, ordered in found), used, memory


def log(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Measure memory and time of reading a large log: its page, its last lines, parts of it."""
    size = 2**26 if quick else 2**30
    place = folder / "log"
    with opened(place) as store:
        create(store, "TASK-0", 1)
    path = place / "TASK-0" / "logs" / "a0_stream.jsonl"
    path.parent.mkdir(parents=True)
    line = json.dumps({"type": "assistant", "id": str(uuid7()), "text": "x" * 900}) + "\n"
    block = line.encode() * (2**20 // len(line))
    with path.open("wb") as file:
        while file.tell() < size:
            file.write(block)
    with _serving(place) as served, served.client() as client:
        client.get("/api/tasks").raise_for_status()
        before = served.process.memory_info().rss
        took = []
        for n in range(20):
            start = time.perf_counter()
            for where in (
                "/tasks/TASK-0/agents/a0",
                "/api/agents/TASK-0/a0/logs?limit=10000",
                f"/api/agents/TASK-0/a0/output?max_bytes=1048576&before={size * n // 20 + 10}",
            ):
                client.get(where).raise_for_status()
            took.append(time.perf_counter() - start)
        grown = served.process.memory_info().rss - before
    yield Row(
        name=f"memory for a log of {size / 2**20:.0f} MiB, read in 60 places",
        figure=grown / 2**20,
        worst=grown / 2**20,
        unit="MiB",
        goal=100,
        defect=500,
        detail=f"three answers in {median(took) * 1e3:.0f} ms",
    )


@contextmanager
def _browser() -> Iterator[Browser | None]:
    """Run Chromium; yields None if it is not installed."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415  (not every case needs it)

    program = shutil.which("chromium")
    if program is None:
        yield None
        return
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


def paint(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Time until Chromium has painted the overview, with an empty cache."""
    place = folder / "paint"
    with opened(place, REGISTRY_DURABLE="false") as store:
        _fill(store, 1000)
    took, empty = list[float](), list[float]()
    with _empty_page() as nothing, _serving(place) as served, _browser() as browser:
        if browser is None:
            return
        for _ in range(5 if quick else 15):
            for url, painted in ((nothing, empty), (served.url, took)):
                context = browser.new_context(extra_http_headers=served.headers)
                page = context.new_page()
                page.goto(url)
                painted.append(page.evaluate(_PAINTED))
                context.close()
    yield Row(
        name="first contentful paint of the overview, 1,000 tasks",
        figure=median(took),
        worst=max(took),
        unit="ms",
        goal=400,
        defect=4000,
    )
    yield Row(
        name="the same beside a page of one word from another local server",
        figure=median(took) / median(empty),
        worst=max(took) / median(empty),
        unit=TIMES,
        goal=3,
        defect=10,
        detail=f"{median(took):.0f} / {median(empty):.0f} ms",
    )


class _Empty(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"<!doctype html><title>Empty</title><p>Empty"
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def _empty_page() -> Iterator[str]:
    """Serve a page of one word from a process of its own; yields its URL."""
    server = HTTPServer(("127.0.0.1", 0), _Empty)
    process = multiprocessing.get_context("fork").Process(target=server.serve_forever, daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        process.terminate()
        process.join()
        server.server_close()


def seen(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Time until a browser shows a commit of another process, and an edit of a legacy program.

    In phases 0, 1 and 2.
    """
    commits, edits = list[float](), list[float]()
    with _browser() as browser:
        if browser is None:
            return
        for phase in range(3):
            place = folder / f"seen{phase}"
            document = legacy_task(place, "TASK-0", 1)
            if phase:
                with closing(open_migration(load_settings(place, env={}))) as migration:
                    migration.switch(MigrationPhase(phase), actor="benchmark")
            with opened(place) as store, _serving(place) as served:
                page = browser.new_context(extra_http_headers=served.headers).new_page()
                page.goto(served.url)
                page.get_by_text("live", exact=True).wait_for()
                for n in range(3 if quick else 10):
                    start = time.perf_counter()
                    create(store, f"NEW-{n}", 0)
                    page.get_by_role("link", name=f"NEW-{n}").wait_for()
                    commits.append(time.perf_counter() - start)
                    start = time.perf_counter()
                    _add(document, f"foreign-{n}")
                    page.get_by_role("link", name=f"foreign-{n}").wait_for()
                    edits.append(time.perf_counter() - start)
    for what, took, goal in (
        ("a commit of another process", commits, 1000),
        ("a legacy program's edit", edits, 2000),
    ):
        yield Row(
            name=f"until a browser shows {what}, phases 0 to 2",
            figure=median(took) * 1e3,
            worst=max(took) * 1e3,
            unit="ms",
            goal=goal,
            defect=10 * goal,
        )


def _add(document: Path, agent: str) -> None:
    """Write one more agent into a document, as legacy programs do."""
    with document.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        value = json.load(file)
        value["agents"].append({"id": agent, "type": "legacy", "status": "running"})
        file.seek(0)
        json.dump(value, file, indent=2)
        file.truncate()
