"""Text output of ``registry-backend demo``."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["show_demo", "warnings_kept"]


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self.lines:
            self.lines.append(text)


@contextmanager
def warnings_kept() -> Iterator[list[str]]:
    """Collect this process's warnings to show after the table; torn files always cause some."""
    log, handler = logging.getLogger("registry_backend"), _Kept()
    before = log.propagate
    log.addHandler(handler)
    log.propagate = False
    try:
        yield handler.lines
    finally:
        log.propagate = before
        log.removeHandler(handler)


def show_demo(found: dict[str, Any]) -> None:
    """Print the table, the warnings, and the line with the total of lost writes."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    columns = ("step", "seconds", "pause ms", "acknowledged", "found", "lost", "mismatches")
    for name in columns:
        table.add_column(name, justify="left" if name == "step" else "right")
    for s in found["steps"]:
        table.add_row(
            s["step"],
            f"{s['seconds']:.1f}",
            f"{s['pause_ms']:.1f}",
            *(str(s[name]) for name in columns[3:]),
        )
    console = Console(highlight=False, emoji=False)
    console.print()
    console.print(table)
    steps = found["steps"]
    for s in steps:
        if s["acknowledged"] < found["least"]:
            console.print(f"step {s['step']}: under {found['least']} writes, too few for a check")
    for text in found["left"]:
        console.print(f"left unchanged: {text}", soft_wrap=True)
    acknowledged, there = (sum(s[k] for s in steps) for k in ("acknowledged", "found"))
    print(f"acknowledged {acknowledged}, found {there}, lost {acknowledged - there}")  # noqa: T201  (the command's output)
