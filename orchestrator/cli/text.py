"""Texts for a terminal: durations, bars, and what agents wrote, without control characters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry_api.workspace.server_cli import printable

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["bar", "duration", "plain", "status_text"]

_BAR = 10  # cells of a full bar
# A shape and a colour for each meaning, as on the dashboard: parts.html and page.css.
_MEANINGS = (
    ("●", "bright_blue", "alive starting running working reviewing ACTIVE IN_REVIEW in_progress"),
    ("✓", "green", "completed phase_completed COMPLETED APPROVED approved"),
    ("✕", "red", "dead failed error killed terminated FAILED ESCALATED rejected"),
    ("▲", "yellow", "blocked silent lost REVISION_NEEDED FIXING needs_revision"),
)
_MARKS = {status: (mark, style) for mark, style, named in _MEANINGS for status in named.split()}
_MARKS["never started"] = ("✕", "red")


def plain(text: str) -> str:
    """Return a text in one line without control characters: agents write what they like."""
    return printable(text)


def duration(seconds: float | None) -> str:
    """Return a duration in its largest unit: ``12 s``, ``3 min``, ``2 h``, ``4 d``."""
    if seconds is None:
        return "–"
    for unit, size, most in (("s", 1, 100), ("min", 60, 100), ("h", 3600, 48)):
        if seconds < size * most:
            return f"{max(seconds, 0) / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def bar(percent: int) -> str:
    """Return a progress bar with its number."""
    percent = max(0, min(percent, 100))
    full = round(percent / 100 * _BAR)
    return f"{'█' * full}{'░' * (_BAR - full)} {percent:3d}%"


def status_text(status: str, *, where: str = "") -> Text:
    """Return a status with its shape, in its colour; ``where`` follows it."""
    from rich.text import Text

    mark, style = _MARKS.get(status, ("○", ""))
    said = f"{status} on {where}" if where else status
    return Text(f"{mark} {plain(said)}", style=style)
