"""``registry-backend switch`` and ``plan``."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from backends.admin.app import MISMATCH, OK, Json, Workspace, answer, app
from backends.admin.registry import recorded_move
from registry_api.errors import PreflightFailed, UsageError
from registry_api.migration import MigrationPhase


@app.command
def switch(
    phase: str | None = None,
    /,
    *,
    to: Annotated[
        str | None, Parameter(help="the target of the move that begins: a store's name or URL")
    ] = None,
    workspace: Workspace = None,
    json: Json = False,
    dry_run: Annotated[
        bool, Parameter(negative="", help="only check, and print the steps it would take")
    ] = False,
    json_is_truth: Annotated[
        bool, Parameter(negative="", help="use the JSON even if registry/state.sqlite3 exists")
    ] = False,
    leave_unreadable: Annotated[
        bool, Parameter(negative="", help="do not move tasks whose documents cannot be read")
    ] = False,
    force: Annotated[
        bool, Parameter(negative="", help="switch despite late writes or open documents")
    ] = False,
    reason: Annotated[str | None, Parameter(help="why --force is used; it is recorded")] = None,
    guard: Annotated[
        str | None, Parameter(help="watch for this long afterwards, e.g. 10m; step back on failure")
    ] = None,
    timeout: Annotated[
        float | None,
        Parameter(help="seconds to wait for the gate and locks; default: 5, more on a slow host"),
    ] = None,
    source_code: Annotated[
        Path | None,
        Parameter(help="refuse phase 4 while Python files in this folder write registry files"),
    ] = None,
) -> int:
    """Move to another migration phase: 0 to 4, a name, next or back; default: REGISTRY_PHASE.

    A switch from phase 0 begins a move to the store of --to, else of REGISTRY_TARGET.

    Each step fills and verifies the target while writers continue, then makes them wait briefly
    while the phase changes. If a check fails, nothing is changed. With --guard it steps back by
    itself if calls fail, answers differ or latency rises, and exits 3.

    Example: registry-backend switch next --guard 10m
    """
    from dataclasses import asdict, replace

    from backends.admin.guard import Guard, seconds_of
    from backends.admin.show_move import phase_named, progress_shown, show_switch
    from registry_api import load_settings, open_migration
    from registry_api.migration import PhaseRecord

    if timeout is not None and not 0 < timeout <= 600:  # not "timeout <= 0": NaN must fail too
        raise UsageError(
            f"--timeout {timeout:g} is out of range: more than 0 and at most 600 seconds",
            next_step="registry-backend switch --help",
        )
    if force != (reason is not None):
        raise UsageError(
            "--force needs --reason TEXT, and --reason needs --force", next_step="Give both"
        )
    watched = None if guard is None else seconds_of(guard)
    settings, code = load_settings(workspace), OK
    if phase is None:
        if settings.phase is None:
            raise UsageError(
                "no phase was given, and REGISTRY_PHASE is not set",
                next_step="registry-backend switch next, or set REGISTRY_PHASE",
            )
        phase = str(settings.phase)
    with closing(open_migration(settings, read_only=dry_run)) as migration:
        # Not from migration.status(), which counts records and waits for every locked document.
        aim = phase_named(phase, (recorded_move(settings) or PhaseRecord()).phase)
        if source_code is not None and aim is MigrationPhase.CLEANUP:
            check_source_code(source_code)
        watch = None if watched is None or dry_run else Guard(settings)
        with progress_shown() as progress:
            report = migration.switch(
                aim,
                actor=user(),
                dry_run=dry_run,
                timeout=timeout,
                json_is_truth=json_is_truth,
                leave_unreadable=leave_unreadable,
                force=reason,
                target=to,
                progress=progress,
            )
            if watch is not None and report.steps:
                back = watch.watch(migration, report, seconds=watched or 0.0, progress=progress)
                report = replace(report, notes=(*report.notes, *back.notes))
                code = MISMATCH if back.steps else OK
    steps = [
        {
            "from": step.from_phase,
            "to": step.to_phase,
            "pause_ms": step.pause_ms,
            "caught_up": step.caught_up,
            "verified": asdict(step.verified) if step.verified else None,
        }
        for step in report.steps
    ]
    found = {"steps": steps, "dry_run": report.dry_run, "notes": list(report.notes)}
    return answer(found, show_switch, as_json=json, code=code)


def check_source_code(source: Path) -> None:
    """Raise PreflightFailed while a program writes registry files or has unreadable files."""
    from backends.admin.audit.function import Names
    from backends.admin.audit.project import audit
    from backends.admin.audit.sites import Access

    if not source.exists():
        raise UsageError(f"{source} does not exist", next_step="Name a folder with Python files")
    found = audit(source, Names())
    if not found.files:  # or a mistyped folder would pass
        raise UsageError(f"{source} has no Python file", next_step="Name the folder of the code")
    places = [f"{site.file}:{site.line}" for site in found.accesses(Access.WRITE)]
    places += found.unreadable
    if places:
        raise PreflightFailed(
            f"{len(places)} places in {source} write registry files or cannot be read, the first "
            f"is {places[0]}; nothing was changed",
            next_step=f"registry-backend audit {source} --sites",
        )


def user() -> str:
    """Return the name of the user who runs the command."""
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"  # a container may have no passwd entry for its user


@app.command
def plan(
    phase: str,
    /,
    *,
    to: Annotated[str | None, Parameter(help="as for switch")] = None,
    workspace: Workspace = None,
    json: Json = False,
    json_is_truth: Annotated[bool, Parameter(negative="", help="as for switch")] = False,
    leave_unreadable: Annotated[bool, Parameter(negative="", help="as for switch")] = False,
) -> int:
    """Check a switch and print the steps it would take; same as switch --dry-run.

    Example: registry-backend plan 2
    """
    return switch(
        phase,
        to=to,
        workspace=workspace,
        json=json,
        dry_run=True,
        json_is_truth=json_is_truth,
        leave_unreadable=leave_unreadable,
    )
