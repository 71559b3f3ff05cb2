"""Timing of two sides in one run, alternately, so that noise of the machine affects both."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median

__all__ = ["TIMES", "Row", "Side", "compare", "flat", "ratio"]

Side = Callable[[], object]
TIMES = "times"  # the unit of a ratio


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the result: a figure, its goal, and the bound beyond which it is a defect.

    ``figure`` and ``worst`` (over the rounds) are in ``unit``; ``detail`` has the underlying times.
    With ``at_least`` more is better. ``chart`` names a picture in which the row is a point of each
    line in ``sides`` (its name: its value), at ``at``.
    """

    name: str
    figure: float
    worst: float
    unit: str
    goal: float | None = None
    defect: float | None = None
    at_least: bool = False
    detail: str = ""
    chart: str = ""
    at: float = 0.0
    sides: Mapping[str, float] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """``ok``, ``goal missed`` or ``DEFECT``; empty without a goal."""
        sign = -1 if self.at_least else 1
        if self.defect is not None and sign * self.figure > sign * self.defect:
            return "DEFECT"
        if self.goal is not None and sign * self.figure > sign * self.goal:
            return "goal missed"
        return "ok" if self.goal is not None else ""


def compare(ours: Side, raw: Side, *, rounds: int, each: int) -> tuple[list[float], list[float]]:
    """Time both sides ``each`` times a round; returns the median seconds a call of each round."""
    found: tuple[list[float], list[float]] = ([], [])
    sides = ((ours, found[0]), (raw, found[1]))
    for side, _ in sides:  # warm up: connections and caches are created before the timing
        for _ in range(max(1, each // 10)):
            side()
    for n in range(rounds):
        for side, out in sides if n % 2 else reversed(sides):
            out.append(median(_timed(side, each)))
    return found


def flat(side: Side, *, each: int) -> list[float]:
    """Time one side alone; returns seconds a call."""
    side()
    return _timed(side, each)


def _timed(side: Side, each: int) -> list[float]:
    gc.collect()
    samples = []
    for _ in range(each):
        start = time.perf_counter()
        side()
        samples.append(time.perf_counter() - start)
    return samples


def ratio(
    name: str,
    ours: list[float],
    raw: list[float],
    *,
    goal: float | None = None,
    defect: float | None = None,
    scale: float = 1e6,
    names: tuple[str, str] = ("ours", "raw"),
    chart: str = "",
    at: float = 0.0,
) -> Row:
    """Return the row of the ratio of the times, ours / raw: above 1 ours is slower."""
    each = [a / b for a, b in zip(ours, raw, strict=True)]
    unit = {1e6: "µs", 1e3: "ms"}[scale]
    times = [median(side) * scale for side in (ours, raw)]
    return Row(
        name=name,
        figure=median(each),
        worst=max(each),
        unit=TIMES,
        goal=goal,
        defect=defect,
        detail=", ".join(f"{n} {t:.0f} {unit}" for n, t in zip(names, times, strict=True)),
        chart=chart,
        at=at,
        sides=dict(zip(names, times, strict=True)) if chart else {},
    )
