"""``registry-backend``: look at a registry and move it.

rich and the stores are imported inside the commands: a cold ``status --json`` is asked for by
scripts, and importing them would be most of its time.
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

from registry_api.border import typed
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
    Parameter(help="base directory; default: REGISTRY_WORKSPACE, or the nearest registry above"),
]
Json = Annotated[bool, Parameter(negative="", help="one JSON object on stdout, nothing else")]

app = App(
    name="registry-backend",
    help="What is true in an agent registry, and its move from one store to another.\n\n"
    "Example: registry-backend --workspace .agent-workspace",
    version=lambda: version("registry-backend"),
    version_flags=["--version"],
)


def main(tokens: list[str] | None = None) -> int:
    """Run the command; returns the exit code.

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
    """Let every terminal show what it can: signs that its encoding lacks become question marks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    columns = os.environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdigit() and int(columns) < _NARROWEST:
        del os.environ["COLUMNS"]  # rich prints nothing into no columns


def _refused(error: RegistryError, tokens: list[str]) -> int:
    error = typed(error) or error
    next_step = error.next_step
    if isinstance(error, NotPermitted):
        owner = shlex.quote(str(error.fields.get("owner", "its owner")))
        next_step = f"sudo -u {owner} registry-backend {shlex.join(tokens)}"
    _report_error(error.code, error.message, next_step, as_json="--json" in tokens)
    return next((code for kind, code in _EXIT if isinstance(error, kind)), ERROR)


def _wants_more(tokens: list[str]) -> bool:
    """Whether a command may be a plugin's; loading them takes its time."""
    return "--help" in tokens or any(t not in app for t in tokens[_command_at(tokens) :][:1])


def _add_commands() -> None:
    from registry_api.plugins import load_plugins

    def register(name: str, command: Callable[..., int]) -> None:
        if name in _OURS:
            log.warning("a plugin's command %s is left out: there is one of that name", name)
        elif name not in app:
            app.command(command, name=name)

    load_plugins().manager.hook.registry_register_commands(register=register)


def _command_at(tokens: list[str]) -> int:
    at = 0
    while at < len(tokens) and tokens[at].startswith("--"):
        at += 2 if tokens[at] == "--workspace" else 1
    return at


def _command_first(tokens: list[str]) -> list[str]:
    """Move options before the command behind it: it is the command that takes them."""
    at = _command_at(tokens)
    if not 0 < at < len(tokens) or tokens[at] not in app:
        return tokens
    return [tokens[at], *tokens[:at], *tokens[at + 1 :]]


def _misunderstood(error: cyclopts.CycloptsError) -> str:
    if isinstance(error, cyclopts.UnusedCliTokensError) and error.unused_tokens:
        found = error.unused_tokens[0]
        return f"{found!r} is one too many" if error.command_chain else f"no command {found!r}"
    return str(error)


def _next_step_for(error: OSError) -> str:
    if error.errno == errno.EROFS:
        return "Mount it for writing"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return "Free space, try again"
    return "Check that file and its folder" if error.filename else "Try again"


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
    except TypeError:  # a lone surrogate, e.g. from an argument that is no UTF-8
        import json

        text = json.dumps({"version": 1, **value}, default=str).encode()
    try:
        shown = text.decode()
        shown.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # escaped, since a question mark would be another value
        import json

        shown = json.dumps(orjson.loads(text))
    sys.stdout.write(shown + "\n")


@app.default
def summary(*, workspace: Workspace = None, json: Json = False) -> int:
    """Show what is true here: phase, true counts beside the claimed ones, who is silent."""
    return status(workspace=workspace, json=json)


