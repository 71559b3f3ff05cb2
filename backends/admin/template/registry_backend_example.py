"""A registry-backend store on example: an engine, and the hook that registers the store."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from registry_api import Capability, OpenContext, RegistryStore, hookimpl
from registry_api.authoring import KeyValueStore
from registry_api.plugins import RegisterStore

# What the engine below can do. Add PERSISTENT if yours keeps data, DURABLE if it syncs to disk
# (fsync), MULTI_PROCESS if several processes may use it at once. MOVE_TARGET: a registry can be
# moved to this store while it is in use; MIGRATION_SOURCE: it can be moved from it, if the store
# also gets ``archives=`` (a folder for the archive of what a move removes) and keeps its data.
CAPABILITIES = frozenset({Capability.MOVE_TARGET})


@hookimpl
def registry_register_stores(register: RegisterStore) -> None:
    """Register the store as ``REGISTRY_BACKEND=example`` and ``example://location``."""
    register("example", _open)


def _open(context: OpenContext) -> RegistryStore:
    # You decide where your engine keeps its data: see the README.
    return KeyValueStore(
        ExampleEngine(),
        name="example",
        location=context.location,
        capabilities=CAPABILITIES,
        now=context.now,
        read_only=context.read_only,
    )


class ExampleView:
    """A state that no other thread changes."""

    def __init__(self, data: dict[bytes, bytes]) -> None:
        self.data = data

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, None if it has none."""
        return self.data.get(key)

    def scan(self, first: bytes, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the keys from ``first`` to before ``last`` with their values, in byte order."""
        for key in sorted(k for k in self.data if first <= k < last):
            yield key, self.data[key]

    def put(self, key: bytes, value: bytes) -> None:
        """Set a key."""
        self.data[key] = value

    def delete(self, key: bytes) -> None:
        """Remove a key if it exists."""
        self.data.pop(key, None)


class ExampleEngine:
    """A dictionary; a writer changes a copy, which then replaces the old one."""

    # What your engine raises if it fails: callers get Unavailable, or OutcomeUnknown at a commit.
    failures: tuple[type[Exception], ...] = (OSError,)

    def __init__(self) -> None:
        self._data: dict[bytes, bytes] = {}
        self._lock = threading.Lock()

    @contextmanager
    def read(self) -> Iterator[ExampleView]:
        """Open a view of the state as it is now."""
        yield ExampleView(self._data)

    @contextmanager
    def write(self) -> Iterator[ExampleView]:
        """Open a batch, one at a time; an exception discards all of it."""
        with self._lock:
            batch = ExampleView(dict(self._data))
            yield batch
            self._data = batch.data

    def close(self) -> None:
        """Release everything."""
