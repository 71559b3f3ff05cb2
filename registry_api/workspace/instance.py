"""The identity of a registry, which tells a copy of a workspace from the original.

``.registry/instance.json`` is written once, by the first process that opens the registry for
writing. A copy has the same id in another folder (device and inode) or on another machine; a
renamed workspace keeps its identity.
"""

from __future__ import annotations

import hashlib
import platform
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from registry_api.workspace.durable_files import make_whole
from registry_api.workspace.ownership import make_folder

__all__ = [
    "boot",
    "copied_from",
    "instance_of",
    "machine",
    "make_state_folder",
    "place_of",
    "registry_id",
]

_NAME = "instance.json"

_IDS = ("/etc/machine-id", "/var/lib/dbus/machine-id")


@cache
def machine() -> str:
    """Return a digest of the machine's id, or of its name if it has none: 12 hex digits."""
    for path in _IDS:
        with suppress(OSError):
            if found := Path(path).read_text().strip():
                return _digest(found)
    return _digest(platform.node())


@cache
def boot() -> str:
    """Return 12 hex digits that identify this boot of the machine, "" if it is unknown."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")[:12]
    return ""


def make_state_folder(folder: Path) -> None:
    """Create ``.registry`` unless it exists, mode 0700, with its identity file and a .gitignore: it
    holds a token and must not be committed to git. Raises OSError.
    """
    make_folder(folder, mode=0o700)
    with suppress(OSError):  # a full disk, or another user's folder: the next process tries again
        _make(folder / ".gitignore", lambda: b"*\n")
        _make(folder / _NAME, lambda: _identity(folder))


def _make(path: Path, content: Callable[[], bytes]) -> None:
    if not path.exists():
        make_whole(path, content())


def _identity(folder: Path) -> bytes:
    found = {"id": uuid.uuid4().hex, **_place(folder), "path": str(folder.parent)}
    return orjson.dumps(found, option=orjson.OPT_INDENT_2) + b"\n"


def instance_of(folder: Path) -> str:
    """Return 12 hex digits that identify this registry but no copy, "" if there is none yet."""
    try:
        place = _place(folder)
    except OSError:
        return ""
    return _digest(f"{_read(folder).get('id', '')} {sorted(place.items())}")


def registry_id(folder: Path) -> str:
    """Return the id of this registry, which its copies share; "" if there is none yet."""
    return str(_read(folder).get("id", ""))


def place_of(workspace: Path) -> str:
    """Return a digest of a workspace's path: 12 hex digits."""
    return _digest(str(workspace))


def copied_from(folder: Path) -> str | None:
    """Return the path of the registry that this one is a copy of, None if it is not."""
    found = _read(folder)
    if not found:
        return None
    try:
        here = _place(folder)
    except OSError:
        return None
    if all(found.get(name) == value for name, value in here.items()):
        return None
    return str(found.get("path", "another place"))


def _place(folder: Path) -> dict[str, Any]:
    found = folder.stat()
    return {"machine": machine(), "device": found.st_dev, "inode": found.st_ino}


def _read(folder: Path) -> dict[str, Any]:
    try:
        found = orjson.loads((folder / _NAME).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
