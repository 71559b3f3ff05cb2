"""The leases of a store that ends with its process."""

from __future__ import annotations

import threading
import time

from registry_api.leases.protocol import Lease, check_lease

__all__ = ["MemoryLeases"]


class MemoryLeases:
    """The leases of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, tuple[str, int, float]] = {}  # holder, token, until

    def acquire(self, name: str, holder: str, *, seconds: float) -> Lease | None:
        """See Leases.acquire."""
        check_lease(name, holder, seconds)
        with self._lock:
            now = time.monotonic()
            other, token, until = self._held.get(name, ("", 0, 0.0))
            if until > now and other != holder:
                return None
            token += not until > now
            self._held[name] = holder, token, now + seconds
        return Lease(name=name, holder=holder, token=token, seconds=seconds)

    def release(self, lease: Lease) -> bool:
        """See Leases.release."""
        with self._lock:
            holder, token, until = self._held.get(lease.name, ("", 0, 0.0))
            if (holder, token) != (lease.holder, lease.token) or until <= time.monotonic():
                return False
            self._held[lease.name] = "", token, 0.0
            return True

    def holder(self, name: str) -> Lease | None:
        """See Leases.holder."""
        with self._lock:
            holder, token, until = self._held.get(name, ("", 0, 0.0))
        left = until - time.monotonic()
        if left <= 0:
            return None
        return Lease(name=name, holder=holder, token=token, seconds=left)
