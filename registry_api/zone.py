"""The name of this machine's time zone: what older programs meant by a time without one."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from zoneinfo import ZoneInfo

__all__ = ["machine_zone"]

_LINK, _NAME = Path("/etc/localtime"), Path("/etc/timezone")


def machine_zone(
    env: Mapping[str, str] | None = None, *, link: Path = _LINK, name: Path = _NAME
) -> str | None:
    """Return the zone's name, e.g. ``Europe/Berlin``; None where only its offset is known.

    In this order, as the C library does and Debian keeps it: TZ, the target of /etc/localtime,
    /etc/timezone; UTC where nothing is set.
    """
    env = os.environ if env is None else env
    if "TZ" in env:
        return _known(env["TZ"].removeprefix(":")) or ("UTC" if not env["TZ"] else None)
    _, found, rest = os.path.realpath(link).partition("/zoneinfo/")
    if found and _known(rest):
        return rest
    try:
        return _known(name.read_text().strip())
    except OSError:
        return "UTC" if not link.exists() and time.timezone == 0 else None


def _known(name: str) -> str | None:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # KeyError: there is no such zone
        return None
    return name
