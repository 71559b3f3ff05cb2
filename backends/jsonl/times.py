"""Timestamps of the legacy programs: naive local times in a zone that they do not record."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from registry_api.errors import SettingsError
from registry_api.workspace.time_zone import machine_zone

__all__ = ["Times"]


@dataclass(frozen=True, slots=True)
class Times:
    """Timestamps in one zone, read and written; None is this machine's zone."""

    zone: tzinfo | None = None

    @classmethod
    def named(cls, name: str | None) -> Times:
        """Return the Times of a named zone, e.g. ``Europe/Berlin``; None is this machine's zone.

        This machine's zone is opened by its name too, if that is known: the C library and zoneinfo
        read an hour that a clock change skips differently, and both stores must read it alike.
        """
        name = name or machine_zone()
        if name is None:
            return cls()
        try:
            return cls(ZoneInfo(name))
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise SettingsError(
                f"there is no time zone {name!r}",
                next_step="Set REGISTRY_LEGACY_TZ to a name like Europe/Berlin or UTC",
            ) from None

    def read(self, text: object) -> datetime | None:
        """Return the moment in UTC, or None if the text is not a timestamp."""
        if not isinstance(text, str):
            return None
        try:
            moment = datetime.fromisoformat(text)
            if moment.tzinfo is None and self.zone is not None:
                moment = moment.replace(tzinfo=self.zone)
            return moment.astimezone(UTC)
        except (ValueError, OverflowError, OSError):
            return None

    def write(self, moment: datetime) -> str:
        """Return a naive local time as the legacy programs write it.

        The offset is added in the hour that a clock change repeats, and wherever else the naive
        form would not be read back as the same moment.
        """
        try:
            local = moment.astimezone(self.zone)
        except OverflowError:
            return moment.isoformat()
        naive = local.replace(tzinfo=None).isoformat()
        # The C library's zone does not tell which of two equal hours it is: try reading it back.
        once = self.read(naive) == moment if self.zone is None else not local.fold
        return naive if once else local.isoformat()
