"""The demo's table."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["show_demo"]


def show_demo(found: dict[str, Any]) -> None:
    """Print the table, and the one line that counts."""
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
            console.print(f"step {s['step']}: fewer than {found['least']} writes prove nothing")
    acknowledged, there = (sum(s[k] for s in steps) for k in ("acknowledged", "found"))
    print(f"acknowledged {acknowledged}, found {there}, lost {acknowledged - there}")  # noqa: T201
