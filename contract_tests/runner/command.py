"""``registry-backend contract``: run the contract tests on a store and report its level."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from contract_tests.runner.bound import BOUND
from registry_api.errors import UsageError
from registry_api.store import Capability

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["contract"]

_KEPT, _BROKEN = 0, 3
_MISSING = {
    Capability.PERSISTENT: "its data ends with the process",
    Capability.MULTI_PROCESS: "only one process may open it",
    Capability.MOVE_TARGET: "a registry cannot move to it (registry_api.MoveTarget)",
    Capability.MIGRATION_SOURCE: "a registry cannot move from it (registry_api.MigrationSource; "
    "a KeyValueStore needs archives=, a folder, and persistent)",
}
_COLUMNS = ("passed", "failed", "skipped", "seconds")


def contract(
    name: str,
    *,
    json: Annotated[
        bool, Parameter(negative="", help="one JSON object on stdout, nothing else")
    ] = False,
    level: Annotated[
        Literal["core", "full"], Parameter(help="core: without tests that need a capability")
    ] = "full",
    first: Annotated[bool, Parameter(negative="", help="stop at the first failure")] = False,
    seed: Annotated[
        int | None, Parameter(help="seed of the random histories; default: a new one")
    ] = None,
    harness: Annotated[
        str | None, Parameter(help="module:Class that sets up the store, e.g. its server")
    ] = None,
    pair: Annotated[
        str | None, Parameter(help="source and target of dual's move, e.g. sqlite,yours")
    ] = None,
    bound: Annotated[
        float, Parameter(help="time limit of each test in seconds; a test that exceeds it fails")
    ] = BOUND,
    report: Annotated[
        Path | None, Parameter(help="file for the report as JSON; updated after each test")
    ] = None,
) -> int:
    """Run the contract tests on a store, named as in REGISTRY_BACKEND.

    dual stands for the move json -> sqlite, or that of --pair, in each of the phases 0 to 4. Exits
    with 3 if the store does not reach the level. Works in a temporary folder.

    Example: registry-backend contract sqlite --json
    """
    try:
        from contract_tests.runner.report import check  # noqa: PLC0415  (imported when needed: slow)
    except ImportError as error:
        raise UsageError(
            f"the contract tests need {error.name}",
            next_step="pip install 'registry-backend[contract]'",
        ) from error
    import orjson  # noqa: PLC0415  (only needed to run the tests)
    from rich.console import Console  # noqa: PLC0415  (imported when needed: slow)
    from rich.progress import Progress  # noqa: PLC0415  (imported when needed: slow)

    if not 1 <= bound <= 86400:
        raise UsageError("--bound takes 1 to 86400 seconds", next_step=f"Leave it out: {BOUND:g}")

    def write(found: dict[str, Any]) -> None:
        if report is not None:
            text = orjson.dumps({"version": 1, **found}, option=orjson.OPT_INDENT_2)
            aside = report.with_name(f"{report.name}.new")
            aside.write_bytes(text + b"\n")
            aside.rename(report)

    def answer(found: dict[str, Any]) -> int:
        write(found)
        if json:
            sys.stdout.write(orjson.dumps({"version": 1, **found}).decode() + "\n")
        else:
            _show(found, Console(highlight=False, emoji=False))
        return _KEPT if found["level"] in {level, "full"} else _BROKEN

    def partly(found: dict[str, Any], last: bool) -> None:
        if not last:
            write(found)
            return
        sys.stdout = stdout  # during a test pytest captures the standard output
        code = answer(found)
        stdout.flush()
        os._exit(code)  # a test that waits in native code cannot be ended otherwise

    with (
        os.fdopen(os.dup(1), "w") as stdout,
        Progress(console=Console(stderr=True), transient=True) as bar,
    ):
        shown = bar.add_task("collecting", total=None)
        found = check(
            name,
            core_only=level == "core",
            first=first,
            seed=seed,
            harness=harness,
            pair=pair,
            bound=bound,
            partly=partly,
            progress=lambda what, n, of: bar.update(shown, description=what, completed=n, total=of),
        )
    return answer(found)


def _show(report: dict[str, Any], console: Console) -> None:
    from rich.table import Table  # noqa: PLC0415  (imported when needed: slow)

    for store in report["stores"]:
        table = Table(
            title=f"{store['name']}: {', '.join(store['capabilities']) or 'no capability'}"
        )
        table.add_column("group")
        for column in _COLUMNS:
            table.add_column(column, justify="right")
        for group, found in store["groups"].items():
            table.add_row(group, *(str(found[c]) for c in _COLUMNS))
        console.print(table)
    for failure in report["failed"]:
        _show_failure(failure, console)
    reasons = sorted({s["reason"].removeprefix("Skipped: ") for s in report["skipped"]})
    for reason in reasons:
        console.print(f"skipped: {reason}")
    for store in report["stores"]:
        figures = ", ".join(f"{n:g} {what}" for what, n in store["speed"].items())
        if figures:
            console.print(f"{store['name']}: {figures}")
    for store in report["stores"]:
        for capability, meaning in _MISSING.items():
            if capability not in store["capabilities"]:
                console.print(f"{store['name']} does not declare {capability}: {meaning}")
    for warning in report["warnings"]:
        console.print(f"warning: {warning}", style="yellow", markup=False)
    console.print(
        f"level [bold]{report['level']}[/bold] of contract {report['contract']}, suite "
        f"{report['suite']}, Python {report['python']}, seed {report['seed']}, "
        f"{report['seconds']} s"
    )


def _show_failure(failure: dict[str, Any], console: Console) -> None:
    console.print(f"\n{failure['test']}", style="bold", markup=False)
    console.print(f"{failure['semantics']}\n{failure['error']}", markup=False)
    if failure["processes"]:
        console.print(f"errors of other processes:\n{failure['processes']}", markup=False)
    if failure["history"]:
        console.print(f"last calls to the store:\n{failure['history']}", markup=False)
