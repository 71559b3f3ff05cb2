"""Charts, computed as SVG coordinates: the page's security policy allows no inline styles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from registry_api import PhaseStatus, TaskSnapshot

__all__ = ["Bar", "curve", "stacked", "timeline"]

WIDTH, HEIGHT = 300, 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A phase on a timeline 300 wide: its start, its width, and the starts of its reviews."""

    name: str
    status: PhaseStatus
    x: float
    width: float
    review_starts: tuple[float, ...]


def curve(values: Sequence[int]) -> str:
    """Return the points of a polyline through percentages, 300 by 60."""
    if len(values) < 2:
        return ""
    step = WIDTH / (len(values) - 1)
    points = ((n * step, 60 - min(100, max(0, v)) * 0.6) for n, v in enumerate(values))
    return _points(points)


def stacked(rows: Sequence[Sequence[int]]) -> list[str]:
    """Return a polygon for each column of numbers over time, as a stacked chart, 300 by 60."""
    if len(rows) < 2:
        return []
    highest = max(1, *map(sum, rows))
    step, areas = WIDTH / (len(rows) - 1), []
    below = [0] * len(rows)
    for column in range(len(rows[0])):
        above = [b + row[column] for b, row in zip(below, rows, strict=True)]
        upper = [(n * step, HEIGHT - HEIGHT * v / highest) for n, v in enumerate(above)]
        lower = [(n * step, HEIGHT - HEIGHT * v / highest) for n, v in enumerate(below)]
        areas.append(_points([*upper, *reversed(lower)]))
        below = above
    return areas


def timeline(snapshot: TaskSnapshot, now: datetime) -> list[Bar]:
    """Return a bar for each phase that has a start time."""
    begun = [p for p in snapshot.phases if p.started_at is not None]
    starts = [p.started_at for p in begun if p.started_at is not None]
    if not starts:
        return []
    first = min(starts)
    ends = {p.phase_index: p.completed_at or now for p in begun}
    span = max((max(ends.values()) - first).total_seconds(), 1.0)

    def at(moment: datetime) -> float:
        return WIDTH * min(max((moment - first).total_seconds(), 0.0), span) / span

    bars = []
    for phase in begun:
        assert phase.started_at is not None
        x = at(phase.started_at)
        reviews = (r for r in snapshot.reviews if r.phase_index == phase.phase_index)
        bars.append(
            Bar(
                name=phase.name,
                status=phase.status,
                x=round(x, 1),
                width=round(max(at(ends[phase.phase_index]) - x, 2.0), 1),
                review_starts=tuple(round(at(r.created_at), 1) for r in reviews),
            )
        )
    return bars


def _points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
