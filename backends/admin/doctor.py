"""Every check of every plugin, run one by one: a check that fails is an issue, not the end.

Where a move is recorded its status is asked for, which takes in what older programs wrote, as every
look at a live registry does; elsewhere nothing is written.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from importlib.metadata import packages_distributions
from typing import Any

from registry_api import Kind, RecordQuery, TaskQuery, all_records, all_tasks, open_store
from registry_api.errors import RegistryError
from registry_api.health import HealthCheck, Issue
from registry_api.opening import STATE_DIR, OpenContext
from registry_api.settings import PREFIX, Settings

__all__ = ["examine", "show_doctor"]

_DISTRIBUTION = "registry-backend"
_NAMES = ("registry_api", "backends", "orchestrator", "dashboard", "contract_tests")


def examine(context: OpenContext) -> list[dict[str, Any]]:
    """Run all checks; returns ``{check, what, next}`` a piece, those to act on first."""
    checks: dict[str, HealthCheck] = {
        "names": _names,
        "plugins": _plugins,
        "variables": _variables,
        "modes": _modes,
        "counts": _counts,
    }
    context.plugins.manager.hook.registry_register_health_checks(register=checks.setdefault)
    context = replace(context, read_only=True)
    found = [(name, issue) for name, check in checks.items() for issue in _run(check, context)]
    found.sort(key=lambda pair: not pair[1].next_step)
    return [{"check": n, "what": i.what, "next": i.next_step or None} for n, i in found]


def _run(check: HealthCheck, context: OpenContext) -> list[Issue]:
    try:
        return list(check(context))
    except RegistryError as error:
        return [Issue(what=error.message, next_step=error.next_step or "See the message")]
    except Exception as error:  # noqa: BLE001  (a plugin's check may fail in any way)
        what = f"the check failed: {type(error).__name__}: {error}"
        return [Issue(what=what, next_step="Report it to the plugin's author")]


def _names(_: OpenContext) -> Iterator[Issue]:
    """The five package names are common words: another distribution may have taken one."""
    owners = packages_distributions()
    for name in _NAMES:
        others = sorted(set(owners.get(name, [])) - {_DISTRIBUTION})
        if others:
            yield Issue(
                what=f"the package {name} also comes with {', '.join(others)}",
                next_step=f"Install {_DISTRIBUTION} in an environment of its own",
            )


def _plugins(context: OpenContext) -> Iterator[Issue]:
    for plugin in context.plugins.loaded:
        if plugin.broken:
            yield Issue(
                what=f"the plugin {plugin.name} of {plugin.distribution} {plugin.version} is "
                f"broken: {plugin.broken}",
                next_step=f"Repair or uninstall {plugin.distribution}",
            )


def _variables(_: OpenContext) -> Iterator[Issue]:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in known:
            yield Issue(what=f"the variable {name} is none of ours; a plugin may read it")


def _modes(context: OpenContext) -> Iterator[Issue]:
    """State is for the owner alone: prompts and paths are in it."""
    folder = context.workspace / STATE_DIR
    if not folder.is_dir():
        return
    for path in (folder, *sorted(folder.rglob("*"))):
        try:
            mode = path.lstat().st_mode & 0o777
        except FileNotFoundError:
            continue  # a process that has just ended
        if mode & 0o077 and not path.is_symlink():
            right = "700" if path.is_dir() else "600"
            yield Issue(what=f"{path} has mode {mode:o}", next_step=f"chmod {right} {path}")


def _counts(context: OpenContext) -> Iterator[Issue]:
    """What a store keeps for speed must be what its records say."""
    with closing(_opened(context)) as store:
        kept = store.counts()
        tasks = Counter(t.status for t in all_tasks(store, TaskQuery()))
        if dict(kept.tasks) != dict(tasks):
            yield _wrong("tasks by status", dict(kept.tasks), dict(tasks))
        for kind in Kind:
            if kind is not Kind.TASK:
                n = sum(1 for _ in all_records(store, kind, RecordQuery()))
                if n != kept.records.get(kind, 0):
                    yield _wrong(f"{kind} records", kept.records.get(kind, 0), n)


def _opened(context: OpenContext) -> Any:
    return open_store(context.settings, plugins=context.plugins, read_only=True)


def _wrong(what: str, kept: object, found: object) -> Issue:
    return Issue(
        what=f"{what}: the store keeps {kept}, its records are {found}",
        next_step="registry-backend verify; writers may have moved on meanwhile: run doctor again",
    )


def show_doctor(found: dict[str, Any]) -> None:
    """Print the issues for people."""
    from rich.console import Console  # noqa: PLC0415  (0.1 s)
    from rich.text import Text  # noqa: PLC0415

    console = Console(highlight=False, emoji=False)
    todo = [i for i in found["issues"] if i["next"]]
    for issue in found["issues"]:
        mark = ("! ", "bold red") if issue["next"] else ("· ", "dim")
        console.print(Text.assemble(mark, f"{issue['check']}: {issue['what']}"), soft_wrap=True)
        if issue["next"]:
            console.print(Text(f"    next: {issue['next']}"), soft_wrap=True)
    if not todo:
        console.print("Nothing needs action.", style="bold")
