"""A store under test: its workspace, and how to open it here or in another process."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Self

from registry_api import Capability, RegistryStore, StoreInfo, load_settings, open_store


class Harness:
    """Opens a store by name, as a user would, in a workspace of its own.

    Without PERSISTENT every ``open`` returns the same store, since another one would be another
    registry.
    """

    def __init__(self, name: str, workspace: Path) -> None:
        self.name = name
        self.workspace = workspace
        workspace.mkdir(parents=True, exist_ok=True)
        self._stack = ExitStack()
        self._only: RegistryStore | None = None
        first = self._open()
        if Capability.PERSISTENT in first.info.capabilities:
            first.close()
        else:
            self._only = first
        self.info: StoreInfo = first.info

    def _open(self) -> RegistryStore:
        settings = load_settings(self.workspace, env=self._variables())
        return self._stack.enter_context(closing(open_store(settings)))

    def _variables(self) -> dict[str, str]:
        """``dual1`` is the move json -> sqlite in a workspace that is born in phase 1."""
        if self.name in {f"dual{n}" for n in range(5)}:
            return {"REGISTRY_PHASE": self.name.removeprefix("dual")}
        return {"REGISTRY_BACKEND": self.name}

    def open(self) -> RegistryStore:
        """Return a store, closed at the end of the test."""
        return self._only or self._open()

    def spawn(self, module: str, *args: str) -> subprocess.Popen[str]:
        """Start ``python -m module args`` on the same registry."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("REGISTRY_")}
        env |= {"REGISTRY_WORKSPACE": str(self.workspace), **self._variables()}
        return subprocess.Popen(
            [sys.executable, "-m", module, *args],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()
