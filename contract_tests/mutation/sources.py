"""Mutants that fail as the source of a move."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contract_tests.mutation.base import mutant
from registry_api import Head
from registry_api.roles import ROLE, Role, RoleStamp
from registry_api.wrappers import StoreWrapper


class _Source(StoreWrapper):
    """A wrapper that has every method of the store; the base class of the mutants of sources."""

    inner: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@mutant
class ArchiveNotReadBack(_Source):
    """Takes every archive for whole."""

    def check_archive(self, archive: str) -> None:
        pass


@mutant
class UnfenceForgotten(_Source):
    """Lifts its fence in the stamp that it shows, but not in the one that it checks."""

    def unfence(self, stamp: RoleStamp) -> None:
        pass


@mutant
class FenceForgetsChanges(_Source):
    """Returns from ``fence`` no task that changed since those seen before."""

    def fence(self, stamp: RoleStamp, seen: Mapping[str, Head]) -> dict[str, Head]:
        self.inner.fence(stamp, seen)
        return {}


@mutant
class MovedMissesNewTasks(_Source):
    """Leaves out of ``moved`` the tasks that were not seen before."""

    def moved(self, seen: Mapping[str, Head]) -> dict[str, Head]:
        found: dict[str, Head] = self.inner.moved(seen)
        return {name: head for name, head in found.items() if not seen or name in seen}


@mutant
class ReinstatedUnfenced(_Source):
    """Accepts commits as soon as it is put back."""

    def reinstate(self, archive: str | None) -> None:
        self.inner.reinstate(archive)
        self.inner.write_stamp(ROLE, RoleStamp(role=Role.WRITER).dump())


@mutant
class ArchiveOfNothing(_Source):
    """Puts back an empty registry."""

    def reinstate(self, archive: str | None) -> None:
        self.inner.reinstate(None)
