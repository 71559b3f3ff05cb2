"""A store under test: its workspace, and how to open it here or in another process."""

from __future__ import annotations

import hashlib
import os
import pkgutil
import re
import subprocess
import sys
from contextlib import ExitStack, closing
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from contract_tests.call_recorder import History, recorded_calls
from contract_tests.faults.cut_proxy import CutProxy
from registry_api import (
    Capability,
    OpenContext,
    Plugins,
    RegistryStore,
    StoreInfo,
    load_plugins,
    load_settings,
    open_store,
)
from registry_api.errors import UsageError

__all__ = ["Harness", "harness_class"]

_SAID = 20_000  # characters of other processes' errors in a report


class Harness:
    """The store under test in a workspace of its own, opened by name as a user would open it.

    For a store that needs a server or a database, derive a class, implement ``set_up``,
    ``tear_down`` and ``environment``, and name it: ``--harness package.module:Class``. Each test
    gets a new instance. If clients reach the server over TCP, connect them to the address that
    ``through`` returns; if a test may kill the server, implement ``crash_server``: each adds tests.
    Without PERSISTENT every ``open`` returns the same store, since a second one would be a
    different registry.
    """

    def __init__(self, name: str, workspace: Path) -> None:
        self.name = name
        self.workspace = workspace
        self.history = History()
        workspace.mkdir(parents=True, exist_ok=True)
        self._stack = ExitStack()
        self._only: RegistryStore | None = None
        self.proxy: CutProxy | None = None
        self.errors = workspace.with_name(f"{workspace.name}.stderr")  # of other processes
        self._stack.callback(self.tear_down)  # also if set_up fails half-way
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
        """A name that is unique to this test, for a database or as a prefix on a server."""
        return hashlib.sha256(str(self.workspace.resolve()).encode()).hexdigest()[:16]

    @property
    def is_gated(self) -> bool:
        """Whether the store is opened with the gate, which would hide some faults of a store."""
        return "REGISTRY_PHASE" in self.environment()

    def set_up(self) -> None:
        """Create what the store needs; called before the store is first opened."""

    def tear_down(self) -> None:
        """Remove what ``set_up`` created; called after all stores were closed."""

    def through(self, host: str, port: int) -> tuple[str, int]:
        """Return the address of a proxy to the server; tests cut its connections."""
        if self.proxy is None:
            self.proxy = CutProxy(host, port)
            self._stack.callback(self.proxy.close)
        return self.proxy.address

    def crash_server(self) -> None:
        """Kill the server as a crash would (``kill -9``), and start it again at the same address.

        Called while clients write. A store without a server of its own leaves it out.
        """
        raise NotImplementedError

    @property
    def has_server(self) -> bool:
        """Whether ``crash_server`` is implemented."""
        return type(self).crash_server is not Harness.crash_server

    def stored(self) -> object:
        """Return what the server holds, in any form that can be compared; None: not known."""
        return None

    def environment(self) -> dict[str, str]:
        """Return the environment variables that select this store, here and in other processes.

        ``dual1`` is the move json -> sqlite in a workspace that starts in phase 1,
        ``dual1:sqlite+lmdb`` another move.
        """
        found = re.fullmatch(r"dual([0-4])(?::(.+)\+(.+))?", self.name)
        if found is None:
            return {"REGISTRY_BACKEND": self.name}
        phase, source, target = found.groups()
        pair = {"REGISTRY_SOURCE": source, "REGISTRY_TARGET": target} if source else {}
        return {"REGISTRY_PHASE": phase, **pair}

    def _open(self, *, read_only: bool = False) -> RegistryStore:
        settings = load_settings(self.workspace, env=self.environment())
        gated = self.is_gated
        store = open_store(settings, plugins=_plugins(), read_only=read_only, gated=gated)
        return recorded_calls(self._stack.enter_context(closing(store)), self.history)

    def open(self) -> RegistryStore:
        """Return a store that is closed at the end of the test."""
        return self._only or self._open()

    def open_for_reading(self) -> RegistryStore:
        """Return a store that refuses commits; needs PERSISTENT."""
        return self._open(read_only=True)

    def open_removed(self) -> RegistryStore:
        """Return the store itself as a move opens a source that it has removed."""
        settings = load_settings(self.workspace, env=self.environment())
        name, _, location = settings.backend.partition("://")
        context = OpenContext(
            settings=settings, plugins=_plugins(), location=location, removed=True
        )
        store = _plugins().factory(name)(context)
        return recorded_calls(self._stack.enter_context(closing(store)), self.history)

    def spawn(self, module: str, *args: str) -> subprocess.Popen[str]:
        """Start ``python -m module args`` on the same registry."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("REGISTRY_")}
        env |= {"REGISTRY_WORKSPACE": str(self.workspace), **self.environment()}
        self.history.note("another process", module, args, "started")
        with self.errors.open("ab") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *args],
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._stack.callback(process.kill)  # a failed test leaves no process running
        return process

    def said(self) -> str:
        """Return the last lines that other processes wrote to their standard error."""
        if not self.errors.exists():
            return ""
        return self.errors.read_text(errors="replace")[-_SAID:]

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
    """Return the plugins, loaded only once, since a test opens many stores."""
    return load_plugins()


def harness_class(name: str | None) -> type[Harness]:
    """Return the class named ``package.module:Class``, or Harness for None; raises UsageError."""
    if name is None:
        return Harness
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"cannot load harness {name!r}: {error}",
            next_step="Name it as package.module:Class",
        ) from error
    if not (isinstance(found, type) and issubclass(found, Harness)):
        raise UsageError(
            f"{name} is not a harness", next_step="Derive it from contract_tests.harness.Harness"
        )
    return found
