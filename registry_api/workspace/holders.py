"""Which other processes have files open (Linux), and how to wait until they let go of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["open_elsewhere", "wait_until_released"]


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


def wait_until_released(
    paths: Iterable[Path],
    *,
    wait: float,
    patience: float,
    progress: Callable[[int, int], None] | None = None,
    holders: bool = True,
) -> set[Path]:
    """Wait until files that were renamed have had that name for ``wait`` seconds, and no process
    has them open, unless ``holders`` is false.

    Waits at most ``patience`` seconds; returns the files that must not be removed yet.
    """
    start = time.monotonic()
    # Renaming a file sets its ctime.
    ages = {p: time.time() - p.stat().st_ctime for p in paths if p.exists()}
    while True:
        passed = time.monotonic() - start
        held = {p for p, age in ages.items() if age + passed < wait}
        if holders:
            held |= {path for _, path in open_elsewhere(ages.keys() - held)}
        if not held or passed >= patience:
            return held
        if progress is not None:
            progress(min(int(passed), int(wait)), int(wait))
        time.sleep(max(0.0, min(0.5, patience - passed)))
