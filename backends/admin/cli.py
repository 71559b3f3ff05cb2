"""The command ``registry-backend``: show the status of a registry and move it between stores.

rich and the stores are imported inside the commands: scripts call ``status --json`` as a new
process, and these imports would take most of its time.
"""

from __future__ import annotations

import errno
import logging
import os
import shlex
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import App, Parameter

from registry_api.errors import (
    Busy,
    NotPermitted,
    PreflightFailed,
    RegistryError,
    SwitchTimedOut,
    Unavailable,
    UsageError,
    VerificationFailed,
)
from registry_api.renamed import new_option
from registry_api.typed_errors import typed

__all__ = ["app", "main"]

log = logging.getLogger("registry_backend")

_NARROWEST = 20  # columns
OK, ERROR, USAGE, MISMATCH, BUSY, TIMED_OUT, REFUSED = range(7)
_EXIT: tuple[tuple[type[RegistryError], int], ...] = (
    (VerificationFailed, MISMATCH),
    (PreflightFailed, REFUSED),
    (UsageError, USAGE),
    (SwitchTimedOut, TIMED_OUT),
    (Busy, BUSY),
)

Workspace = Annotated[
    Path | None,
    Parameter(
        help="base directory; default: REGISTRY_WORKSPACE, else the nearest registry at or above "
        "the current directory"
    ),
]
Json = Annotated[
    bool, Parameter(negative="", help="print one JSON object and nothing else on stdout")
]

app = App(
    name="registry-backend",
    help="Show the status of an agent registry, and move it from one store to another.\n\n"
    "Example: registry-backend --workspace .agent-workspace",
    version=lambda: version("registry-backend"),
    version_flags=["--version"],
)


