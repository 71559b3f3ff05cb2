"""Timestamps of the older programs: naive local times, in a zone that they never wrote down."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from registry_api.errors import SettingsError
from registry_api.zone import machine_zone

__all__ = ["Times"]


@dataclass(frozen=True, slots=True)
class Times:
    """Reads and writes timestamps in one zone; None is this machine's."""

    zone: tzinfo | None = None

    @classmethod
    def named(cls, name: str | None) -> Times:
        """Return the times of a zone by its name, e.g. ``Europe/Berlin``; None is this machine's.

        By its name too, as soon as that is known: the C library reads an hour that a change of the
        clocks leaves out otherwise than zoneinfo does, and both stores must read it alike.
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
        """Return the moment in UTC, or None where the text is no timestamp."""
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
        """Return a naive local time as the older programs write it.

        In the hour that a change of the clocks repeats, and wherever else the naive form would not
        be read back as the same moment, the offset is written.
        """
        try:
            local = moment.astimezone(self.zone)
        except OverflowError:
            return moment.isoformat()
        naive = local.replace(tzinfo=None).isoformat()
        # The C library's zone does not say which of two equal hours it is: then it is tried out.
        once = self.read(naive) == moment if self.zone is None else not local.fold
        return naive if once else local.isoformat()
