"""Which other processes have files open (Linux)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["open_elsewhere"]


def open_elsewhere(paths: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    """Yield (``pid (name)``, path) of the files that other processes have open."""
    wanted = {}
    for path in paths:
        with suppress(OSError):
            found = path.lstat()
            wanted[found.st_dev, found.st_ino] = path
    for process in Path("/proc").glob("[0-9]*") if wanted else ():
        if process.name == str(os.getpid()):
            continue
        with suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with suppress(OSError):
                    found = descriptor.stat()
                    there = wanted.get((found.st_dev, found.st_ino))
                    if there is not None:
                        name = (process / "comm").read_text().strip()
                        yield f"{process.name} ({name})", there
