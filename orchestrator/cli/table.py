"""The table that the commands print; a text in it is shown as it is, whatever an agent wrote."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from orchestrator.cli.text import plain

__all__ = ["Rows", "output"]

_GAP = 2  # cells between two columns
_LEAST = 16  # cells of the last column; narrower, an optional column is left out instead
_PIPED = 10_000  # cells of a line that is not shown on a terminal: there is nothing to fit


class Rows:
    """A table that fits the terminal: ids and statuses are never cut.

    The last column takes what is left of the line and is cut. Where too little is left, columns
    named in ``optional`` are left out, the first named first. Texts hold no markup and no control
    characters.
    """

    def __init__(self, *columns: str, optional: Sequence[str] = ()) -> None:
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

    def _widths(self) -> list[int]:
        """Return the cells that each column needs, with the gap after it."""
        return [
            _GAP + max([cell_len(name), *(cell_len(row[n].plain) for row in self._rows)])
            for n, name in enumerate(self._columns)
        ]

    def _fitting(self, widths: Sequence[int], width: int) -> list[int]:
        """Return the columns that are shown in ``width`` cells."""
        shown = list(range(len(self._columns)))
        for name in self._optional:
            if sum(widths[n] for n in shown[:-1]) + _LEAST <= width:
                break
            shown.remove(self._columns.index(name))
        return shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render it for the width of a console."""
        widths = self._widths()
        *whole, last = self._fitting(widths, options.max_width)
        left = max(_LEAST, options.max_width - sum(widths[n] for n in whole))
        made = Table(box=None, padding=(0, _GAP, 0, 0), header_style="bold", pad_edge=False)
        for n in whole:
            made.add_column(self._columns[n], no_wrap=True, width=widths[n] - _GAP)
        made.add_column(self._columns[last], no_wrap=True, overflow="ellipsis", max_width=left)
        for row in self._rows:
            made.add_row(*(row[n] for n in (*whole, last)))
        yield made


def output() -> Console:
    """Return the console of a command: to a pipe or a file a line may have ``_PIPED`` cells."""
    fits = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if fits else _PIPED)
