"""Registries in LMDB: an engine for ``registry_api.keyvalue``, and the hook that offers it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import lmdb

from registry_api import Capability, OpenContext, RegistryStore, hookimpl
from registry_api.errors import Unavailable
from registry_api.flock import ForkSafeLock
from registry_api.hooks import RegisterStore
from registry_api.keyvalue import KeyValueStore

_CAPABILITIES = frozenset(
    {
        Capability.PERSISTENT,
        Capability.DURABLE,
        Capability.MULTI_PROCESS,
        Capability.MOVE_TARGET,
    }
)
_MAP = 2**36  # bytes of address space, not of disk: the file grows as it is filled
_READERS = 1024


@hookimpl
def registry_register_stores(register: RegisterStore) -> None:
    """Offer ``lmdb`` and ``lmdb:///path``."""
    register("lmdb", _open)


def _open(context: OpenContext) -> RegistryStore:
    default = context.workspace / ".registry" / "registry.lmdb"
    path = Path(context.location) if context.location else default
    if not path.exists():
        if context.read_only:
            raise Unavailable(f"{path} is not there", next_step="Write to the registry first")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return KeyValueStore(
        LmdbEngine(path.resolve()),
        name="lmdb",
        location=str(path),
        capabilities=_CAPABILITIES,
        now=context.now,
        read_only=context.read_only,
    )


class _View:
    """A transaction; LMDB's readers see the state in which they began."""

    def __init__(self, transaction: Any) -> None:
        self._transaction = transaction

    def get(self, key: bytes) -> bytes | None:
        found: bytes | None = self._transaction.get(key)
        return found

    def scan(self, first: bytes, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        with self._transaction.cursor() as cursor:
            if cursor.set_range(first):
                for key, value in cursor:
                    if key >= last:
                        return
                    yield key, value

    def put(self, key: bytes, value: bytes) -> None:
        self._transaction.put(key, value)

    def delete(self, key: bytes) -> None:
        self._transaction.delete(key)


@dataclass(slots=True)
class _Environment:
    """An open file: LMDB wants a process to open it once, and a fork child to open its own."""

    handle: Any
    pid: int
    users: int = 0


class LmdbEngine:
    """One file, shared by all stores of a process that name it."""

    failures: ClassVar[tuple[type[Exception], ...]] = (lmdb.Error, OSError)
    _lock: ClassVar[ForkSafeLock] = ForkSafeLock()
    _opened: ClassVar[dict[Path, _Environment]] = {}

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._lock:
            self._environment().users += 1

    def _environment(self) -> _Environment:
        """Return the open file; under the lock."""
        found = self._opened.get(self._path)
        if found is None:
            found = self._opened[self._path] = _Environment(self._open(), os.getpid())
        elif found.pid != os.getpid():
            found.handle.close()  # the parent's, of which this is a copy
            found.handle, found.pid = self._open(), os.getpid()
        return found

    def _open(self) -> Any:
        path = self._path
        new = not path.exists()
        try:
            handle = lmdb.open(
                str(path),
                subdir=False,
                readonly=not new and not os.access(path, os.W_OK),
                map_size=_MAP,
                max_readers=_READERS,
                mode=0o600,
            )
        except (lmdb.Error, OSError) as error:
            raise Unavailable(f"{path}: {error}", next_step="Check the file") from error
        handle.reader_check()  # slots of processes that were killed
        if new:
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)  # LMDB makes durable what is in the file, not its name
            finally:
                os.close(folder)
        return handle

    def _begin(self, *, write: bool) -> Any:
        with self._lock:
            handle = self._environment().handle
        return handle.begin(write=write)

    @contextmanager
    def read(self) -> Iterator[_View]:
        """See Engine.read."""
        with self._begin(write=False) as transaction:
            yield _View(transaction)

    @contextmanager
    def write(self) -> Iterator[_View]:
        """See Engine.write."""
        with self._begin(write=True) as transaction:
            yield _View(transaction)

    def close(self) -> None:
        """See Engine.close."""
        with self._lock:
            found = self._environment()
            found.users -= 1
            if not found.users:
                del self._opened[self._path]
                found.handle.close()
