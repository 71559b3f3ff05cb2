"""``registry-backend demo``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from backends.admin.app import ERROR, MISMATCH, OK, Json, answer, app
from registry_api.errors import (
    UsageError,
)


def _said(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@app.command
def demo(
    *,
    workspace: Annotated[
        Path | None, Parameter(help="a copy of a legacy workspace; default: a generated one")
    ] = None,
    writers: Annotated[int, Parameter(help="number of agent processes")] = 8,
    seconds: Annotated[float, Parameter(help="seconds of load before each switch")] = 2.0,
    sabotage: Annotated[
        bool,
        Parameter(negative="", help="drop one write in 500 on purpose; the check must detect it"),
    ] = False,
    pair: Annotated[
        str | None, Parameter(help="source and target, names or URLs; default: json,sqlite")
    ] = None,
    json: Json = False,
) -> int:
    """Move a live registry from phase 0 to 4, to 0 and to 4 again; exit 3 if a write was lost.

    Creates a legacy workspace with stale counters and torn files, starts writer processes and two
    legacy programs, and looks for every acknowledged write with plain json and sqlite3. With
    --pair and another source than json it creates the tasks there and starts no legacy programs.

    Example: registry-backend demo --writers 8 --seconds 5 --pair json,sqlite
    """
    import tempfile

    from backends.admin.demo.run import LEAST, run_demo
    from backends.admin.demo.show import show_demo, warnings_kept
    from backends.admin.demo.workspace import make_workspace
    from backends.admin.show_move import progress_shown
    from registry_api.workspace import has_legacy_registry

    if not 0 <= seconds <= 3600 or not 1 <= writers <= 100:
        raise UsageError(
            "--seconds is 0 to 3600, --writers 1 to 100", next_step="registry-backend demo --help"
        )
    source, comma, target = (pair or "json,sqlite").partition(",")
    if not (source and comma and target) or source == target:
        raise UsageError(f"--pair {pair} is not two stores", next_step="e.g. --pair sqlite,lmdb")
    if workspace is not None and source != "json":
        raise UsageError(
            "--workspace is a copy of a legacy workspace, so the source must be json",
            next_step=f"--pair json,{target}, or omit --workspace",
        )
    if workspace is not None and not has_legacy_registry(workspace):
        raise UsageError(
            f"{workspace} holds no registry of the legacy orchestrator",
            next_step="Give a copy of a legacy workspace, or omit --workspace",
        )
    with tempfile.TemporaryDirectory(prefix="registry-demo-") as folder:
        if workspace is None:
            workspace = Path(folder) / "workspace"
            if source == "json":
                make_workspace(workspace)
            else:
                workspace.mkdir()
        if not json:
            _said(f"Moving {workspace} under load from {writers} writers …")
        with warnings_kept() as left, progress_shown() as progress:
            rows = run_demo(
                workspace,
                writers=writers,
                seconds=seconds,
                sabotage=sabotage,
                say=lambda step: None if json else _said(f"  {step}"),
                progress=None if json else progress,
                pair=(source, target),
            )
    lost, mismatches = sum(r.lost for r in rows), sum(r.mismatches for r in rows)
    found = {
        "steps": [
            {
                "step": r.step,
                "seconds": round(r.seconds, 2),
                "pause_ms": r.pause_ms,
                "acknowledged": r.acknowledged,
                "found": r.found,
                "lost": r.lost,
                "mismatches": r.mismatches,
            }
            for r in rows
        ],
        "least": LEAST,
        "left": [text.replace(f"{workspace}/", "") for text in left],
    }
    code = MISMATCH if lost or mismatches else OK
    if any(r.acknowledged < LEAST for r in rows):
        code = code or ERROR
    return answer(found, show_demo, as_json=json, code=code)
