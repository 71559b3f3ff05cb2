"""Of several processes, on one host or on many, one does a work until it stops renewing.

A lease is granted for some seconds and must be renewed. Its holder must stop acting on its own
clock when these have passed since the call that renewed it began: another process may hold the
lease by then. Each new grant has a higher token, so that what a late holder still says can be told
from what the present one says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from registry_api.capabilities import find_capability
from registry_api.errors import InvalidInput, NotSupported
from registry_api.records import is_id
from registry_api.store import RegistryStore

__all__ = ["HasLeases", "Lease", "Leases", "check_lease", "leases_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A lease as it was granted, or is seen: ``seconds`` is how long it holds from then on."""

    name: str
    holder: str
    token: int
    seconds: float


class Leases(Protocol):
    """The leases of a registry. Names are ids; a holder is a text that no other process uses."""

    def acquire(self, name: str, holder: str, *, seconds: float) -> Lease | None:
        """Take a lease, or renew one's own; None while somebody else holds it.

        A renewal keeps the token. Raises InvalidInput, Unavailable or OutcomeUnknown; after the
        latter the lease may be held: call again.
        """

    def release(self, lease: Lease) -> bool:
        """Give a lease up; False if it was no longer held with this token."""

    def holder(self, name: str) -> Lease | None:
        """Return the lease as it is held now, None if nobody holds it."""


class HasLeases(Protocol):
    """Capability LEASES, and every store that is opened with a workspace."""

    @property
    def leases(self) -> Leases:
        """The leases that all processes which use this registry share."""


def leases_of(store: RegistryStore) -> Leases:
    """Return the leases of an open store: in a store that several hosts share, or beside it.

    Raises NotSupported for a store that was opened by itself and has none.
    """
    found = find_capability(store, HasLeases)
    if found is None:
        raise NotSupported(
            f"the store {store.info.name!r} has no leases",
            next_step="Open it with a workspace: open_store() without gated=False",
        )
    return found.leases


def check_lease(name: str, holder: str, seconds: float) -> None:
    """Raise InvalidInput unless a lease can be asked for so."""
    if not is_id(name):
        raise InvalidInput(f"{name!r} is not a name of a lease", next_step="Use letters and digits")
    if not holder or not holder.isprintable() or len(holder) > 200:
        raise InvalidInput(
            f"{holder[:40]!r} is not a holder", next_step="Name the process, e.g. by a UUID"
        )
    if not 0 < seconds <= 86_400:
        raise InvalidInput(
            f"a lease of {seconds} s is not granted", next_step="Ask for at most a day"
        )
