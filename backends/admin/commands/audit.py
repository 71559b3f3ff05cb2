"""``registry-backend audit``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from backends.admin.app import MISMATCH, OK, Json, app, print_json
from registry_api.errors import UsageError

_Names = Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=False)]


@app.command
def audit(
    source: Annotated[Path, Parameter(help="a folder with Python files, or one file")],
    /,
    *,
    json: Json = False,
    html: Annotated[bool, Parameter(negative="", help="print a page of HTML")] = False,
    sites: Annotated[bool, Parameter(negative="", help="list each place, a line each")] = False,
    fail_on: Annotated[
        Literal["writes", "any"] | None,
        Parameter(help="exit 3 if the code, tests apart, has places that write, or any"),
    ] = None,
    file: Annotated[_Names, Parameter(help="the name of a registry's file; may be repeated")] = (
        "AGENT_REGISTRY.json",
        "GLOBAL_REGISTRY.json",
    ),
    lock: Annotated[_Names, Parameter(help="the class that locks a registry; may be repeated")] = (
        "LockedRegistryFile",
    ),
    reader: Annotated[
        _Names, Parameter(help="a function that reads a registry under a lock; may be repeated")
    ] = ("read_registry_with_lock",),
    writer: Annotated[
        _Names, Parameter(help="a function that writes a registry under a lock; may be repeated")
    ] = ("write_registry_with_lock",),
    finder: Annotated[
        _Names, Parameter(help="a function that finds a task's folder; may be repeated")
    ] = ("find_task_workspace",),
) -> int:
    """List every place in a program's Python files that reads, writes or changes a registry.

    Nothing is executed or changed. A registry is followed through variables, functions and files,
    from its file's name on. The default names are those of the legacy orchestrator.

    Example: registry-backend audit ~/orchestrator --fail-on writes
    """
    from backends.admin.audit.function import Names
    from backends.admin.audit.project import audit as audited
    from backends.admin.audit.report import html_page, show_audit
    from backends.admin.audit.sites import Access

    if not source.exists():
        raise UsageError(f"{source} does not exist", next_step="Name a folder or a Python file")
    names = Names(files=file, locked=lock, reads=reader, writes=writer, finds=finder)
    found = audited(source, names)
    if fail_on and not found.files:  # or a gate with a mistyped folder would pass
        raise UsageError(f"{source} has no Python file", next_step="Name the folder of the code")
    if json:
        print_json(found.to_dict())
    elif html:
        sys.stdout.write(html_page(found))
    else:
        show_audit(found, sites=sites)
    wanted = {"writes": {Access.WRITE}, "any": set(Access) - {Access.NONE}}.get(
        fail_on or "", set()
    )
    # A file that cannot be read may hold anything.
    failed = any(found.accesses(access) for access in wanted) or (fail_on and found.unreadable)
    return MISMATCH if failed else OK
