"""What the gate costs each operation of a registry that no move has touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

from benchmarks.measure import Row, compare
from benchmarks.work import create, opened, record_progress
from registry_api import RegistryStore, load_settings, open_store

__all__ = ["gate"]

_GOAL = 5.0  # µs an operation

Do = Callable[[RegistryStore], object]


def gate(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Time head, load and a report, opened as a user opens it against ``gated=False``."""
    number = count()

    def report(store: RegistryStore) -> object:
        n = next(number)
        return record_progress(store, "t", "a0", f"step {n}", n % 100)

    operations: dict[str, Do] = {
        "head": lambda store: store.head("t"),
        "load": lambda store: store.load("t"),
        "a report, not durable": report,
    }
    settings = load_settings(folder, env={"REGISTRY_DURABLE": "0"})
    with (
        opened(folder, REGISTRY_DURABLE="0") as ours,
        closing(open_store(settings, gated=False)) as raw,
    ):
        create(ours, "t", 8)
        for name, do in operations.items():
            yield _cost(name, do, ours, raw, quick=quick)


def _cost(name: str, do: Do, ours: RegistryStore, raw: RegistryStore, *, quick: bool) -> Row:
    gated, without = compare(
        lambda: do(ours), lambda: do(raw), rounds=5 if quick else 15, each=500 if quick else 2000
    )
    costs = sorted(1e6 * (a - b) for a, b in zip(gated, without, strict=True))
    both = f"with {1e6 * min(gated):.0f} µs, without {1e6 * min(without):.0f} µs"
    return Row(
        name=f"the gate, {name}",
        figure=costs[len(costs) // 2],
        worst=costs[-1],
        unit="µs",
        goal=_GOAL,
        detail=both,
    )
