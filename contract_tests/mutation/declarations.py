"""Mutants that are not what they declare: errors, capabilities, version, close."""

from __future__ import annotations

import os
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, ClassVar, cast

from contract_tests.mutation.base import mutant
from registry_api import (
    Capability,
    Refs,
    RegistryStore,
    StoreInfo,
    TaskSnapshot,
    errors,
)
from registry_api.wrappers import StoreWrapper


@mutant
class UntypedError(StoreWrapper):
    """Raises the engine's own errors instead of the contract's."""

    def load(self, task_id: str, *, only: Refs | None = None) -> TaskSnapshot:
        try:
            return self.inner.load(task_id, only=only)
        except errors.TaskNotFound as error:
            raise KeyError(task_id) from error


@mutant
class DeclaresTooMuch(StoreWrapper):
    """Declares a capability that it does not have."""

    def __init__(self, inner: RegistryStore) -> None:
        names = [name for name in vars(RegistryStore) if not name.startswith("_")]
        only = SimpleNamespace(**{name: getattr(inner, name) for name in names})
        super().__init__(cast(RegistryStore, only))

    @property
    def info(self) -> StoreInfo:
        info = self.inner.info
        return replace(info, capabilities=info.capabilities | {Capability.MIGRATION_SOURCE})


@mutant
class VersionUnclear(StoreWrapper):
    """Declares a contract version that is not MAJOR.MINOR."""

    @property
    def info(self) -> StoreInfo:
        return replace(self.inner.info, contract_version="1")


@mutant
class WritesWhenReading(StoreWrapper):
    """Accepts commits although it was opened for reading only."""

    context: ClassVar[dict[str, Any]] = {"read_only": False}


@mutant
class OpenAfterClose(StoreWrapper):
    """Keeps working after it was closed."""

    def close(self) -> None:
        pass


@mutant
class FileKeptOpen(StoreWrapper):
    """Leaves a file open whenever it is closed."""

    _files: ClassVar[list[int]] = []

    def close(self) -> None:
        super().close()
        self._files.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