def main(tokens: list[str] | None = None) -> int:
    """Run the command and return its exit code.

    0 ok, 1 error, 2 usage, 3 mismatch or conflict, 4 busy, 5 timed out, 6 preflight refused.
    """
    tokens = [new_option(t) for t in (sys.argv[1:] if tokens is None else tokens)]
    _suit_terminal()
    try:
        if _wants_more(tokens):
            _add_commands()
        tokens = _command_first(tokens)
        code = app(
            tokens,
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
    except RegistryError as error:
        return _refused(error, tokens)
    except cyclopts.CycloptsError as error:
        help_of = " ".join(["registry-backend", *(error.command_chain or ()), "--help"])
        _report_error("usage", _misunderstood(error), help_of, as_json="--json" in tokens)
        return USAGE
    except OSError as error:
        if not isinstance(found := typed(error), NotPermitted):
            what = f"{error.strerror}: {error.filename}" if error.filename else str(error)
            found = Unavailable(what, next_step=_next_step_for(error))
        return _refused(found, tokens)
    return code if isinstance(code, int) else OK


def _suit_terminal() -> None:
    """Make output safe: characters that the terminal's encoding lacks become question marks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    columns = os.environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdigit() and int(columns) < _NARROWEST:
        del os.environ["COLUMNS"]  # with fewer columns rich prints nothing


def _refused(error: RegistryError, tokens: list[str]) -> int:
    error = typed(error) or error
    next_step = error.next_step
    if isinstance(error, NotPermitted):
        owner = shlex.quote(str(error.fields.get("owner", "its owner")))
        next_step = f"sudo -u {owner} registry-backend {shlex.join(tokens)}"
    _report_error(error.code, error.message, next_step, as_json="--json" in tokens)
    return next((code for kind, code in _EXIT if isinstance(error, kind)), ERROR)


def _wants_more(tokens: list[str]) -> bool:
    """Return whether plugins must be loaded: not for a built-in command, as loading is slow."""
    return "--help" in tokens or any(t not in app for t in tokens[_command_at(tokens) :][:1])


def _add_commands() -> None:
    from registry_api.plugins import load_plugins

    def register(name: str, command: Callable[..., int]) -> None:
        if name in _OURS:
            log.warning(
                "a plugin's command %s is ignored: there is a built-in one of that name", name
            )
        elif name not in app:
            app.command(command, name=name)

    load_plugins().manager.hook.registry_register_commands(register=register)


def _command_at(tokens: list[str]) -> int:
    at = 0
    while at < len(tokens) and tokens[at].startswith("--"):
        at += 2 if tokens[at] == "--workspace" else 1
    return at


def _command_first(tokens: list[str]) -> list[str]:
    """Move options given before the command to after it, because the command takes them."""
    at = _command_at(tokens)
    if not 0 < at < len(tokens) or tokens[at] not in app:
        return tokens
    return [tokens[at], *tokens[:at], *tokens[at + 1 :]]


def _misunderstood(error: cyclopts.CycloptsError) -> str:
    if isinstance(error, cyclopts.UnusedCliTokensError) and error.unused_tokens:
        found = error.unused_tokens[0]
        return f"unexpected argument {found!r}" if error.command_chain else f"no command {found!r}"
    return str(error)


def _next_step_for(error: OSError) -> str:
    if error.errno == errno.EROFS:
        return "Mount the file system for writing"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return "Free disk space, then try again"
    return "Check that file and its folder's permissions" if error.filename else "Try again"


def _report_error(code: str, message: str, next_step: str, *, as_json: bool) -> None:
    if as_json:
        _print_json({"error": {"code": code, "message": message, "next": next_step}})
    else:
        sys.stderr.write(f"registry-backend: {message}\n")
        if next_step:
            sys.stderr.write(f"  next: {next_step}\n")


def _print_json(value: dict[str, Any]) -> None:
    import orjson

    try:
        text = orjson.dumps({"version": 1, **value})
    except TypeError:  # a lone surrogate, e.g. from an argument that is not UTF-8
        import json

        text = json.dumps({"version": 1, **value}, default=str).encode()
    try:
        shown = text.decode()
        shown.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # escape: a question mark in its place would change the value
        import json

        shown = json.dumps(orjson.loads(text))
    sys.stdout.write(shown + "\n")


@app.default
def summary(*, workspace: Workspace = None, json: Json = False) -> int:
    """Show the status: migration phase, actual and stored counts, silent agents."""
    return status(workspace=workspace, json=json)


@app.command
def status(*, workspace: Workspace = None, json: Json = False) -> int:
    """Show the migration phase, actual and stored counts, and silent agents.

    "Stored" are the counters in legacy files. If no move is recorded, this writes nothing;
    otherwise it absorbs what legacy programs wrote.

    Example: registry-backend status --workspace .agent-workspace --json
    """
    from backends.admin.status import collect
    from registry_api import load_settings, open_store

    settings = load_settings(workspace)
    with closing(open_store(settings, read_only=True)) as store:
        found = collect(store, settings)
    if workspace is not None and found["next"] and not json:
        found["next"] += f" --workspace {shlex.quote(str(workspace))}"
    return _answer(found, _show_status, as_json=json)


def _show_status(found: dict[str, Any]) -> None:
    from rich.console import Console

    from backends.admin.show import show_status

    show_status(found, Console(highlight=False, emoji=False))


@app.command
def switch(
    to: str | None = None,
    *,
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
) -> int:
    """Move to another migration phase: 0 to 4, a name, next or back; default: REGISTRY_PHASE.

    Each step fills and verifies the target while writers continue, then makes them wait briefly
    while the phase changes. If a check fails, nothing is changed. With --guard it steps back by
    itself if calls fail, answers differ or latency rises, and exits 3.

    Example: registry-backend switch next --guard 10m
    """
    import getpass
    from dataclasses import asdict, replace

    from backends.admin.guard import Guard, seconds_of
    from backends.admin.move import phase_named, progress_shown, show_switch
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
    if to is None:
        if settings.phase is None:
            raise UsageError(
                "no phase was given, and REGISTRY_PHASE is not set",
                next_step="registry-backend switch next, or set REGISTRY_PHASE",
            )
        to = str(settings.phase)
    with closing(open_migration(settings, read_only=dry_run)) as migration:
        # Not from migration.status(), which counts records and waits for every locked document.
        phase = phase_named(to, (_recorded(settings) or PhaseRecord()).phase)
        watch = None if watched is None or dry_run else Guard(settings)
        with progress_shown() as progress:
            report = migration.switch(
                phase,
                actor=_user(getpass.getuser),
                dry_run=dry_run,
                timeout=timeout,
                json_is_truth=json_is_truth,
                leave_unreadable=leave_unreadable,
                force=reason,
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
    return _answer(found, show_switch, as_json=json, code=code)


def _user(name: Callable[[], str]) -> str:
    try:
        return name()
    except (OSError, KeyError, ImportError):
        return "unknown"  # a container may have no passwd entry for its user


@app.command
def plan(
    to: str,
    *,
    workspace: Workspace = None,
    json: Json = False,
    json_is_truth: Annotated[bool, Parameter(negative="", help="as for switch")] = False,
    leave_unreadable: Annotated[bool, Parameter(negative="", help="as for switch")] = False,
) -> int:
    """Check a switch and print the steps it would take; same as switch --dry-run.

    Example: registry-backend plan 2
    """
    return switch(
        to,
        workspace=workspace,
        json=json,
        dry_run=True,
        json_is_truth=json_is_truth,
        leave_unreadable=leave_unreadable,
    )


@app.command
def verify(*, workspace: Workspace = None, json: Json = False) -> int:
    """Compare both stores of a move field by field while writers continue; exit 3 on a difference.

    Example: registry-backend verify --json
    """
    from dataclasses import asdict

    from backends.admin.move import progress_shown, show_verify
    from registry_api import load_settings, open_migration

    settings = load_settings(workspace)
    recorded = _recorded(settings)
    if recorded is None:
        with closing(_reader(settings)) as store:
            counts = store.counts()
        found = {"tasks": counts.total_tasks, "records": sum(counts.records.values())}
        found |= {"mismatches": [], "compared": False}
        return _answer(found, show_verify, as_json=json)
    with closing(open_migration(settings)) as migration, progress_shown() as progress:
        report = migration.verify(progress=progress)
    code = MISMATCH if report.mismatches else OK
    found = asdict(report) | {"compared": bool(recorded.phase)}
    return _answer(found, show_verify, as_json=json, code=code)


def _unrecorded(settings: Any) -> bool:
    """Return whether no move is recorded: then a command that only reads must write nothing."""
    return _recorded(settings) is None


def _recorded(settings: Any) -> Any:
    from registry_api.migration import PhaseFile
    from registry_api.workspace import STATE_DIR

    return PhaseFile(settings.workspace / STATE_DIR).read()


def _refuse_none(settings: Any) -> None:
    """Raise if there is no registry: a repair must not create one in a mistyped workspace."""
    from registry_api.workspace import STATE_DIR

    if settings.backend == "auto" and not (settings.workspace / STATE_DIR).exists():
        _reader(settings).close()


def _reader(settings: Any) -> Any:
    from registry_api import open_store

    return open_store(settings, read_only=True)


@app.command
def diff(task: str, *, workspace: Workspace = None, json: Json = False) -> int:
    """Compare one task in both stores of a move; exit 3 on a difference.

    Example: registry-backend diff TASK-20260104-221530-1a2b3c4d
    """
    from dataclasses import asdict

    from backends.admin.move import show_verify
    from registry_api import load_settings, open_migration

    settings = load_settings(workspace)
    if _unrecorded(settings):
        with closing(_reader(settings)) as store:
            store.load(task)
        found: list[Any] = []
    else:
        with closing(open_migration(settings)) as migration:
            found = [asdict(m) for m in migration.diff(task)]
    recorded = _recorded(settings)
    compared = recorded is not None and bool(recorded.phase)
    value = {"tasks": 1, "records": None, "mismatches": found, "compared": compared}
    return _answer(value, show_verify, as_json=json, code=MISMATCH if found else OK)


@app.command
def reconcile(
    *,
    workspace: Workspace = None,
    json: Json = False,
    dry_run: Annotated[bool, Parameter(negative="", help="only print what would be done")] = False,
) -> int:
    """Absorb foreign edits, and bring the logs and the target of a move up to date.

    A foreign edit is a change to a registry's files by a program that does not use this library.

    Example: registry-backend reconcile --dry-run
    """
    from backends.admin.move import progress_shown, show_caught_up
    from registry_api import Logged, find_capability, load_settings, open_migration, open_store
    from registry_api.workspace import has_legacy_registry

    settings = load_settings(workspace)
    _refuse_none(settings)
    found = {"healed": 0, "taken": 0, "written": 0, "dry_run": dry_run}
    if _recorded(settings) is None and not has_legacy_registry(settings.workspace):
        with closing(open_store(settings)) as store:
            logs = find_capability(store, Logged)
            if logs is not None:
                found |= logs.reconcile(dry_run=dry_run).to_dict()
    else:  # not open_store: it catches up itself, so nothing would be left to report
        with closing(open_migration(settings)) as migration, progress_shown() as shown:
            found |= migration.reconcile(dry_run=dry_run, progress=shown).to_dict()
    return _answer(found, show_caught_up, as_json=json)


@app.command
def recover(
    *,
    workspace: Workspace = None,
    json: Json = False,
    dry_run: Annotated[bool, Parameter(negative="", help="only print what would be done")] = False,
) -> int:
    """Finish interrupted switches and writes now; otherwise the next operation does.

    Example: registry-backend recover --dry-run
    """
    from backends.admin.move import show_recovered
    from registry_api import load_settings, open_migration, open_store

    settings = load_settings(workspace)
    _refuse_none(settings)
    notes: tuple[str, ...] = ()
    if _unrecorded(settings):
        with closing(open_store(settings, read_only=dry_run)) as store:
            store.counts()  # any operation finishes interrupted writes
    else:
        with closing(open_migration(settings)) as migration:
            notes = migration.recover(dry_run=dry_run)
    return _answer({"recovered": list(notes), "dry_run": dry_run}, show_recovered, as_json=json)


@app.command
def doctor(*, workspace: Workspace = None, json: Json = False) -> int:
    """List problems, each with the command that fixes it. Changes nothing.

    Exits 3 if something needs action.

    Example: registry-backend doctor --json
    """
    from backends.admin.doctor import show_doctor
    from registry_api import OpenContext, load_plugins, load_settings
    from registry_api.diagnostics import examine

    context = OpenContext(settings=load_settings(workspace), plugins=load_plugins())
    issues = [
        {"check": d.check, "what": d.issue.what, "next": d.issue.next_step or None}
        for d in examine(context)
    ]
    code = MISMATCH if any(i["next"] for i in issues) else OK
    return _answer({"issues": issues}, show_doctor, as_json=json, code=code)


@app.command
def watch(
    *,
    workspace: Workspace = None,
    json: Json = False,
    every: Annotated[float, Parameter(help="refresh interval in seconds")] = 1.0,
    count: Annotated[int, Parameter(help="refreshes until it ends; 0: until interrupted")] = 0,
) -> int:
    """Show live what the processes of a workspace do; with --json, print one interval and end.

    Shows writes and reads per second, the 99th percentile of their latency and of the wait for the
    gate (the lock that a switch takes), and how many tasks are behind in the target.

    Example: registry-backend watch --every 2
    """
    from backends.admin.watch import looks, show_looks
    from registry_api import load_settings

    if not 0.1 <= every <= 3600 or count < 0:
        raise UsageError(
            "--every is 0.1 to 3600 seconds, --count 0 or more",
            next_step="registry-backend watch --help",
        )
    found = looks(load_settings(workspace), every=every, count=1 if json else count)
    if json:
        return _answer(next(found), lambda _: None, as_json=True)
    show_looks(found)
    return OK


@app.command
def metrics(*, workspace: Workspace = None, json: Json = False) -> int:
    """Print the counters of the live processes in Prometheus text format. Changes nothing.

    Example: registry-backend metrics > /var/lib/node_exporter/registry.prom
    """
    from registry_api import load_settings
    from registry_api.diagnostics import metrics as lines

    found = {"metrics": list(lines(load_settings(workspace)))}
    return _answer(found, lambda f: _said("\n".join(f["metrics"])), as_json=json)


@app.command
def history(*, workspace: Workspace = None, json: Json = False) -> int:
    """List the switches made so far, oldest first.

    Example: registry-backend history
    """
    from backends.admin.move import show_history
    from registry_api import load_settings, open_migration

    settings = load_settings(workspace)
    found: list[dict[str, Any]] = []
    if _unrecorded(settings):
        _reader(settings).close()  # raises if there is no registry at all
    else:
        with closing(open_migration(settings)) as migration:
            found = list(migration.history())
    return _answer({"switches": found}, show_history, as_json=json)


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
    json: Json = False,
) -> int:
    """Move a live registry from phase 0 to 4, to 0 and to 4 again; exit 3 if a write was lost.

    Creates a legacy workspace with stale counters and torn files, starts writer processes and two
    legacy programs, and looks for every acknowledged write with plain json and sqlite3.

    Example: registry-backend demo --writers 8 --seconds 5
    """
    import tempfile

    from backends.admin.demo.run import LEAST, run_demo
    from backends.admin.demo.show import show_demo, warnings_kept
    from backends.admin.demo.workspace import make_workspace
    from backends.admin.move import progress_shown
    from registry_api.workspace import has_legacy_registry

    if not 0 <= seconds <= 3600 or not 1 <= writers <= 100:
        raise UsageError(
            "--seconds is 0 to 3600, --writers 1 to 100", next_step="registry-backend demo --help"
        )
    if workspace is not None and not has_legacy_registry(workspace):
        raise UsageError(
            f"{workspace} holds no registry of the legacy orchestrator",
            next_step="Give a copy of a legacy workspace, or omit --workspace",
        )
    with tempfile.TemporaryDirectory(prefix="registry-demo-") as folder:
        if workspace is None:
            workspace = Path(folder) / "workspace"
            make_workspace(workspace)
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
    return _answer(found, show_demo, as_json=json, code=code)


def _said(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


_plugins = App(name="plugins")
app.command(_plugins)


@_plugins.default
def plugins(*, json: Json = False) -> int:
    """List the plugins, their stores, and why a plugin is broken; ``new`` creates one.

    Example: registry-backend plugins
    """
    from registry_api import load_plugins

    found = [
        {
            "name": p.name,
            "distribution": p.distribution,
            "version": p.version,
            "stores": list(p.schemes),
            "broken": p.broken or None,
        }
        for p in load_plugins().loaded
    ]
    return _answer({"plugins": found}, _show_plugins, as_json=json)


@_plugins.command
def new(
    name: str,
    *,
    folder: Annotated[
        Path | None, Parameter(help="folder to create; default: registry-backend-NAME")
    ] = None,
    json: Json = False,
) -> int:
    """Create a Python distribution with a working example store, to replace with your own.

    Example: registry-backend plugins new redis
    """
    from backends.admin.new_plugin import write_plugin

    folder = folder or Path(f"registry-backend-{name}")
    found = {"written": [str(path) for path in write_plugin(name, folder)]}
    said = "\n".join([*found["written"], f"next: make -C {shlex.quote(str(folder))} test"])
    return _answer(found, lambda _: _said(said), as_json=json)


def _show_plugins(found: dict[str, Any]) -> None:
    for p in found["plugins"]:
        what = f"BROKEN: {p['broken']}" if p["broken"] else ", ".join(p["stores"])
        sys.stdout.write(f"{p['name']:<20} {p['distribution']} {p['version']}  {what}\n")


def _answer(
    found: dict[str, Any], show: Callable[[dict[str, Any]], None], *, as_json: bool, code: int = OK
) -> int:
    if as_json:
        _print_json(found)
    else:
        show(found)
    return code


_OURS = {name for name in app if not name.startswith("-")}


def run() -> None:
    """Run the command as a console script and exit with its code."""
    try:
        code = main()
        sys.stdout.flush()
    except OSError as error:
        # Standard output is full or closed: nothing more can be written to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            with suppress(OSError):
                sys.stderr.write(f"registry-backend: the output could not be written: {error}\n")
                sys.stderr.write("  next: Free disk space, or redirect the output\n")
        code = ERROR
    sys.exit(code)
