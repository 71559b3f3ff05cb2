"""The table that the commands print; a text in it is shown as it is, whatever an agent wrote."""

from __future__ import annotations

from rich.console import RenderableType
from rich.style import StyleType
from rich.table import Table
from rich.text import Text

from orchestrator.cli.text import plain

__all__ = ["table"]


class _Plain(Table):
    """A table whose texts hold no markup and no control characters."""

    def add_row(
        self,
        *cells: RenderableType | None,
        style: StyleType | None = None,
        end_section: bool = False,
    ) -> None:
        shown = (Text(plain(cell)) if isinstance(cell, str) else cell for cell in cells)
        super().add_row(*shown, style=style, end_section=end_section)


def table(*columns: str) -> Table:
    """Return an empty table; the last column takes what is left of the line and is cut."""
    made = _Plain(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns[:-1]:
        made.add_column(name, no_wrap=True)
    made.add_column(columns[-1], no_wrap=True, overflow="ellipsis", ratio=1)
    return made
