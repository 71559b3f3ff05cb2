"""The leases of a store that ends with its process."""

from __future__ import annotations

import time

from registry_api.leases.protocol import Lease, check_lease, check_name

__all__ = ["MemoryLeases"]


class MemoryLeases:
    """The leases of one process; the lock of the store that has them guards them."""

    def __init__(self) -> None:
        self._granted: dict[str, tuple[str, int, float]] = {}  # holder, token, until

    def acquire_lease(self, name: str, holder: str, *, seconds: float) -> Lease | None:
        """See Leases.acquire_lease."""
        check_lease(name, holder, seconds)
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
