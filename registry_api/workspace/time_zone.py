"""The name of this machine's time zone, in which legacy programs wrote times without one."""

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
    """Return the zone's name, e.g. ``Europe/Berlin``; None if only its offset is known.

    Looked up in this order, as the C library and Debian do: TZ, the target of /etc/localtime,
    /etc/timezone; UTC if none of them is set.
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
