"""Text output of ``registry-backend doctor``."""

from __future__ import annotations

from typing import Any

__all__ = ["show_doctor"]


def show_doctor(found: dict[str, Any]) -> None:
    """Print the issues, those that need action with their next step."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, emoji=False)
    todo = [i for i in found["issues"] if i["next"]]
    for issue in found["issues"]:
        mark = ("! ", "bold red") if issue["next"] else ("· ", "dim")
        console.print(Text.assemble(mark, f"{issue['check']}: {issue['what']}"), soft_wrap=True)
        if issue["next"]:
            console.print(Text(f"    next: {issue['next']}"), soft_wrap=True)
    if not todo:
        console.print("Nothing needs action.", style="bold")
