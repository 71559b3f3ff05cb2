"""Names of version 0.1 that are accepted until 0.3: each use warns and names the new one."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["accept_old_modules", "new_option", "renamed"]

_NAMES = {
    "FileControl": "PhaseFile",
    "Movable": "MigrationSource",
    "Straggler": "LateWrite",
    "accepted": "validate_changeset",
    "commit_surely": "commit_with_retry",
}
_OPTIONS = {"--anyway": "--force"}
_MODULES = {  # below registry_api; names of a module that was divided are looked for in both
    "aio": ["client.async_store"],
    "changeset": ["records.changeset"],
    "codec": ["records.codec"],
    "control": ["migration.phase_file", "migration.phase"],
    "deadline": ["workspace.lock_timeout"],
    "flock": ["workspace.file_lock"],
    "follow": ["client.subscriptions"],
    "health": ["plugins.health_checks"],
    "hooks": ["plugins.hooks"],
    "jsontext": ["records.json_text"],
    "keyspace": ["authoring.key_layout"],
    "keyvalue": ["authoring.key_value_store"],
    "launching": ["plugins.launchers"],
    "models": ["records.models"],
    "query": ["records.query"],
    "retention": ["authoring.retention"],
    "select": ["authoring.in_memory_query"],
    "silence": ["client.liveness", "client.paging"],
    "snapshot": ["records.snapshot"],
    "state": ["records.task_state"],
    "status": ["records.status"],
    "store": ["store", "capabilities"],
    "transact": ["client.transactions"],
    "wrapper": ["wrappers.base", "capabilities"],
}
_WARNING = "{} is now {}; the old name goes with version 0.3"


def renamed(module: str, name: str) -> object:
    """Return what a module's old name stands for; called by a module's ``__getattr__``.

    Raises AttributeError if the name is neither an old one nor one that moved with the module.
    """
    new = _NAMES.get(name, name)
    short = module.removeprefix("registry_api.")
    for home in [module, *(f"registry_api.{m}" for m in _MODULES.get(short, []))]:
        found = vars(sys.modules.get(home) or import_module(home)).get(new)
        if found is not None and not name.startswith("_"):
            old = _WARNING.format(f"{module}.{name}", f"{home}.{new}")
            warnings.warn(old, DeprecationWarning, stacklevel=3)
            return found
    raise AttributeError(f"module {module!r} has no attribute {name!r}", name=name)


class _OldModules(MetaPathFinder, Loader):
    """Finds the modules that moved: an old one holds nothing and asks ``renamed`` for each name."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.rpartition(".")
        if package != "registry_api" or name not in _MODULES:
            return None
        return ModuleSpec(fullname, self)

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        setattr(module, "__getattr__", lambda attribute: renamed(name, attribute))  # noqa: B010  (mypy)


def accept_old_modules() -> None:
    """Let old modules of ``registry_api`` be imported; once a process."""
    if not any(isinstance(finder, _OldModules) for finder in sys.meta_path):
        sys.meta_path.append(_OldModules())


def new_option(token: str) -> str:
    """Return a command's option under its present name; says on stderr if it was an old one."""
    name, separator, value = token.partition("=")
    if name not in _OPTIONS:
        return token
    new = _OPTIONS[name]
    sys.stderr.write(f"warning: {_WARNING.format(name, new)}\n")
    return new + separator + value
