"""Mutants whose leases are held by two, for ever, or by nobody."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from contract_tests.mutation.base import mutant
from registry_api import Capability, RegistryStore, StoreInfo
from registry_api.leases import FileLeases, Lease
from registry_api.wrappers import StoreWrapper


class _Leased(StoreWrapper, FileLeases):
    """A store with leases beside it; the base class of the mutants of leases."""

    @property
    def info(self) -> StoreInfo:
        info = self.inner.info
        return replace(info, capabilities=info.capabilities | {Capability.LEASES})

    def __init__(self, inner: RegistryStore) -> None:
        StoreWrapper.__init__(self, inner)
        FileLeases.__init__(self, Path(inner.info.location).with_name("leases"))


@mutant
class LeaseForAll(_Leased):
    """Grants a lease to everybody who asks."""

    def acquire_lease(self, name: str, holder: str, *, seconds: float) -> Lease | None:
        held = FileLeases.lease_holder(self, name)
        if held is not None and held.holder != holder:
            return replace(held, holder=holder, seconds=seconds)
        return super().acquire_lease(name, holder, seconds=seconds)


@mutant
class LeaseForEver(_Leased):
    """Grants each lease for a day."""

    def acquire_lease(self, name: str, holder: str, *, seconds: float) -> Lease | None:
        lease = super().acquire_lease(name, holder, seconds=86_400 if seconds > 0 else seconds)
        return lease and replace(lease, seconds=seconds)


@mutant
class TokenThatStays(_Leased):
    """Gives every holder of a lease the same token."""

    def acquire_lease(self, name: str, holder: str, *, seconds: float) -> Lease | None:
        lease = super().acquire_lease(name, holder, seconds=seconds)
        return lease and replace(lease, token=1)

    def lease_holder(self, name: str) -> Lease | None:
        lease = super().lease_holder(name)
        return lease and replace(lease, token=1)

    def release_lease(self, lease: Lease) -> bool:
        held = FileLeases.lease_holder(self, lease.name)
        same = held is not None and (held.holder, 1) == (lease.holder, lease.token)
        return super().release_lease(held) if held is not None and same else False


@mutant
class ReleasedByAnybody(_Leased):
    """Lets everybody release a lease."""

    def release_lease(self, lease: Lease) -> bool:
        held = FileLeases.lease_holder(self, lease.name)
        return held is not None and super().release_lease(held)
