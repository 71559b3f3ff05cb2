"""The table that the commands print; a text in it is shown as it is, whatever an agent wrote."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from orchestrator.cli.text import plain

__all__ = ["Rows", "output"]

_GAP = 2  # cells between two columns
_LEAST = 16  # cells of the last column; narrower, an optional column is left out instead
_PIPED = 500  # cells of a line that is not shown on a terminal: there is nothing to fit


class Rows:
    """A table that fits the terminal: ids and statuses are never cut.

    The last column takes what is left of the line and is cut. Where too little is left, columns
    named in ``optional`` are left out, the first named first. Texts hold no markup and no control
    characters.
    """

    def __init__(self, *columns: str, optional: Collection[str] = ()) -> None:
        self._columns = columns
        self._optional = optional
        self._rows: list[list[Text]] = []

    @property
    def row_count(self) -> int:
        """The number of rows."""
        return len(self._rows)

    def add_row(self, *cells: str | Text) -> None:
        """Add a row, with a cell for each column."""
        self._rows.append([Text(plain(c)) if isinstance(c, str) else c for c in cells])

    def _width(self, columns: Iterable[int]) -> int:
        """Return the cells that columns need."""
        return sum(
            max([cell_len(self._columns[n]), *(cell_len(row[n].plain) for row in self._rows)])
            + _GAP
            for n in columns
        )

    def _fitting(self, width: int) -> list[int]:
        """Return the columns that are shown in ``width`` cells."""
        shown = list(range(len(self._columns)))
        for name in self._optional:
            if self._width(shown[:-1]) + _LEAST <= width:
                break
            shown.remove(self._columns.index(name))
        return shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render it for the width of a console."""
        shown = self._fitting(options.max_width)
        left = max(_LEAST, options.max_width - self._width(shown[:-1]))
        made = Table(box=None, padding=(0, _GAP, 0, 0), header_style="bold", pad_edge=False)
        for n in shown[:-1]:
            width = self._width([n]) - _GAP
            made.add_column(self._columns[n], no_wrap=True, width=width)
        made.add_column(self._columns[shown[-1]], no_wrap=True, overflow="ellipsis", max_width=left)
        for row in self._rows:
            made.add_row(*(row[n] for n in shown))
        yield made


def output() -> Console:
    """Return the console of a command: lines to a pipe or a file are not cut."""
    fits = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if fits else _PIPED)
