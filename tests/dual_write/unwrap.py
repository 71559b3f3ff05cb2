"""Find the dual-write store inside the store that a user opens."""

from backends.dual_write.store import DualWriteStore
from registry_api import find_capability


def dual(store):
    return find_capability(store, DualWriteStore)
