"""``registry-backend plugins new``: a store that works, in files for its author to fill in."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from registry_api.errors import UsageError
from registry_api.plugins import load_plugins

__all__ = ["FILES", "write_plugin"]

FILES = ("README.md", "Makefile", "pyproject.toml", "registry_backend_example.py")
_NAME = re.compile(r"[a-z]([a-z0-9_]{0,38}[a-z0-9])?")
# What else the name of a store stands for, and the name that is replaced.
_TAKEN = {"auto", "example", *(f"dual{phase}" for phase in range(5))}


def write_plugin(name: str, folder: Path) -> list[Path]:
    """Write the files of ``registry-backend-NAME`` into a folder that is not there yet.

    Raises UsageError for a name that is no store's or is taken, and for a folder that exists.
    """
    if not _NAME.fullmatch(name) or name in _TAKEN:
        raise UsageError(
            f"{name!r} is no name for a store",
            next_step="Small letters, digits and _, a letter first and no _ last; not "
            f"{', '.join(sorted(_TAKEN))}",
        )
    if name in load_plugins().stores:
        raise UsageError(f"there is a store {name} already", next_step="Choose another name")
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise UsageError(
            f"{folder} is there already", next_step="Remove it, or name another --folder"
        ) from None
    template, written = files("backends.admin") / "template", list[Path]()
    for file in FILES:
        text = (template / file).read_text(encoding="utf-8")
        path = folder / file.replace("example", name)
        title = "".join(part.capitalize() for part in name.split("_"))
        path.write_text(text.replace("Example", title).replace("example", name), encoding="utf-8")
        written.append(path)
    return written
