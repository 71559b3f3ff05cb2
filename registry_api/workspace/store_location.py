"""Locations of stores (names or URLs), with and without their credentials.

Credentials come from the environment, from a registry.toml or a file named by ``?passfile=`` that
only its owner may read (mode 0600). They are never recorded, shown or passed on:
``redis://agents:secret@host/0`` is kept as ``redis://agents:***@host/0``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote, unquote

from registry_api.errors import SettingsError

__all__ = [
    "HIDDEN",
    "credentials_in",
    "has_credentials",
    "public",
    "require_private",
    "same_place",
    "usable",
]

HIDDEN = "***"

_KEYS = r"[\w-]*(?:password|passwd|pwd|secret|token|api_?key|access_key)|pass|auth"

# The user part ends at the last @ before the path, the query or the end: a password that was not
# encoded may contain an @ itself.
_USER = re.compile(r"^((?:[A-Za-z][A-Za-z0-9+.-]*://)?[^/?#:@]*):([^/?#]*)@")

# A password with other characters that should have been encoded is hidden up to the last @.
_SLASH = re.compile(r"^((?:[A-Za-z][A-Za-z0-9+.-]*://)?[^/?#:@]*):(?!//)(.*)@")

_QUERY = re.compile(rf"([?&;](?:{_KEYS})=)([^&;#]*)", re.IGNORECASE)

_PASSFILE = re.compile(r"([?&;])passfile=([^&;#]*)[&;]?")


def public(place: str) -> str:
    """Return a name, URL or the part after ``scheme://`` with its credentials hidden."""
    user = _USER if _USER.match(place) else _SLASH
    return _QUERY.sub(rf"\g<1>{HIDDEN}", user.sub(rf"\g<1>:{HIDDEN}@", place))


def credentials_in(place: str) -> list[str]:
    """Return the secrets in a URL, encoded and not, longest first."""
    found = [
        m[2] for m in (_USER.match(place) or _SLASH.match(place), *_QUERY.finditer(place)) if m
    ]
    both = {text for secret in found for text in (secret, unquote(secret))}
    return sorted(both - {"", HIDDEN}, key=len, reverse=True)


def has_credentials(place: str) -> bool:
    """Return whether a URL holds a secret."""
    return bool(credentials_in(place))


def same_place(a: str, b: str) -> bool:
    """Return whether two URLs name the same place, ignoring credentials."""
    return _bare(a) == _bare(b)


def _bare(place: str) -> str:
    place = _PASSFILE.sub(r"\1", public(place)).replace(f":{HIDDEN}@", "@", 1)
    return re.sub(rf"[?&;](?:{_KEYS})={re.escape(HIDDEN)}", "", place).rstrip("?&;")


def usable(place: str, known: Iterable[str]) -> str:
    """Return the URL with which to open a recorded place: with the credentials of a ``known`` URL
    of the same place, or of its passfile. Raises SettingsError if they are missing.
    """
    full = next((k for k in known if k != place and same_place(k, place)), place)
    full = _with_passfile(full)
    if HIDDEN in full and public(full) == full:
        raise SettingsError(
            f"{full} needs credentials, which are never recorded",
            next_step="Set REGISTRY_TARGET, REGISTRY_SOURCE or REGISTRY_BACKEND (whichever names "
            "this store) to the whole URL, or name a file of mode 0600 with ?passfile=",
        )
    return full


def _with_passfile(place: str) -> str:
    found = _PASSFILE.search(place)
    if found is None:
        return place
    path = Path(unquote(found[2])).expanduser()
    require_private(path)
    try:
        secret = path.read_text(encoding="utf-8").split("\n", 1)[0].strip()
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"the passfile {path} cannot be read: {error}", next_step="Correct the file or its name"
        ) from None
    place = _PASSFILE.sub(r"\1", place, count=1).rstrip("?&;")
    scheme, separator, rest = place.rpartition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, at, _ = authority.rpartition("@")
    user = user.partition(":")[0] if at else ""
    host_on = rest[len(user) + (rest[len(user) :].index("@") + 1 if at else 0) :] if at else rest
    return f"{scheme}{separator}{user}:{quote(secret, safe='')}@{host_on}"


def require_private(path: Path) -> None:
    """Raise SettingsError if anyone but its owner may read a file."""
    try:
        mode = path.stat().st_mode & 0o777
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read: {error.strerror}", next_step="Create it with mode 0600"
        ) from None
    if mode & 0o077:
        raise SettingsError(
            f"{path} holds credentials and has mode {mode:o}", next_step=f"chmod 600 {path}"
        )
