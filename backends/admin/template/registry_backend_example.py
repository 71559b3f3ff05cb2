"""Agent registries in example: an engine, and the hook that offers the store over it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from registry_api import Capability, OpenContext, RegistryStore, hookimpl
from registry_api.hooks import RegisterStore
from registry_api.keyvalue import KeyValueStore

# What holds of the engine below. When yours keeps data: PERSISTENT; with fsync: DURABLE; several
# processes at once: MULTI_PROCESS. MOVE_TARGET: a registry can be moved to it while it is in use.
CAPABILITIES = frozenset({Capability.MOVE_TARGET})


@hookimpl
def registry_register_stores(register: RegisterStore) -> None:
    """Offer ``REGISTRY_BACKEND=example`` and ``example://location``."""
    register("example", _open)


def _open(context: OpenContext) -> RegistryStore:
    # Where yours lies is for you to decide: see the README.
    return KeyValueStore(
        ExampleEngine(),
        name="example",
        location=context.location,
        capabilities=CAPABILITIES,
        now=context.now,
        read_only=context.read_only,
    )


class ExampleView:
    """A state that nobody else changes."""

    def __init__(self, data: dict[bytes, bytes]) -> None:
        self.data = data

    def get(self, key: bytes) -> bytes | None:
        """Return what was put, or None."""
        return self.data.get(key)

    def scan(self, first: bytes, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield what lies between the bounds, the last one left out, in the order of the keys."""
        for key in sorted(k for k in self.data if first <= k < last):
            yield key, self.data[key]

    def put(self, key: bytes, value: bytes) -> None:
        """Set a key."""
        self.data[key] = value

    def delete(self, key: bytes) -> None:
        """Remove a key, if it is there."""
        self.data.pop(key, None)


class ExampleEngine:
    """A dictionary: a writer changes a copy, which then takes the place of the old one."""

    # What your engine raises: callers see Unavailable, at the end of a write OutcomeUnknown.
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
        """Open a batch: alone, and nothing of it stands unless it ends well."""
        with self._lock:
            batch = ExampleView(dict(self._data))
            yield batch
            self._data = batch.data

    def close(self) -> None:
        """Release everything."""