@app.command
def status(*, workspace: Workspace = None, json: Json = False) -> int:
    """Show phase, true counts beside the claimed ones, and who is silent.

    Writes nothing where no move is recorded; else it takes in what older programs wrote.

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
        bool, Parameter(negative="", help="only check and say what would be")
    ] = False,
    json_is_truth: Annotated[
        bool, Parameter(negative="", help="although the legacy system has a database of its own")
    ] = False,
    leave_unreadable: Annotated[
        bool, Parameter(negative="", help="although documents cannot be read: leave them behind")
    ] = False,
    force: Annotated[
        bool, Parameter(negative="", help="although late writes or open documents forbid it")
    ] = False,
    reason: Annotated[str | None, Parameter(help="why --force; recorded")] = None,
    guard: Annotated[
        str | None, Parameter(help="watch for so long afterwards, and step back if it fails: 10m")
    ] = None,
    timeout: Annotated[
        float | None,
        Parameter(help="seconds to wait for the gate and for locks; else 5, more on a slow host"),
    ] = None,
) -> int:
    """Move to another migration phase: 0 to 4, next, back, a name; without one: REGISTRY_PHASE.

    Each step fills and verifies the target beside the writers, then holds them off for the moment
    in which the phase changes. Nothing is changed where a check fails. With --guard it steps back
    by itself when errors, differences or waits appear, and exits 3.

    Example: registry-backend switch next --guard 10m
    """
    import getpass
    from dataclasses import asdict, replace

    from backends.admin.guard import Guard, seconds_of
    from backends.admin.move import phase_named, progress_shown, show_switch
    from registry_api import load_settings, open_migration
    from registry_api.control import PhaseRecord

    if timeout is not None and not 0 < timeout <= 600:  # NaN is no time either
        raise UsageError(
            f"--timeout {timeout:g} is not more than 0 and at most 600 seconds",
            next_step="registry-backend switch --help",
        )
    if force != (reason is not None):
        raise UsageError("--force and --reason TEXT go together", next_step="Say why")
    watched = None if guard is None else seconds_of(guard)
    settings, code = load_settings(workspace), OK
    if to is None:
        if settings.phase is None:
            raise UsageError(
                "no phase is named, and REGISTRY_PHASE is not set",
                next_step="registry-backend switch next, or set REGISTRY_PHASE",
            )
        to = str(settings.phase)
    with closing(open_migration(settings, read_only=dry_run)) as migration:
        # Not from its status, which counts records and waits for every document that is locked.
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
        return "unknown"  # a container without an entry for its user


@app.command
def plan(
    to: str,
    *,
    workspace: Workspace = None,
    json: Json = False,
    json_is_truth: Annotated[bool, Parameter(negative="", help="as for switch")] = False,
    leave_unreadable: Annotated[bool, Parameter(negative="", help="as for switch")] = False,
) -> int:
    """Check a switch and say which steps it would take; the same as switch --dry-run.

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
    """Compare both stores of a move field by field, beside the writers; exit 3 on a difference.

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
    """Whether no move is recorded: then looking must leave no trace."""
    return _recorded(settings) is None


def _recorded(settings: Any) -> Any:
    from registry_api.control import FileControl
    from registry_api.opening import STATE_DIR

    return FileControl(settings.workspace / STATE_DIR).read()


def _refuse_none(settings: Any) -> None:
    """Raise where nothing is yet: what mends a registry does not start one in a mistyped folder."""
    from registry_api.opening import STATE_DIR

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
    dry_run: Annotated[bool, Parameter(negative="", help="only say what would be done")] = False,
) -> int:
    """Take in what other programs wrote, and bring the logs and the target of a move up to date.

    Example: registry-backend reconcile --dry-run
    """
    from backends.admin.move import progress_shown, show_caught_up
    from registry_api import Logged, find_capability, load_settings, open_migration, open_store
    from registry_api.opening import has_legacy_registry

    settings = load_settings(workspace)
    _refuse_none(settings)
    found = {"healed": 0, "taken": 0, "written": 0, "dry_run": dry_run}
    if _recorded(settings) is None and not has_legacy_registry(settings.workspace):
        with closing(open_store(settings)) as store:
            logs = find_capability(store, Logged)
            if logs is not None:
                found |= logs.reconcile(dry_run=dry_run).to_dict()
    else:  # not by open_store, which heals in passing
        with closing(open_migration(settings)) as migration, progress_shown() as shown:
            found |= migration.reconcile(dry_run=dry_run, progress=shown).to_dict()
    return _answer(found, show_caught_up, as_json=json)


@app.command
def recover(
    *,
    workspace: Workspace = None,
    json: Json = False,
    dry_run: Annotated[bool, Parameter(negative="", help="only say what would be done")] = False,
) -> int:
    """Finish what a switch or a writer that died left behind; every operation does so by itself.

    Example: registry-backend recover --dry-run
    """
    from backends.admin.move import show_recovered
    from registry_api import load_settings, open_migration, open_store

    settings = load_settings(workspace)
    _refuse_none(settings)
    notes: tuple[str, ...] = ()
    if _unrecorded(settings):
        with closing(open_store(settings, read_only=dry_run)) as store:
            store.counts()  # settles what there is
    else:
        with closing(open_migration(settings)) as migration:
            notes = migration.recover(dry_run=dry_run)
    return _answer({"recovered": list(notes), "dry_run": dry_run}, show_recovered, as_json=json)


@app.command
def doctor(*, workspace: Workspace = None, json: Json = False) -> int:
    """Look for what is not as it should be, and say what mends it; mends nothing itself.

    Exit 3 when something needs action.

    Example: registry-backend doctor --json
    """
    from backends.admin.doctor import show_doctor
    from registry_api import OpenContext, load_plugins, load_settings
    from registry_api.doctor import examine

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
    every: Annotated[float, Parameter(help="seconds between two looks")] = 1.0,
    count: Annotated[int, Parameter(help="looks until it ends; 0: until interrupted")] = 0,
) -> int:
    """Show live what the processes of a workspace do; with --json one look, after one interval.

    Writes and reads a second, their 99th percentile, the wait at the gate, what lags.

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
    """Print what the live processes count, in Prometheus's text format; changes nothing.

    Example: registry-backend metrics > /var/lib/node_exporter/registry.prom
    """
    from registry_api import load_settings
    from registry_api.metrics import metrics as lines

    found = {"metrics": list(lines(load_settings(workspace)))}
    return _answer(found, lambda f: _said("\n".join(f["metrics"])), as_json=json)


