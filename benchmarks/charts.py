"""Charts of the rows of a run, as SVG: one line a side, both axes logarithmic."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from html import escape
from itertools import pairwise

from benchmarks.measure import Row

__all__ = ["file_name", "lines_of", "svg"]

Lines = Mapping[str, Mapping[float, float]]  # name of a side: x: y

_WIDTH, _HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 130, 40, 40
# Each side has a colour and a pattern of dashes: it is told apart without colours, too. The colours
# are legible on white and on black.
_LOOKS = (("#2f7fd1", ""), ("#c2631c", "6 3"), ("#3b9a56", "2 3"), ("#9a62c7", "8 2 2 2"))


def lines_of(rows: Iterable[Row]) -> dict[str, Lines]:
    """Return the lines of each chart that the rows name."""
    out: dict[str, dict[str, dict[float, float]]] = {}
    for row in rows:
        for side, value in row.sides.items():
            out.setdefault(row.chart, {}).setdefault(side, {})[row.at] = value
    return {name: lines for name, lines in out.items() if all(len(p) > 1 for p in lines.values())}


def file_name(chart: str) -> str:
    """Return the name of a chart's file."""
    return re.sub(r"[^a-z]+", "-", chart.split(" (", maxsplit=1)[0].lower()).strip("-") + ".svg"


def svg(title: str, lines: Lines) -> str:
    """Draw a chart."""
    xs = sorted({x for points in lines.values() for x in points})
    ys = [y for points in lines.values() for y in points.values()]
    low, high = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))
    first, last = math.log10(xs[0]), math.log10(xs[-1])

    def across(x: float) -> float:
        share = (math.log10(x) - first) / (last - first)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def up(y: float) -> float:
        share = (math.log10(y) - low) / max(1, high - low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    parts = [_text(_LEFT, 22, title, size=14)]
    for power in range(low, high + 1):
        y = up(10**power)
        parts.append(_line(_LEFT, y, _WIDTH - _RIGHT, y))
        parts.append(_text(_LEFT - 8, y + 4, _short(10**power), anchor="end"))
    bottom = _HEIGHT - _BOTTOM + 20
    parts += [_text(across(x), bottom, _short(x), anchor="middle") for x in xs]
    names = sorted(lines, key=lambda side: -list(lines[side].values())[-1])
    places = _apart([up(list(lines[side].values())[-1]) for side in names])
    for side, place in zip(names, places, strict=True):
        colour, dashes = _LOOKS[list(lines).index(side) % len(_LOOKS)]
        points = [(across(x), up(y)) for x, y in sorted(lines[side].items())]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" '
            f'stroke-dasharray="{dashes}"/>'
        )
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
        parts.append(_text(_WIDTH - _RIGHT + 10, place + 4, side, colour=colour))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" font-family="sans-serif" role="img">\n<title>{escape(title)}</title>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _apart(places: list[float]) -> list[float]:
    """Move labels down so far that none covers another; they are sorted from above."""
    out = list(places)
    for before, here in pairwise(range(len(out))):
        out[here] = max(out[here], out[before] + 14)
    return out


def _short(value: float) -> str:
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#8883" '
        'stroke-width="1"/>'
    )


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, colour: str = "#777"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'fill="{colour}">{escape(text)}</text>'
    )
