"""The wrapper that counts this process's calls where other processes can read it (``procs``)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from registry_api.errors import InvalidInput, Refused, RegistryError
from registry_api.store import RegistryStore
from registry_api.workspace.processes import Process
from registry_api.wrappers.base import StoreWrapper

__all__ = ["MeteredStore"]

T = TypeVar("T")


class MeteredStore(StoreWrapper):
    """A wrapper that times successful calls and counts those that are refused or fail."""

    def __init__(self, inner: RegistryStore, process: Process) -> None:
        super().__init__(inner)
        self._process = process

    def around(self, op: str, call: Callable[[], T]) -> T:
        """Run one call."""
        start = time.perf_counter()
        try:
            result = call()
        except RegistryError as error:
            expected = isinstance(error, Refused | InvalidInput | LookupError)
            self._process.count("refused" if expected else "failed")
            raise
        self._process.time("write" if op == "commit" else "read", time.perf_counter() - start)
        return result

    def close(self) -> None:
        """Close the store and remove this process's counters."""
        super().close()
        self._process.close()
