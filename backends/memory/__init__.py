"""The reference store: the contract in plain Python, in memory."""

from backends.memory.store import MemoryStore, registry_register_stores

__all__ = ["MemoryStore", "registry_register_stores"]
