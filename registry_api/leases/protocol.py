"""Of several processes, on one host or on many, only one does a job at a time.

A lease is granted for some seconds and must be renewed. Its holder must stop acting, by its own
clock, when these have passed since the call that renewed it began: another process may hold the
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

__all__ = ["Lease", "Leases", "check_lease", "check_name", "leases_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A lease as it was granted, or is seen: ``seconds`` is how long it holds from then on."""

    name: str
    holder: str
    token: int
    seconds: float


class Leases(Protocol):
    """Capability LEASES: the leases of a registry, which all processes share that use it.

    A name is an id; a holder is a text that no other process uses. A call goes to the place where
    the leases are at that moment, also after a switch.
    """

    def acquire_lease(self, name: str, holder: str, *, seconds: float) -> Lease | None:
        """Take a lease, or renew one's own; None while somebody else holds it.

        A renewal keeps the token. Raises InvalidInput, ReadOnly, NotPermitted, CorruptDocument,
        Unavailable (Busy included) or OutcomeUnknown; after the latter the lease may be held: call
        again.
        """

    def release_lease(self, lease: Lease) -> bool:
        """Give a lease up; False if it was no longer held with this token. Raises as above."""

    def lease_holder(self, name: str) -> Lease | None:
        """Return the lease as it is held now, None if nobody holds it. Raises as above."""


def leases_of(store: RegistryStore) -> Leases:
    """Return the leases of an open store: in a store that several hosts share, or beside it.

    ``open_store`` gives them with every persistent registry that it opens for writing. Raises
    NotSupported for any other store that has none.
    """
    found = find_capability(store, Leases)
    if found is None:
        raise NotSupported(
            f"the store {store.info.name!r} has no leases",
            next_step="Open it with its workspace and for writing: open_store() without "
            "gated=False and read_only",
        )
    return found


def check_name(name: str) -> None:
    """Raise InvalidInput for a name that no lease can have."""
    if not is_id(name):
        raise InvalidInput(
            f"{name[:40]!r} is not a name of a lease",
            next_step="Use letters, digits, '.', '_' and '-', with no leading dot",
        )


def check_lease(name: str, holder: str, seconds: float) -> None:
    """Raise InvalidInput for a name, holder or time that no lease can have."""
    check_name(name)
    if not holder or not holder.isprintable() or len(holder) > 200:
        raise InvalidInput(
            f"{holder[:40]!r} is not a holder", next_step="Name the process, e.g. by a UUID"
        )
    if not 0 < seconds <= 86_400:
        raise InvalidInput(
            f"a lease of {seconds} s is not granted",
            next_step="Ask for more than 0 s and at most 86,400 s",
        )
