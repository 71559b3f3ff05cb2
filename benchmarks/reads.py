"""Reads of the sqlite store: one task as records, and a whole registry of growing size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.measure import Row, compare, flat, ratio
from benchmarks.raw import RawStore
from benchmarks.work import create, opened
from registry_api import Kind, RecordQuery

__all__ = ["load", "registry"]

_SOME = 20  # active agents that _grow adds to the registry


def load(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Time ``load`` of a task with 10, 100 and 1000 agents, against reading its rows as dicts."""
    for agents in (10, 100, 1000):
        place = folder / f"load-{agents}"
        with opened(place) as store:
            create(store, "t", agents)
            raw = RawStore(place, full=True)
            found = compare(
                lambda store=store: store.load("t"),  # type: ignore[misc]
                lambda raw=raw: raw.load("t"),  # type: ignore[misc]
                rounds=5 if quick else 15,
                each=max(3, (2000 if quick else 10000) // agents // 10),
            )
        goal, defect = (1.15, 1.4) if agents == 100 else (None, None)
        yield ratio(
            f"load, {agents} agents, typed",
            *found,
            goal=goal,
            defect=defect,
            chart="load of a task, by its agents (µs)",
            at=agents,
        )


def registry(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Time counts, a page of tasks and the list of active agents, as the registry grows."""
    place = folder / "registry"
    each, done = 200 if quick else 1000, 0
    with opened(place) as store:
        create(store, "t", 1)
        raw = RawStore(place, full=False)
        for size in (1_000, 100_000) if quick else (1_000, 100_000, 1_000_000):
            _grow(raw, done, size)
            done = size
            yield _time("counts", flat(store.counts, each=each), size, goal=50, defect=5000)
            page = store.list_tasks(limit=50)
            middle = store.list_tasks(after=page.next, limit=50)
            assert len(middle.items) == 50
            samples = flat(lambda page=page: store.list_tasks(after=page.next, limit=50), each=each)  # type: ignore[misc]
            yield _time("list_tasks, 50", samples, size, goal=500, defect=5000)
            active = RecordQuery(active=True)
            assert len(store.list_records(Kind.AGENT, active).items) == _SOME + 1
            samples = flat(lambda: store.list_records(Kind.AGENT, active), each=each)
            yield _time(f"active agents ({_SOME + 1})", samples, size, goal=None, defect=None)


def _time(
    name: str, samples: list[float], size: int, *, goal: float | None, defect: float | None
) -> Row:
    return Row(
        name=f"{name}, {size:,} tasks",
        figure=median(samples) * 1e6,
        worst=max(samples) * 1e6,
        unit="µs",
        goal=goal,
        defect=defect,
        chart="reads of a registry, by its tasks (µs)",
        at=size,
        sides={name: median(samples) * 1e6},
    )


def _grow(raw: RawStore, start: int, end: int) -> None:
    """Add tasks of one agent by SQL, with the same rows as the store itself would write."""
    db = raw.db
    numbers = (
        f"WITH RECURSIVE n(i) AS (SELECT {start + 1} UNION ALL SELECT i+1 FROM n WHERE i<{end})"
    )
    task = "printf('TASK-%07d', i)"
    active = f"i <= {_SOME}"
    db.execute("BEGIN IMMEDIATE")
    given = {
        "task_id": task,
        "description": "'a task'",
        "created_at": "printf('2026-01-%02dT%02d:00:00.%06dZ', 1+i%28, i%24, i)",
        "revision": "1",
        "updated_at": "'2026-02-01T00:00:00.000000Z'",
        "status": f"iif({active}, 'ACTIVE', 'COMPLETED')",
        "active_agents": active,
    }
    values = ", ".join(given.get(c, f"t.{c}") for c in _columns(raw, "tasks"))
    db.execute(f"INSERT INTO tasks {numbers} SELECT {values} FROM n, tasks t WHERE t.task_id = 't'")
    agents = _columns(raw, "agents")
    given = {"task_id": task, "agent_id": "'a'", "status": f"iif({active}, 'running', 'completed')"}
    values = ", ".join(given.get(c, active if c == "active" else f"a.{c}") for c in agents)
    db.execute(
        f"INSERT INTO agents {numbers} SELECT {values} FROM n, agents a "
        "WHERE a.task_id = 't' AND a.agent_id = 'a0'"
    )
    for kind, status, query in (
        ("task", "", "SELECT count(*) FROM tasks"),
        ("status", "ACTIVE", "SELECT count(*) FROM tasks WHERE status = 'ACTIVE'"),
        ("status", "COMPLETED", "SELECT count(*) FROM tasks WHERE status = 'COMPLETED'"),
        ("agent", "running", "SELECT count(*) FROM agents WHERE status = 'running'"),
        ("agent", "completed", "SELECT count(*) FROM agents WHERE status = 'completed'"),
    ):
        db.execute(f"INSERT OR REPLACE INTO counters VALUES ('{kind}', '{status}', ({query}))")
    db.execute("COMMIT")


def _columns(raw: RawStore, table: str) -> list[str]:
    return [row[1] for row in raw.db.execute(f"PRAGMA table_info({table})")]
