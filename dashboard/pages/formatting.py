"""How pages write times and durations."""

from __future__ import annotations

from datetime import UTC, datetime

from registry_api.client import AHEAD

__all__ = ["duration", "exact", "machine", "short"]

_DAY = 86_400
_AHEAD = AHEAD.total_seconds()


def short(moment: datetime, *, now: datetime | None = None) -> str:
    """Return how long ago a moment within the last day was, else its date."""
    moment, now = moment.astimezone(UTC), now or datetime.now(UTC)
    seconds = int((now - moment).total_seconds())
    if -_AHEAD < seconds < _DAY:
        return "now" if seconds <= 0 else f"{duration(seconds)} ago"
    year = f" {moment.year}" if moment.year != now.year else ""
    return f"{moment.day} {moment:%b}{year}"


def exact(moment: datetime) -> str:
    """Return a moment to the second, in UTC."""
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(' ', 'seconds')} UTC"


def machine(moment: datetime) -> str:
    """Return a moment as ``<time datetime>`` wants it."""
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='seconds')}Z"


def duration(seconds: float) -> str:
    """Return a duration in its largest units: ``45 s``, ``3 min``, ``2 h 05 min``, ``4 d``."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < _DAY:
        hours, minutes = whole // 3600, whole % 3600 // 60
        return f"{hours} h {minutes:02} min" if minutes else f"{hours} h"
    return f"{whole // _DAY} d"
