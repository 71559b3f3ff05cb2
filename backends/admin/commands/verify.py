"""``registry-backend verify``."""

from __future__ import annotations

from contextlib import closing

from backends.admin.app import MISMATCH, OK, Json, Workspace, answer, app
from backends.admin.registry import open_reader, recorded_move


@app.command
def verify(*, workspace: Workspace = None, json: Json = False) -> int:
    """Compare both stores of a move field by field while writers continue; exit 3 on a difference.

    Example: registry-backend verify --json
    """
    from dataclasses import asdict

    from backends.admin.show_move import progress_shown, show_verify
    from registry_api import load_settings, open_migration

    settings = load_settings(workspace)
    recorded = recorded_move(settings)
    if recorded is None:
        with closing(open_reader(settings)) as store:
            counts = store.counts()
        found = {"tasks": counts.total_tasks, "records": sum(counts.records.values())}
        found |= {"mismatches": [], "compared": False}
        return answer(found, show_verify, as_json=json)
    with closing(open_migration(settings)) as migration, progress_shown() as progress:
        report = migration.verify(progress=progress)
    code = MISMATCH if report.mismatches else OK
    found = asdict(report) | {"compared": bool(recorded.phase)}
    return answer(found, show_verify, as_json=json, code=code)
