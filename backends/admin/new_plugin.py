"""``registry-backend plugins new``: create a distribution with a working example store."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from registry_api.errors import UsageError
from registry_api.plugins import load_plugins

__all__ = ["FILES", "write_plugin"]

FILES = ("README.md", "Makefile", "pyproject.toml", "registry_backend_example.py")
_NAME = re.compile(r"[a-z]([a-z0-9_]{0,38}[a-z0-9])?")
# Names that mean something else in REGISTRY_BACKEND, and the placeholder of the template.
_TAKEN = {"auto", "example", *(f"dual{phase}" for phase in range(5))}


def write_plugin(name: str, folder: Path) -> list[Path]:
    """Write the files of ``registry-backend-NAME`` into a new folder; return their paths.

    Raises UsageError if the name is not valid or is taken, or if the folder exists.
    """
    if not _NAME.fullmatch(name) or name in _TAKEN:
        raise UsageError(
            f"{name!r} is not a valid store name",
            next_step="Use lower-case letters, digits and _; a letter first and no _ at the end; "
            f"reserved: {', '.join(sorted(_TAKEN))}",
        )
    if name in load_plugins().stores:
        raise UsageError(f"a store named {name} already exists", next_step="Choose another name")
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise UsageError(
            f"{folder} already exists", next_step="Remove it, or choose another --folder"
        ) from None
    template, written = files("backends.admin") / "template", list[Path]()
    for file in FILES:
        text = (template / file).read_text(encoding="utf-8")
        path = folder / file.replace("example", name)
        title = "".join(part.capitalize() for part in name.split("_"))
        path.write_text(text.replace("Example", title).replace("example", name), encoding="utf-8")
        written.append(path)
    return written
