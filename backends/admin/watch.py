"""The activity of a workspace's processes, interval by interval (``registry-backend watch``)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from registry_api import Settings, open_migration
from registry_api.errors import RegistryError
from registry_api.migration import PhaseFile
from registry_api.workspace import COUNTS, STATE_DIR, TIMES, Living, living, quantile

__all__ = ["looks", "show_looks"]


def looks(settings: Settings, *, every: float, count: int) -> Iterator[dict[str, Any]]:
    """Yield the activity in ``count`` intervals of ``every`` seconds; ``count`` 0: endlessly."""
    folder = settings.workspace / STATE_DIR
    before, start = {p.name: p for p in living(folder)}, time.monotonic()
    done = 0
    while not count or done < count:
        time.sleep(every)
        now, moment = {p.name: p for p in living(folder)}, time.monotonic()
        yield _look(settings, before, now, moment - start)
        before, start, done = now, moment, done + 1


def _look(
    settings: Settings, before: dict[str, Living], now: dict[str, Living], seconds: float
) -> dict[str, Any]:
    counts = Counter[str]()
    times = {name: [0] * len(p.times[name]) for p in now.values() for name in TIMES}
    for name, process in now.items():
        earlier = before.get(name)
        for what in COUNTS:
            counts[what] += process.counts[what] - (earlier.counts[what] if earlier else 0)
        for what in TIMES:
            old = earlier.times[what] if earlier else [0] * len(process.times[what])
            new = process.times[what]
            times[what] = [t + n - o for t, n, o in zip(times[what], new, old, strict=True)]
    found: dict[str, Any] = {
        "seconds": round(seconds, 3),
        "processes": len(now),
        **_move(settings),
    }
    for what, key in (("write", "writes"), ("read", "reads")):
        buckets = times.get(what, [])
        found[f"{key}_per_second"] = round(sum(buckets) / seconds, 1)
        found[f"{what}_p99_ms"] = _ms(quantile(buckets, 0.99))
    found["gate_wait_p99_ms"] = _ms(quantile(times.get("gate", []), 0.99))
    return found | {what: counts[what] for what in COUNTS}


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _move(settings: Settings) -> dict[str, Any]:
    if PhaseFile(settings.workspace / STATE_DIR).read() is None:
        return {"phase": None, "dirty": 0}
    try:
        with closing(open_migration(settings)) as migration:
            status = migration.status()
    except RegistryError:  # a running switch holds all operations back
        return {"phase": None, "dirty": None}
    return {"phase": int(status.record.phase), "dirty": status.dirty}


def show_looks(found: Iterator[dict[str, Any]]) -> None:
    """Show each interval, on a terminal in place of the last one, until interrupted."""
    from rich.live import Live

    try:
        with Live(auto_refresh=False) as live:
            for look in found:
                live.update(_table(look), refresh=True)
        if not live.console.is_terminal:
            live.console.print()  # on a terminal rich itself ends the last line
    except KeyboardInterrupt:
        return


def _table(look: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 3, 0, 0))
    rows = (
        ("phase", look["phase"]),
        ("processes", look["processes"]),
        ("writes/s", look["writes_per_second"]),
        ("write p99 ms", look["write_p99_ms"]),
        ("reads/s", look["reads_per_second"]),
        ("read p99 ms", look["read_p99_ms"]),
        ("gate wait p99 ms", look["gate_wait_p99_ms"]),
        ("tasks behind", look["dirty"]),
        *((what, look[what]) for what in COUNTS),
    )
    for name, value in rows:
        table.add_row(name, "–" if value is None else str(value))
    return table
