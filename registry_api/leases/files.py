"""The leases of a workspace: files in ``.registry/leases``, for the processes of one host.

They hold times of the clock that counts from the boot of the machine, also while it sleeps, and
name the boot: a step of the wall clock changes nothing, and no lease outlives a boot.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from registry_api.errors import CorruptDocument, Unavailable
from registry_api.leases.protocol import Lease, check_lease
from registry_api.workspace import Flock, boot, make_folder, patience, replace_file

__all__ = ["FileLeases"]

_TIMEOUT = 5.0  # seconds that a call waits for another one


class FileLeases:
    """The leases in one folder, which is made when the first one is taken."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def acquire(self, name: str, holder: str, *, seconds: float) -> Lease | None:
        """See Leases.acquire."""
        check_lease(name, holder, seconds)
        with self._locked(name) as path:
            now = _now()
            other, token, until = _read(path)
            if until > now and other != holder:
                return None
            token += not until > now
            _write(path, holder, token, now + seconds)
        return Lease(name=name, holder=holder, token=token, seconds=seconds)

    def release(self, lease: Lease) -> bool:
        """See Leases.release."""
        with self._locked(lease.name) as path:
            holder, token, until = _read(path)
            if (holder, token) != (lease.holder, lease.token) or until <= _now():
                return False
            _write(path, "", token, 0.0)
            return True

    def holder(self, name: str) -> Lease | None:
        """See Leases.holder."""
        check_lease(name, "-", 1)
        if not self._folder.is_dir():
            return None
        with self._locked(name, exclusive=False) as path:
            holder, token, until = _read(path)
        left = until - _now()
        if left <= 0:
            return None
        return Lease(name=name, holder=holder, token=token, seconds=left)

    @contextmanager
    def _locked(self, name: str, *, exclusive: bool = True) -> Iterator[Path]:
        """Hold the lock of one lease; gives the path of its file. Raises Unavailable and Busy."""
        try:
            make_folder(self._folder, mode=0o700)
            lock = Flock(self._folder / f"{name}.lock")
            try:
                lock.acquire(timeout=patience(_TIMEOUT), exclusive=exclusive)
                yield self._folder / f"{name}.json"
            finally:
                lock.close()
        except OSError as error:
            raise Unavailable(
                f"{self._folder}: {error.strerror or error}", next_step="Check the folder"
            ) from error


def _now() -> float:
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _read(path: Path) -> tuple[str, int, float]:
    """Return holder, token and until when; the last is 0 for a lease of an earlier boot."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return "", 0, 0.0
    try:
        found = orjson.loads(data)
        holder, token, until = str(found["holder"]), int(found["token"]), float(found["until"])
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptDocument(f"{path}: {error}", next_step=f"rm {path}", path=str(path)) from error
    return holder, token, until if found.get("boot") == boot() else 0.0


def _write(path: Path, holder: str, token: int, until: float) -> None:
    data = {"holder": holder, "token": token, "until": until, "boot": boot()}
    # The lock of this lease is held: nobody else writes under that name.
    replace_file(path, orjson.dumps(data), aside=path.with_suffix(".new"))
