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
        settings = load_settings(self.workspace, env={}, backend=self.name)
        return self._stack.enter_context(closing(open_store(settings)))

    def open(self) -> RegistryStore:
        """Return a store, closed at the end of the test."""
        return self._only or self._open()

    def spawn(self, module: str, *args: str) -> subprocess.Popen[str]:
        """Start ``python -m module args`` on the same registry."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("REGISTRY_")}
        env |= {"REGISTRY_WORKSPACE": str(self.workspace), "REGISTRY_BACKEND": self.name}
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
