"""``python -m benchmarks [--quick] [CASE …]``: run the named cases, or all.

A run of all cases without --quick writes docs/benchmarks.md.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import (
    commands,
    compaction,
    files,
    fleet,
    gate,
    move,
    orchestrating,
    postgresql,
    reads,
    record_progress,
    watching,
)
from benchmarks.measure import Row
from benchmarks.report import line, write

Case = Callable[..., Iterator[Row]]
CASES: dict[str, Case] = {
    "alone": record_progress.alone,
    "together": record_progress.together,
    "gate": gate.gate,
    "load": reads.load,
    "registry": reads.registry,
    "json": files.json_store,
    "dual": files.dual,
    "pause": commands.pause,
    "cold": commands.cold,
    "move": move.at_size,
    "cut": move.cut_over,
    "recovery": move.recovery,
    "reading": move.reading,
    "beside": move.beside_writers,
    "report": orchestrating.report,
    "fifty": orchestrating.fifty,
    "waiters": orchestrating.waiters,
    "summary": watching.summary,
    "streams": watching.streams,
    "log": watching.log,
    "paint": watching.paint,
    "seen": watching.seen,
    "postgresql": postgresql.postgresql,
    "fleet": fleet.fleet,
    "sizes": fleet.sizes,
    "compaction": compaction.compaction,
}


def main(words: list[str]) -> None:
    """Run the cases that the command line names, or all."""
    quick = "--quick" in words
    named = [w for w in words if w != "--quick"]
    unknown = [w for w in named if w not in CASES]
    if unknown:
        sys.exit(f"no case is called {unknown[0]}; there are {', '.join(CASES)}")
    rows = []
    for name in named or CASES:
        with tempfile.TemporaryDirectory(prefix="registry-bench-") as folder:
            for row in CASES[name](Path(folder), quick=quick):
                print(line(row), flush=True)
                rows.append(row)
    if not named and not quick:
        write(Path("docs/benchmarks.md"), rows)


if __name__ == "__main__":
    main(sys.argv[1:])
