"""Mutants that do not keep to their role in a move."""

from __future__ import annotations

import time
from typing import Any

from contract_tests.mutation.base import mutant
from registry_api import Changeset, Commit, RegistryStore
from registry_api.roles import ROLE, Role, RoleStamp, check_commit
from registry_api.wrappers import StoreWrapper

_HIDDEN = "hidden-role"


class _Stamped(StoreWrapper):
    """A wrapper that keeps some role stamps where the store does not look for them."""

    inner: Any

    def hides(self, stamp: RoleStamp) -> bool:
        """Return whether the store must not see a stamp."""
        raise NotImplementedError

    def read_stamp(self, name: str) -> str | None:
        hidden: str | None = self.inner.read_stamp(_HIDDEN) if name == ROLE else None
        return hidden or self.inner.read_stamp(name)

    def write_stamp(self, name: str, value: str) -> None:
        stamp = RoleStamp.load(value) if name == ROLE else None
        if stamp is not None and self.hides(stamp):
            self.inner.write_stamp(_HIDDEN, value)
            value = RoleStamp(role=Role.WRITER).dump()
        elif stamp is not None:
            self.inner.write_stamp(_HIDDEN, "")
        self.inner.write_stamp(name, value)


@mutant
class ReplicaCommits(_Stamped):
    """Accepts commits although it is the replica of another store."""

    def hides(self, stamp: RoleStamp) -> bool:
        return stamp.role is Role.REPLICA

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@mutant
class FenceForgotten(_Stamped):
    """Accepts commits although it is fenced."""

    def hides(self, stamp: RoleStamp) -> bool:
        return stamp.role is Role.FENCED

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@mutant
class FenceDoesNotWait(_Stamped):
    """Checks its role before a commit instead of in its transaction: one under way is still added
    when the fence has returned.
    """

    def hides(self, stamp: RoleStamp) -> bool:
        return stamp.role is Role.FENCED

    def commit(self, changeset: Changeset) -> Commit:
        check_commit(self.read_stamp(ROLE))
        time.sleep(0.05)
        told: Commit = self.inner.commit(changeset)
        return told

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@mutant
class FenceSeenAtOpen(StoreWrapper):
    """Reads its role when it is opened: a process that was open before a switch still commits."""

    inner: Any

    def __init__(self, inner: RegistryStore) -> None:
        super().__init__(inner)
        self._role = self.inner.read_stamp(ROLE)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def write_stamp(self, name: str, value: str) -> None:
        if name == ROLE:
            self._role = value
        self.inner.write_stamp(name, value)

    def commit(self, changeset: Changeset) -> Commit:
        check_commit(self._role)
        now = self.inner.read_stamp(ROLE)
        if now is None or now == self._role:
            return super().commit(changeset)
        self.inner.write_stamp(ROLE, RoleStamp(role=Role.WRITER).dump())
        try:
            return super().commit(changeset)
        finally:
            self.inner.write_stamp(ROLE, now)
