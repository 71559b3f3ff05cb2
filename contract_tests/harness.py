"""A store under test: its workspace, and how to open it here or in another process."""

from __future__ import annotations

import hashlib
import os
import pkgutil
import subprocess
import sys
from contextlib import ExitStack, closing
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from contract_tests.call_recorder import History, recorded_calls
from registry_api import (
    Capability,
    Plugins,
    RegistryStore,
    StoreInfo,
    load_plugins,
    load_settings,
    open_store,
)
from registry_api.errors import UsageError

__all__ = ["Harness", "harness_class"]


class Harness:
    """Opens a store by name, as a user would, in a workspace of its own.

    For a store that needs more, a server or a database, derive from it, fill in ``set_up``,
    ``tear_down`` and ``environment``, and name the class: ``--harness package.module:Class``. There
    is one for every test. Without PERSISTENT every ``open`` returns the same store, since another
    one would be another registry.
    """

    def __init__(self, name: str, workspace: Path) -> None:
        self.name = name
        self.workspace = workspace
        self.history = History()
        workspace.mkdir(parents=True, exist_ok=True)
        self._stack = ExitStack()
        self._only: RegistryStore | None = None
        self._stack.callback(self.tear_down)  # also where set_up fails half-way
        try:
            self.set_up()
            first = self._open()
        except BaseException:
            self._stack.close()
            raise
        if Capability.PERSISTENT in first.info.capabilities:
            first.close()
        else:
            self._only = first
        self.info: StoreInfo = first.info
        self.history.clear()

    @property
    def key(self) -> str:
        """A name that no other test's harness has: of a database, or a prefix on a server."""
        return hashlib.sha256(str(self.workspace.resolve()).encode()).hexdigest()[:16]

    def set_up(self) -> None:
        """Prepare what the store needs, before it is opened for the first time."""

    def tear_down(self) -> None:
        """Take it away again, after all stores were closed."""

    def environment(self) -> dict[str, str]:
        """Return the variables by which this store is opened, here and in other processes.

        ``dual1`` is the move json -> sqlite in a workspace that is born in phase 1.
        """
        if self.name in {f"dual{n}" for n in range(5)}:
            return {"REGISTRY_PHASE": self.name.removeprefix("dual")}
        return {"REGISTRY_BACKEND": self.name}

    def _open(self, *, read_only: bool = False) -> RegistryStore:
        settings = load_settings(self.workspace, env=self.environment())
        store = open_store(settings, plugins=_plugins(), read_only=read_only)
        return recorded_calls(self._stack.enter_context(closing(store)), self.history)

    def open(self) -> RegistryStore:
        """Return a store, closed at the end of the test."""
        return self._only or self._open()

    def open_for_reading(self) -> RegistryStore:
        """Return a store that takes no commit; needs PERSISTENT."""
        return self._open(read_only=True)

    def spawn(self, module: str, *args: str) -> subprocess.Popen[str]:
        """Start ``python -m module args`` on the same registry."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("REGISTRY_")}
        env |= {"REGISTRY_WORKSPACE": str(self.workspace), **self.environment()}
        self.history.note("another process", module, args, "started")
        process = subprocess.Popen(
            [sys.executable, "-m", module, *args],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._stack.callback(process.kill)  # a test that failed leaves nobody at work
        return process

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()


@cache
def _plugins() -> Plugins:
    """Loaded once: a test opens many stores."""
    return load_plugins()


def harness_class(name: str | None) -> type[Harness]:
    """Return the class named ``package.module:Class``, Harness where none is; raises UsageError."""
    if name is None:
        return Harness
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"there is no harness {name!r}: {error}", next_step="Name it as package.module:Class"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Harness)):
        raise UsageError(
            f"{name} is no harness", next_step="Derive it from contract_tests.harness.Harness"
        )
    return found
