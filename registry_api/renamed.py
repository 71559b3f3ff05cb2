"""Names of version 0.1 that are accepted until 0.3: each use warns and names the new one.

A feature of the running program only: type checkers know the new names alone.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["accept_old_modules", "new_options", "renamed"]

_NAMES = {
    "FileControl": "PhaseFile",
    "Movable": "MigrationSource",
    "Straggler": "LateWrite",
    "accepted": "validate_changeset",
    "commit_surely": "commit_with_retry",
}
_OPTIONS = {"--anyway": "--force"}
_MODULES = {  # below registry_api; a name is looked for in each of the modules, in this order
    "aio": ["client.async_store"],
    "border": ["wrappers.border", "typed_errors"],
    "changeset": ["records.changeset"],
    "codec": ["records.codec"],
    "console": ["workspace.server_cli"],
    "control": ["migration.phase_file", "migration.phase"],
    "deadline": ["workspace.lock_timeout"],
    "doctor": ["diagnostics.doctor"],
    "durable": ["workspace.durable_files"],
    "flock": ["workspace.file_lock"],
    "follow": ["client.subscriptions"],
    "gate": ["migration.gate", "wrappers.gated"],
    "health": ["plugins.health_checks"],
    "hooks": ["plugins.hooks"],
    "inside": ["workspace.safe_paths"],
    "instance": ["workspace.instance"],
    "jsontext": ["records.json_text"],
    "keyspace": ["authoring.key_layout"],
    "keyvalue": ["authoring.key_value_store"],
    "launching": ["plugins.launchers"],
    "location": ["workspace.store_location"],
    "metered": ["wrappers.metrics"],
    "metrics": ["diagnostics.prometheus"],
    "models": ["records.models"],
    "observed": ["wrappers.events"],
    "opening": ["opening", "plugins.context", "workspace.paths"],
    "ownership": ["workspace.ownership"],
    "procs": ["workspace.processes"],
    "query": ["records.query"],
    "retention": ["authoring.retention"],
    "select": ["authoring.in_memory_query"],
    "silence": ["client.liveness", "client.paging"],
    "snapshot": ["records.snapshot"],
    "state": ["records.task_state", "records.reported_status"],
    "status": ["records.status"],
    "store": ["store", "capabilities"],
    "switch_journal": ["migration.switch_journal"],
    "token": ["workspace.tokens"],
    "transact": ["client.transactions"],
    "wrapper": ["wrappers.base", "capabilities"],
    "zone": ["workspace.time_zone"],
}
_WARNING = "{} is now {}; the old name goes with version 0.3"


def renamed(module: str, name: str) -> object:
    """Return what an old name of a module stands for; called by a module's ``__getattr__``.

    Raises AttributeError if the name is neither an old one nor one that moved with the module.
    """
    unknown = AttributeError(f"module {module!r} has no attribute {name!r}", name=name)
    if name.startswith("_") and name != "__all__":
        raise unknown
    if module == "registry_api" and name in _MODULES:
        return import_module(f"registry_api.{name}")
    homes = [f"registry_api.{m}" for m in _MODULES.get(module.removeprefix("registry_api."), [])]
    if name == "__all__" and module not in homes:
        return [n for home in homes for n in import_module(home).__all__]
    new = _NAMES.get(name, name)
    for home in [module, *homes]:
        # Not from sys.modules: another thread may be in the middle of importing it.
        found = vars(sys.modules[home] if home == module else import_module(home)).get(new)
        if found is not None:
            old = _WARNING.format(f"{module}.{name}", f"{home}.{new}")
            warnings.warn(old, DeprecationWarning, stacklevel=3)
            return found
    raise unknown


class _OldModule(ModuleType):
    """Holds nothing and asks ``renamed`` for each name.

    Callable, since importing ``registry_api.transact`` binds the module over the function of that
    name in ``registry_api``: it stands for the function then.
    """

    def __getattr__(self, name: str) -> object:
        return renamed(self.__name__, name)

    def __call__(self, *args: Any, **named: Any) -> Any:
        own = self.__name__.rpartition(".")[2]
        home = import_module(f"registry_api.{_MODULES[own][0]}")
        function: Callable[..., Any] = getattr(home, own)
        return function(*args, **named)


class _OldModules(MetaPathFinder, Loader):
    """Finds the modules that moved."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.rpartition(".")
        if package != "registry_api" or name not in _MODULES:
            return None
        return ModuleSpec(fullname, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _OldModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def accept_old_modules() -> None:
    """Let old modules of ``registry_api`` be imported; once a process."""
    if not any(isinstance(finder, _OldModules) for finder in sys.meta_path):
        sys.meta_path.append(_OldModules())


def new_options(tokens: list[str]) -> list[str]:
    """Return a command's arguments with old options under their present names.

    Says on stderr where it was an old one. What follows ``--reason`` or ``--`` is no option.
    """
    out: list[str] = []
    for n, given in enumerate(tokens):
        if given == "--":
            return out + tokens[n:]
        name, separator, value = given.partition("=")
        new = _OPTIONS.get(name)
        if new is None or tokens[n - 1 : n] == ["--reason"]:
            out.append(given)
            continue
        sys.stderr.write(f"warning: {_WARNING.format(name, new)}\n")
        out.append(new + separator + value)
    return out
