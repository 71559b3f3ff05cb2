"""Detect the journals of two registries in one folder, as a git merge of two clones leaves them.

A feed number is given out once. If ``.registry`` was committed to git, two clones each gave out the
same numbers, and no store can hold the merged feed.
"""

from __future__ import annotations

from pathlib import Path

from backends.json_files.journal.lines import numbers_in
from backends.json_files.legacy.layout import Layout

__all__ = ["merged_journals"]


def merged_journals(layout: Layout) -> tuple[Path, Path] | None:
    """Return two journals with a feed number in common, None if there are none."""
    owners: dict[int, Path] = {}
    for path in sorted((layout.state / "json").glob("*.journal")):
        for number in numbers_in(path):
            other = owners.setdefault(number, path)
            if other != path:
                return other, path
    return None
