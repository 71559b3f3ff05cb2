"""Drop the expired lines of a registry's feed."""

from __future__ import annotations

from collections.abc import Callable

from registry_api.capabilities import Compactable, Compacted, find_capability
from registry_api.errors import NotSupported
from registry_api.store import RegistryStore

__all__ = ["compact", "compactable"]


def compact(
    store: RegistryStore,
    *,
    dry_run: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Compacted:
    """Drop every expired feed line, as Compactable.compact does; return how many in all.

    ``progress(number, newest)`` is called after each part. Raises NotSupported too.
    """
    lines, after = 0, 0
    while True:
        found = compactable(store).compact(after, dry_run=dry_run)
        lines += found.lines
        if progress is not None:
            progress(found.newest if found.after is None else found.after, found.newest)
        if found.after is None:
            return Compacted(lines=lines, after=None, newest=found.newest)
        after = found.after


def compactable(store: RegistryStore) -> Compactable:
    """Return the store, or the one it wraps, that can compact its feed; raises NotSupported."""
    found = find_capability(store, Compactable)
    if found is None:
        raise NotSupported(
            f"the store {store.info.name} keeps its whole feed",
            next_step="Move the registry to a store that can be compacted, such as sqlite",
        )
    return found
