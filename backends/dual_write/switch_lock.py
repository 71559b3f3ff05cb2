"""One switch or recovery at a time: the lock ``.registry/switch.lock``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from backends.dual_write.session import Session
from registry_api.errors import Busy, RegistryError, Unavailable
from registry_api.workspace import open_owned

__all__ = ["alone"]


@contextmanager
def alone(session: Session) -> Iterator[None]:
    """Hold the lock in this context; raises Busy if another process holds it, or Unavailable."""
    path = session.folder / "switch.lock"
    lock = FileLock(path, mode=0o600, fallback_to_soft=False)
    try:
        os.close(open_owned(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC))
        lock.acquire(timeout=0)
        yield
    except Timeout:
        raise Busy(
            "another switch is running", next_step="Wait for it: registry-backend status"
        ) from None
    except OSError as error:  # a full or read-only disk, a file of another user
        if isinstance(error, RegistryError):
            raise
        raise Unavailable(
            f"{error.filename or session.folder}: {error.strerror or error}; the phase is "
            f"{session.record().phase:d}",
            next_step="Free space or check that file, then try again",
        ) from error
    finally:
        lock.release()
