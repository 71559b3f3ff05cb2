"""An LMDB store: an engine for ``registry_api.authoring``, and the hook that registers it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import lmdb

from registry_api import Capability, OpenContext, RegistryStore, hookimpl
from registry_api.authoring import KeyValueStore
from registry_api.errors import Unavailable
from registry_api.plugins import RegisterStore
from registry_api.workspace import STATE_DIR, ForkSafeLock

_CAPABILITIES = frozenset(
    {
        Capability.PERSISTENT,
        Capability.DURABLE,
        Capability.MULTI_PROCESS,
        Capability.MOVE_TARGET,
        Capability.MIGRATION_SOURCE,
    }
)
_MAP = 2**36  # bytes of address space, not of disk: the file grows with its data
_READERS = 1024


@hookimpl
def registry_register_stores(register: RegisterStore) -> None:
    """Register the store ``lmdb``, also as ``lmdb:///path``."""
    register("lmdb", _open)


def _open(context: OpenContext) -> RegistryStore:
    path = context.workspace / (context.location or ".registry/registry.lmdb")
    try:
        if not path.exists():
            if context.read_only:
                raise Unavailable(f"{path} does not exist", next_step="Write to the registry first")
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        engine = LmdbEngine(path.resolve())
    except Unavailable:
        raise
    except (lmdb.Error, OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        raise Unavailable(f"{path}: {error}", next_step="Check the file and its folder") from error
    return KeyValueStore(
        engine,
        name="lmdb",
        location=str(path),
        capabilities=_CAPABILITIES,
        now=context.now,
        read_only=context.read_only,
        archives=context.workspace / STATE_DIR / "archive",
    )


class _View:
    """A transaction; an LMDB reader sees the state at the transaction's start."""

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
    """An open file: a process opens an LMDB file only once, and a fork child opens its own."""

    handle: Any
    pid: int
    file: tuple[int, int]
    users: int = 0
    transactions: int = 0


class LmdbEngine:
    """One LMDB file, shared by all stores of a process that name it."""

    failures: ClassVar[tuple[type[Exception], ...]] = (lmdb.Error, OSError)
    _lock: ClassVar[ForkSafeLock] = ForkSafeLock()
    _opened: ClassVar[dict[Path, _Environment]] = {}

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._lock:
            found = self._environment()
            if found.file != _file(path):
                raise Unavailable(
                    f"{path} is not the file that this process has open",
                    next_step="Close every store on it, then open it again",
                )
            found.users += 1

    def _environment(self) -> _Environment:
        """Return the open file; call it with the lock held."""
        found = self._opened.get(self._path)
        if found is None:
            handle = self._open()
            found = _Environment(handle, os.getpid(), _file(self._path))
            self._opened[self._path] = found
        elif found.pid != os.getpid():
            if found.transactions:
                # Closing the child's copy would end the transactions of the parent's threads.
                raise Unavailable(
                    f"{self._path} was in use by another thread when this process was forked",
                    next_step="Fork between transactions, or start a new process",
                )
            found.handle.close()
            found.handle, found.pid = self._open(), os.getpid()
        return found

    def _open(self) -> Any:
        path = self._path
        new = not path.exists()
        handle = lmdb.open(
            str(path),
            subdir=False,
            readonly=not new and not os.access(path, os.W_OK),
            map_size=_MAP,
            max_readers=_READERS,
            mode=0o600,
        )
        handle.reader_check()  # frees the slots of killed processes
        if new:
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)  # LMDB syncs the file, not its name
            finally:
                os.close(folder)
        return handle

    @contextmanager
    def _transaction(self, *, write: bool) -> Iterator[_View]:
        """Begin and end a transaction; the file stays open until then, even if a store is closed
        meanwhile.
        """
        with self._lock:
            found = self._environment()
            found.transactions += 1
        try:
            with found.handle.begin(write=write) as transaction:
                yield _View(transaction)
        finally:
            with self._lock:
                found.transactions -= 1
                self._let_go(found)

    def read(self) -> AbstractContextManager[_View]:
        """See Engine.read."""
        return self._transaction(write=False)

    def write(self) -> AbstractContextManager[_View]:
        """See Engine.write."""
        return self._transaction(write=True)

    def close(self) -> None:
        """See Engine.close."""
        with self._lock:
            found = self._opened.get(self._path)
            if found is not None:
                found.users -= 1
                self._let_go(found)

    def _let_go(self, found: _Environment) -> None:
        """Close the file if no store and no transaction uses it any more."""
        if not found.users and not found.transactions:
            self._opened.pop(self._path, None)
            found.handle.close()


def _file(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
