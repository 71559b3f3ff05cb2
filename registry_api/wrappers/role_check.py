"""The wrapper that refuses reads of a store which a move has left.

Programs of several hosts share such a store, and the phase record lies on one of them. Commits are
refused by the store; without this wrapper, a host that only reads would show an old state for ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from registry_api.capabilities import Stamps, provides
from registry_api.roles import ROLE, check_commit
from registry_api.store import Capability, RegistryStore
from registry_api.wrappers.base import StoreWrapper

__all__ = ["AGE", "writer_only"]

T = TypeVar("T")

AGE = 1.0  # seconds for which a role that was read is not read again


def writer_only(store: RegistryStore) -> RegistryStore:
    """Return a store that several hosts may open so that, at most ``AGE`` seconds after it has
    stopped being the writer of record, its reads raise BackendMismatch, or Unavailable during the
    switch. Another store is returned as it is: the phase record of its workspace says what it is.
    """
    stamps: object = store
    if Capability.MULTI_HOST in store.info.capabilities and provides(stamps, Stamps):
        return _WriterOnly(store, stamps)
    return store


class _WriterOnly(StoreWrapper):
    def __init__(self, inner: RegistryStore, stamps: Stamps) -> None:
        super().__init__(inner)
        self._stamps = stamps
        self._due = 0.0

    def around(self, op: str, call: Callable[[], T]) -> T:
        if time.monotonic() >= self._due:
            check_commit(self._stamps.read_stamp(ROLE))
            self._due = time.monotonic() + AGE
        return call()
