"""Run every health check of every plugin; a check that fails is reported as an issue.

If a move is recorded, its status is read, and that absorbs foreign edits, as every read of a live
registry does. Otherwise nothing is written.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from importlib.metadata import packages_distributions
from pathlib import Path

from registry_api.client.liveness import is_ahead
from registry_api.client.paging import all_records, all_tasks
from registry_api.errors import RegistryError
from registry_api.opening.stores import open_store
from registry_api.plugins.context import OpenContext
from registry_api.plugins.health_checks import HealthCheck, Issue
from registry_api.records.models import Agent, Kind
from registry_api.records.query import RecordQuery, TaskQuery
from registry_api.settings import PREFIX, Settings
from registry_api.store import RegistryStore
from registry_api.typed_errors import typed, typed_errors
from registry_api.workspace.instance import copied_from
from registry_api.workspace.paths import STATE_DIR, workspaces_nearby

__all__ = ["RECOUNT", "Diagnosis", "examine"]

_DISTRIBUTION = "registry-backend"

_NAMES = ("registry_api", "backends", "orchestrator", "dashboard", "contract_tests")

RECOUNT = "counts"  # the check that reads every record


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """An issue and the check that found it."""

    check: str
    issue: Issue

    def to_dict(self) -> dict[str, str | None]:
        """Return it under the keys of ``doctor --json``."""
        return {
            "check": self.check,
            "what": self.issue.what,
            "next": self.issue.next_step or None,
        }


def examine(context: OpenContext, *, without: frozenset[str] = frozenset()) -> list[Diagnosis]:
    """Run all checks except ``without``; returns their issues, those with a next step first."""
    checks: dict[str, HealthCheck] = {
        "names": _names,
        "paths": _paths,
        "plugins": _plugins,
        "variables": _variables,
        "modes": _modes,
        "instance": _instance,
        "clocks": _clocks,
        "workspaces": _workspaces,
        RECOUNT: _counts,
    }
    context.plugins.manager.hook.registry_register_health_checks(register=checks.setdefault)
    context = replace(context, read_only=True)
    with typed_errors(), suppress(FileNotFoundError):
        os.listdir(context.workspace / STATE_DIR)  # noqa: PTH208  (raises if this user may not)
    found = [
        Diagnosis(check=name, issue=issue)
        for name, check in checks.items()
        if name not in without
        for issue in _run(check, context)
    ]
    return sorted(found, key=lambda d: not d.issue.next_step)


def _run(check: HealthCheck, context: OpenContext) -> list[Issue]:
    try:
        return list(check(context))
    except (RegistryError, OSError) as error:
        found = typed(error)
        assert found is not None  # it translates both kinds
        return [
            Issue(
                what=found.message,
                next_step=found.next_step or "Fix the cause named in the message",
            )
        ]
    except Exception as error:  # noqa: BLE001  (a plugin's check may fail in any way)
        what = f"the check failed: {type(error).__name__}: {error}"
        return [Issue(what=what, next_step="Report it to the plugin's author")]


def _workspaces(context: OpenContext) -> Iterator[Issue]:
    """Other registries that somebody may take for this one; they are never merged."""
    try:
        here, home = Path.cwd(), Path.home()
    except (OSError, RuntimeError):  # the current directory was removed; this user has no home
        return
    for place in workspaces_nearby(context.workspace, here=here, home=home):
        yield Issue(what=f"another registry is in {place}; this one is {context.workspace}")


def _names(_: OpenContext) -> Iterator[Issue]:
    """The five package names are common words: another distribution may use one."""
    owners = packages_distributions()
    for name in _NAMES:
        others = sorted(set(owners.get(name, [])) - {_DISTRIBUTION})
        if others:
            yield Issue(
                what=f"the package {name} also comes with {', '.join(others)}",
                next_step=f"Install {_DISTRIBUTION} in an environment of its own",
            )


def _paths(_: OpenContext) -> Iterator[Issue]:
    """Another program may have packages of these names, as the legacy orchestrator has."""
    for name in _NAMES:
        ours = Path(__file__).resolve().parents[2] / name
        for folder in dict.fromkeys(Path(p or ".").resolve() for p in sys.path):
            there = folder / name
            if there.resolve() != ours and any(there.glob("*.py")):
                yield Issue(
                    what=f"the package {name} is also in {folder}: a process that has this "
                    "folder on its path imports whichever comes first",
                    next_step="Remove the folder from PYTHONPATH; docs/operating.md says how to "
                    "use both in one interpreter",
                )


def _plugins(context: OpenContext) -> Iterator[Issue]:
    for plugin in context.plugins.loaded:
        if plugin.broken:
            yield Issue(
                what=f"the plugin {plugin.name} of {plugin.distribution} {plugin.version} is "
                f"broken: {plugin.broken}",
                next_step=f"Fix or uninstall {plugin.distribution}",
            )


def _variables(_: OpenContext) -> Iterator[Issue]:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in known:
            yield Issue(
                what=f"the variable {name} is not a registry-backend setting; a plugin may read it"
            )


def _modes(context: OpenContext) -> Iterator[Issue]:
    """State files must be for their owner only: they hold prompts and paths."""
    folder = context.workspace / STATE_DIR
    if not folder.is_dir():
        return
    for path in (folder, *sorted(folder.rglob("*"))):
        try:
            mode = path.lstat().st_mode & 0o777
        except FileNotFoundError:
            continue  # of a process that has just ended
        if mode & 0o077 and not path.is_symlink():
            right = "700" if path.is_dir() else "600"
            yield Issue(what=f"{path} has mode {mode:o}", next_step=f"chmod {right} {path}")


def _instance(context: OpenContext) -> Iterator[Issue]:
    """A copied workspace is a separate registry: its records of processes do not apply to it."""
    folder = context.workspace / STATE_DIR
    original = copied_from(folder)
    if original is not None:
        yield Issue(
            what=f"this registry is a copy of the one in {original}, or was moved from another "
            "disk or machine: agents that were started there are left alone and never stopped",
            next_step=f"To use it as a separate registry: rm {folder / 'instance.json'}",
        )


def _clocks(context: OpenContext) -> Iterator[Issue]:
    """Timestamps in the future are ignored: their agents would count as alive until then."""
    now = context.now()
    with closing(_opened(context)) as store:
        for agent in all_records(store, Kind.AGENT, RecordQuery(active=True)):
            assert isinstance(agent, Agent)
            if is_ahead(agent, now):
                stamp = agent.last_update or agent.started_at
                yield Issue(
                    what=f"agent {agent.agent_id} of task {agent.task_id}: its newest time, "
                    f"{stamp:%Y-%m-%d %H:%M} UTC, is in the future and is ignored",
                    next_step="Correct the clock of the machine that wrote it; if the agent is "
                    "dead, end it",
                )


def _counts(context: OpenContext) -> Iterator[Issue]:
    """Compare the stored counts with a recount of the records."""
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


def _opened(context: OpenContext) -> RegistryStore:
    return open_store(context.settings, plugins=context.plugins, read_only=True)


def _wrong(what: str, kept: object, found: object) -> Issue:
    return Issue(
        what=f"{what}: stored count {kept}, actual count {found}",
        next_step="Run doctor again, since writers may be active; if it persists: "
        "registry-backend verify",
    )
