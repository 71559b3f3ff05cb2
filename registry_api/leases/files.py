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

from registry_api.errors import CorruptDocument, RegistryError, Unavailable
from registry_api.leases.protocol import Lease, check_lease, check_name
from registry_api.workspace import Flock, boot, make_folder, patience, replace_file

__all__ = ["FileLeases"]

_TIMEOUT = 5.0  # seconds that a call waits for another one


class FileLeases:
    """The leases in one folder, which is made when the first one is taken."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def acquire_lease(self, name: str, holder: str, *, seconds: float) -> Lease | None:
        """See Leases.acquire_lease."""
        check_lease(name, holder, seconds)
        with self._locked(name) as path:
            other, token, left = _read(path)
            if left > 0 and other != holder:
                return None
            token += not left > 0
            _write(path, holder, token, seconds)
        return Lease(name=name, holder=holder, token=token, seconds=seconds)

    def release_lease(self, lease: Lease) -> bool:
        """See Leases.release_lease."""
        check_name(lease.name)
        with self._locked(lease.name) as path:
            holder, token, left = _read(path)
            if (holder, token) != (lease.holder, lease.token) or left <= 0:
                return False
            _write(path, "", token, 0.0)
            return True

    def lease_holder(self, name: str) -> Lease | None:
        """See Leases.lease_holder."""
        check_name(name)
        try:
            holder, token, left = _read(self._folder / f"{name}.json")
        except OSError as error:
            raise self._unavailable(error) from error
        return Lease(name=name, holder=holder, token=token, seconds=left) if left > 0 else None

    @contextmanager
    def _locked(self, name: str) -> Iterator[Path]:
        """Hold the lock of one lease; gives the path of its file. Raises Busy and Unavailable."""
        try:
            make_folder(self._folder, mode=0o700)
            lock = Flock(self._folder / f"{name}.lock")
            try:
                lock.acquire(timeout=patience(_TIMEOUT))
                yield self._folder / f"{name}.json"
            finally:
                lock.close()
        except RegistryError:  # some of them are OSErrors
            raise
        except OSError as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: OSError) -> Unavailable:
        return Unavailable(
            f"{self._folder}: {error.strerror or error}", next_step="Check the folder"
        )


def _now() -> float:
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _read(path: Path) -> tuple[str, int, float]:
    """Return holder, token and the seconds left; these are 0 for a lease of an earlier boot."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return "", 0, 0.0
    try:
        found = orjson.loads(data)
        holder, token = str(found["holder"]), int(found["token"])
        granted, until = float(found["granted"]), float(found["until"])
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptDocument(
            f"{path}: {error}",
            next_step=f"End the processes that may hold it, then rm {path}: its tokens begin again",
            path=str(path),
        ) from error
    # Where the boot is not known, a clock that went back tells of another one.
    now = _now()
    same_boot = found.get("boot") == boot() and granted <= now
    return holder, token, until - now if same_boot else 0.0


def _write(path: Path, holder: str, token: int, seconds: float) -> None:
    now = _now()
    data = {
        "holder": holder,
        "token": token,
        "granted": now,
        "until": now + seconds,
        "boot": boot(),
    }
    # The lock of this lease is held: nobody else writes under that name.
    replace_file(path, orjson.dumps(data), aside=path.with_suffix(".new"))
