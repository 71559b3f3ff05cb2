"""The two stores behind what a user opens."""

from backends.dual_write.store import DualWriteStore
from registry_api import facet


def dual(store):
    return facet(store, DualWriteStore)
