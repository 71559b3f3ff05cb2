"""The orchestrator as its clients see it: a report by a tool call, fifty agents, waiters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles

from mcp import Client

from benchmarks.measure import TIMES, Row
from orchestrator.agents.launchers.process import ProcessLauncher
from orchestrator.agents.launchers.selection import Launchers
from orchestrator.mcp.server import Server, build_server
from orchestrator.rules.tasks import PhasePlan
from orchestrator.service import Orchestrator
from orchestrator.settings import OrchestratorSettings
from registry_api import load_settings, open_store

__all__ = ["fifty", "report", "waiters"]

OPTIONS = OrchestratorSettings(
    default_kind="external", max_agents=2000, max_concurrent=1000, auto_review=False
)


@contextmanager
def _serving(place: Path) -> Iterator[tuple[Orchestrator, Server]]:
    place.mkdir()
    settings = load_settings(place, env={})
    store = open_store(settings)
    try:
        service = Orchestrator(
            store,
            Launchers({"process": ProcessLauncher}, name="process"),
            settings=settings,
            options=OPTIONS,
        )
        yield service, build_server(service)
    finally:
        store.close()


def _deployed(service: Orchestrator, agents: int) -> tuple[str, list[str]]:
    task_id = service.create_task("timed", phases=(PhasePlan(name="one"),)).task.task_id
    names = [service.deploy(task_id, f"a{n}", "work").agent_id for n in range(agents)]
    return task_id, names


def _reporting(client: Client, task_id: str, agent_id: str) -> Callable[[int], Awaitable[float]]:
    async def report(n: int) -> float:
        said = {"status": "working", "message": f"step {n}", "progress": n % 100}
        start = time.perf_counter()
        result = await client.call_tool(
            "update_agent_progress", {"task_id": task_id, "agent_id": agent_id, **said}
        )
        assert not result.is_error, result
        return time.perf_counter() - start

    return report


def report(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Time ``update_agent_progress`` by the in-memory client, in tasks of 10 and 1,000 agents.

    Both are timed alternately, so that noise affects both.
    """
    rounds, each = (3, 100) if quick else (9, 400)
    with _serving(folder / "report") as (service, server):
        tasks = [_deployed(service, agents) for agents in (10, 1000)]

        async def play() -> list[list[float]]:
            found: list[list[float]] = [[], []]
            async with Client(server) as client:
                calls = [_reporting(client, task, names[0]) for task, names in tasks]
                for turn in range(rounds + 1):
                    for call, out in zip(calls, found, strict=True):
                        samples = [await call(n) for n in range(each)]
                        if turn:  # the first round warms up
                            out.append(median(samples))
            return found

        few, many = asyncio.run(play())
    yield Row(
        name="update_agent_progress, in-memory client",
        figure=median(few) * 1e3,
        worst=max(few) * 1e3,
        unit="ms",
        goal=2,
        defect=20,
    )
    ratios = [b / a for a, b in zip(few, many, strict=True)]
    yield Row(
        name="the same with 1,000 agents, against 10",
        figure=median(ratios),
        worst=max(ratios),
        unit=TIMES,
        goal=1.2,
        defect=3,
        detail=f"1,000 agents {median(many) * 1e6:.0f} µs, 10 agents {median(few) * 1e6:.0f} µs",
    )


def fifty(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Time the reports of fifty agents of one task, five a second each; all must succeed."""
    seconds, agents, pace = (5 if quick else 30), 50, 0.2
    with _serving(folder / "fifty") as (service, server):
        task_id, names = _deployed(service, agents)

        async def agent(client: Client, name: str, at: float) -> list[float]:
            report, samples = _reporting(client, task_id, name), []
            for n in range(int(seconds / pace)):
                await asyncio.sleep(max(0.0, at + n * pace - time.perf_counter()))
                samples.append(await report(n))
            return samples

        async def play() -> list[float]:
            start = time.perf_counter() + 0.5
            async with Client(server) as client:
                parts = [
                    agent(client, name, start + pace * i / agents) for i, name in enumerate(names)
                ]
                return [s for part in await asyncio.gather(*parts) for s in part]

        samples = asyncio.run(play())
    yield Row(
        name=f"50 agents reporting at 5 Hz for {seconds} s, p99 of {len(samples):,} reports",
        figure=quantiles(samples, n=100)[98] * 1e3,
        worst=max(samples) * 1e3,
        unit="ms",
        goal=100,
        defect=1000,
        detail=f"median {median(samples) * 1e3:.1f} ms",
    )


def waiters(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Time reports of ten agents while fifty callers wait for the task, and without them.

    Both are timed alternately, so that noise affects both.
    """
    rounds, each, agents = (3, 20, 10) if quick else (9, 100, 10)
    with _serving(folder / "waiters") as (service, server):
        task_id, names = _deployed(service, agents)

        async def reports(client: Client) -> float:
            calls = [_reporting(client, task_id, name) for name in names]
            samples = [s for n in range(each) for s in await asyncio.gather(*(c(n) for c in calls))]
            return quantiles(samples, n=100)[98]

        async def wait(client: Client) -> None:
            while True:
                await client.call_tool("wait_for", {"task_id": task_id})

        async def play() -> tuple[list[float], list[float]]:
            alone: list[float] = []
            beside: list[float] = []
            async with Client(server) as client:
                for turn in range(rounds + 1):
                    without = await reports(client)
                    waiting = [asyncio.create_task(wait(client)) for _ in range(50)]
                    await asyncio.sleep(1)  # until all are waiting
                    with_them = await reports(client)
                    for one in waiting:
                        one.cancel()
                    await asyncio.gather(*waiting, return_exceptions=True)
                    if turn:  # the first round warms up
                        alone.append(without)
                        beside.append(with_them)
            return alone, beside

        alone, beside = asyncio.run(play())
    ratios = [b / a for a, b in zip(alone, beside, strict=True)]
    yield Row(
        name="p99 of reports of 10 agents while 50 clients wait_for the task",
        figure=median(ratios),
        worst=max(ratios),
        unit=TIMES,
        goal=1.2,
        defect=3,
        detail=f"{median(beside) * 1e3:.1f} / {median(alone) * 1e3:.1f} ms",
    )
