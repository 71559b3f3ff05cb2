"""The wrapper that passes the gate in every operation and recovers an interrupted switch."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from registry_api.capabilities import Compacted, provides
from registry_api.client.compaction import compactable
from registry_api.errors import Busy, GaveWay, StoreClosed
from registry_api.leases import Lease, leases_of
from registry_api.migration.gate import Gate, T
from registry_api.store import RegistryStore
from registry_api.workspace.lock_timeout import giving_way, patience
from registry_api.wrappers.base import StoreWrapper

__all__ = ["GatedStore"]


class Paced(Protocol):
    """A store that another host's switch may slow down."""

    def keep_pace(self) -> None:
        """Wait before a commit as long as that switch demands; called outside the gate."""


class GatedStore(StoreWrapper):
    """A wrapper that passes the gate once per operation, around the stores of a move."""

    def __init__(
        self,
        inner: RegistryStore,
        gate: Gate,
        *,
        died: Callable[[], bool] = lambda: False,
        recover: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(inner)
        self._gate = gate
        self._died, self._recover = died, recover
        self._closed = False
        paced: object = inner
        self._paced = paced if provides(paced, Paced) else None

    def around(self, op: str, call: Callable[[], T]) -> T:
        """Run one call inside the gate; recover a switch that was interrupted while it held it.

        A call that found a lock taken has changed nothing and is repeated: at once if it gave way
        to a switch, otherwise until the time limit of ``Gate.timeout``. A call that gave way until
        that limit no longer does: it waits for the lock inside the gate.
        """
        start, patient = 0.0, False
        if op == "commit":
            self._keep_pace()
        while True:
            if self._closed:
                raise StoreClosed("the store is closed", next_step="Open it again")
            start = start or time.monotonic()
            try:
                with self._gate.passing():
                    if not self._died():
                        with giving_way(None if patient else self._gate.wanted):
                            return call()
            except GaveWay:
                patient = self._is_over(start)
                continue
            except Busy:
                if self._is_over(start):
                    raise
                time.sleep(0.005)
                continue
            self._recover_or_wait(start)

    def acquire_lease(self, name: str, holder: str, *, seconds: float) -> Lease | None:
        """See Leases.acquire_lease."""
        return self.around(
            "acquire_lease",
            lambda: leases_of(self.inner).acquire_lease(name, holder, seconds=seconds),
        )

    def release_lease(self, lease: Lease) -> bool:
        """See Leases.release_lease."""
        return self.around("release_lease", lambda: leases_of(self.inner).release_lease(lease))

    def lease_holder(self, name: str) -> Lease | None:
        """See Leases.lease_holder."""
        return self.around("lease_holder", lambda: leases_of(self.inner).lease_holder(name))

    def compact(self, after: int = 0, *, dry_run: bool = False) -> Compacted:
        """See Compactable.compact."""
        return self.around(
            "compact", lambda: compactable(self.inner).compact(after, dry_run=dry_run)
        )

    def _keep_pace(self) -> None:
        if not self._gate.keep_pace() and self._paced is not None:
            self._paced.keep_pace()

    def _recover_or_wait(self, start: float) -> None:
        try:
            self._recover()
        except Busy:  # another process is recovering it
            if self._is_over(start):
                raise
            time.sleep(0.005)

    def _is_over(self, start: float) -> bool:
        return time.monotonic() - start >= patience(self._gate.timeout())

    def close(self) -> None:
        """Close the store and the gate's descriptors."""
        if not self._closed:
            self._closed = True
            self.inner.close()
            self._gate.close()