@app.command
def history(*, workspace: Workspace = None, json: Json = False) -> int:
    """List the switches made, oldest first.

    Example: registry-backend history
    """
    from backends.admin.move import show_history
    from registry_api import load_settings, open_migration

    settings = load_settings(workspace)
    found: list[dict[str, Any]] = []
    if _unrecorded(settings):
        _reader(settings).close()  # says so where there is no registry at all
    else:
        with closing(open_migration(settings)) as migration:
            found = list(migration.history())
    return _answer({"switches": found}, show_history, as_json=json)


@app.command
def demo(
    *,
    workspace: Annotated[
        Path | None, Parameter(help="a copy of a legacy workspace; default: one is made")
    ] = None,
    writers: Annotated[int, Parameter(help="agent processes")] = 8,
    seconds: Annotated[float, Parameter(help="load before each switch")] = 2.0,
    sabotage: Annotated[
        bool, Parameter(negative="", help="drop one write in 500 on purpose: must be found out")
    ] = False,
    json: Json = False,
) -> int:
    """Move a live registry from phase 0 to 4, back and there again; exit 3 if a write was lost.

    Makes a legacy workspace with stale counters and torn pieces, starts writer processes and two
    un-migrated programs, and checks every acknowledged write with plain json and sqlite3.

    Example: registry-backend demo --writers 8 --seconds 5
    """
    import tempfile

    from backends.admin.demo.run import LEAST, run_demo
    from backends.admin.demo.show import show_demo, warnings_kept
    from backends.admin.demo.workspace import make_workspace
    from backends.admin.move import progress_shown
    from registry_api.opening import has_legacy_registry

    if not 0 <= seconds <= 3600 or not 1 <= writers <= 100:
        raise UsageError(
            "--seconds is 0 to 3600, --writers 1 to 100", next_step="registry-backend demo --help"
        )
    if workspace is not None and not has_legacy_registry(workspace):
        raise UsageError(
            f"{workspace} holds no registry of the older orchestrator",
            next_step="Name a copy of one, or leave --workspace out",
        )
    with tempfile.TemporaryDirectory(prefix="registry-demo-") as folder:
        if workspace is None:
            workspace = Path(folder) / "workspace"
            make_workspace(workspace)
        if not json:
            _said(f"Moving {workspace} under load of {writers} writers …")
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
    """List the plugins, the stores they bring, and why one is broken; ``new`` writes one.

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
        Path | None, Parameter(help="where to write it; default: registry-backend-NAME")
    ] = None,
    json: Json = False,
) -> int:
    """Write a distribution with a store that works, for its author to fill in.

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
    """The console script."""
    try:
        code = main()
        sys.stdout.flush()
    except OSError as error:
        # Where the answer goes is full or was closed: nothing more can be said there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            with suppress(OSError):
                sys.stderr.write(f"registry-backend: the answer was not written: {error}\n")
                sys.stderr.write("  next: Free space, or let it go elsewhere\n")
        code = ERROR
    sys.exit(code)
