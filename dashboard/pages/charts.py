"""Charts, computed as SVG coordinates: the page's security policy allows no inline styles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dashboard.pages.formatting import duration
from registry_api import PhaseStatus, ProgressEntry, TaskSnapshot

__all__ = ["AXIS", "Bar", "Curve", "Gantt", "curve", "gantt", "pauses", "stacked"]

WIDTH, HEIGHT = 300, 60
AXIS = 600  # the width of a time axis


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A phase on the time axis: its place and width, its reviews with what they decided."""

    name: str
    status: PhaseStatus
    x: float
    width: float
    took: str
    reviews: tuple[tuple[float, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gantt:
    """The phases of a task on one time axis; the ticks have labels, ``now`` is a place on it."""

    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, str], ...]
    now: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A line of percentages, 300 by 60: the points of a polyline, and a dot for each report."""

    line: str
    dots: tuple[tuple[float, float, ProgressEntry], ...]


def curve(reports: Sequence[ProgressEntry]) -> Curve | None:
    """Return the reported percentages, oldest first; None for fewer than two."""
    if len(reports) < 2:
        return None
    step = WIDTH / (len(reports) - 1)
    places = [
        (round(n * step, 1), round(HEIGHT - min(100, max(0, r.progress)) * HEIGHT / 100, 1))
        for n, r in enumerate(reports)
    ]
    dots = tuple((x, y, report) for (x, y), report in zip(places, reports, strict=True))
    return Curve(line=_points(places), dots=dots)


def pauses(milliseconds: Sequence[float]) -> list[tuple[float, float, float]]:
    """Return (x, y, milliseconds) for the pause of each switch, 300 by 60, the oldest first."""
    highest = max([1.0, *milliseconds])
    step = WIDTH / max(1, len(milliseconds) - 1)
    return [
        (round(n * step, 1), round(HEIGHT - HEIGHT * ms / highest, 1), ms)
        for n, ms in enumerate(milliseconds)
    ]


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


def gantt(snapshot: TaskSnapshot, now: datetime) -> Gantt | None:
    """Return a bar for each phase that has a start time, None without one."""
    begun = [(p, p.started_at) for p in snapshot.phases if p.started_at is not None]
    if not begun:
        return None
    first = min(start for _, start in begun)
    last = max(phase.completed_at or now for phase, _ in begun)
    span = max((last - first).total_seconds(), 1.0)

    def at(moment: datetime) -> float:
        return round(AXIS * min(max((moment - first).total_seconds(), 0.0), span) / span, 1)

    bars = []
    for phase, start in begun:
        end = phase.completed_at or now
        reviews = (r for r in snapshot.reviews if r.phase_index == phase.phase_index)
        bars.append(
            Bar(
                name=phase.name,
                status=phase.status,
                x=at(start),
                width=max(at(end) - at(start), 3.0),
                took=duration((end - start).total_seconds()),
                reviews=tuple((at(r.created_at), str(r.verdict or r.status)) for r in reviews),
            )
        )
    running = any(phase.completed_at is None for phase, _ in begun)
    ticks = ((round(AXIS * offset / span, 1), label) for offset, label in _ticks(first, span))
    return Gantt(bars=tuple(bars), ticks=tuple(ticks), now=at(now) if running else None)


_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_STEPS = (
    *(n * _MINUTE for n in (1, 2, 5, 10, 20)),
    *(n * _HOUR for n in (0.5, 1, 2, 4, 6, 12)),
    *(n * _DAY for n in (1, 2, 7, 14, 30)),
)


def _ticks(first: datetime, span: float) -> Iterator[tuple[float, str]]:
    """Yield at most seven round times as seconds after the first, with labels."""
    step = next((s for s in _STEPS if span / s <= 6), span / 6)
    start = first.astimezone(UTC)
    since_midnight = start.hour * _HOUR + start.minute * _MINUTE + start.second
    offset = step * (since_midnight // step + 1) - since_midnight
    while offset <= span:
        # Never after the last moment of the axis: dates end with the year 9999.
        moment = start + timedelta(seconds=offset)
        if span > 300 * _DAY:
            label = f"{moment:%b} {moment.year}"
        elif step >= _DAY or (moment.hour, moment.minute) == (0, 0):
            label = f"{moment.day} {moment:%b}"
        else:
            label = f"{moment:%H:%M}"
        yield offset, label
        offset += step


def _points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
