"""The leases of a store that ends with its process."""

from __future__ import annotations

import threading
import time

from registry_api.leases.protocol import Lease, check_lease, check_name

__all__ = ["MemoryLeases"]


class MemoryLeases:
    """The leases of one process."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._granted: dict[str, tuple[str, int, float]] = {}  # holder, token, until

    def acquire_lease(self, name: str, holder: str, *, seconds: float) -> Lease | None:
        """See Leases.acquire_lease."""
        check_lease(name, holder, seconds)
        with self._guard:
            now = time.monotonic()
            other, token, until = self._granted.get(name, ("", 0, 0.0))
            if until > now and other != holder:
                return None
            token += not until > now
            self._granted[name] = holder, token, now + seconds
        return Lease(name=name, holder=holder, token=token, seconds=seconds)

    def release_lease(self, lease: Lease) -> bool:
        """See Leases.release_lease."""
        check_name(lease.name)
        with self._guard:
            holder, token, until = self._granted.get(lease.name, ("", 0, 0.0))
            if (holder, token) != (lease.holder, lease.token) or until <= time.monotonic():
                return False
            self._granted[lease.name] = "", token, 0.0
            return True

    def lease_holder(self, name: str) -> Lease | None:
        """See Leases.lease_holder."""
        check_name(name)
        holder, token, until = self._granted.get(name, ("", 0, 0.0))
        left = until - time.monotonic()
        return Lease(name=name, holder=holder, token=token, seconds=left) if left > 0 else None
