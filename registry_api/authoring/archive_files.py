"""The archive files of a store that a move leaves: written durably, known by their SHA-256."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from registry_api.errors import CorruptDocument, RegistryError, Unavailable
from registry_api.workspace.durable_files import sync_folder
from registry_api.workspace.ownership import make_folder, open_owned

__all__ = ["ArchiveFiles", "corrupt_archive"]


class ArchiveFiles:
    """Files ``<stem>-<time><suffix>`` in a folder, named as ``MigrationSource.archive`` does: the
    file's name and its SHA-256, separated by a blank.
    """

    def __init__(self, folder: Path, stem: str, suffix: str, now: Callable[[], datetime]) -> None:
        self._folder, self._stem, self._suffix, self._now = folder, stem, suffix, now

    @contextmanager
    def new(self) -> Iterator[Path]:
        """Create an empty file, readable by its owner only; remove it if the block fails.

        Raises Unavailable where the file system fails.
        """
        path = self._folder / f"{self._stem}-{self._now():%Y%m%dT%H%M%S%f}{self._suffix}"
        try:
            make_folder(self._folder, mode=0o700, parents=True)
            os.close(open_owned(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC))
        except OSError as error:
            raise _unwritten(path, error) from error
        try:
            yield path
        except BaseException as error:
            path.unlink(missing_ok=True)
            if isinstance(error, OSError) and not isinstance(error, RegistryError):
                raise _unwritten(path, error) from error
            raise

    def finished(self, path: Path) -> str:
        """Sync a file and its name; return its name and SHA-256. Raises OSError."""
        with path.open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        sync_folder(self._folder)
        return f"{path.name} {digest}"

    def checked(self, archive: str) -> Path:
        """Return the path of an archive; raise CorruptDocument if its SHA-256 is another one."""
        name, _, digest = archive.partition(" ")
        path = self._folder / name
        if Path(name).name != name:
            raise corrupt_archive(path, "it is outside the folder of archives")
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise corrupt_archive(path, str(error.strerror)) from error
        if found != digest:
            raise corrupt_archive(path, "its SHA-256 is not the recorded one")
        return path


def corrupt_archive(path: Path, what: str) -> CorruptDocument:
    """Return the error for an archive that cannot be used."""
    return CorruptDocument(
        f"the archive {path} cannot be used: {what}",
        next_step="Restore the archive from a backup",
        path=str(path),
    )


def _unwritten(path: Path, error: OSError) -> Unavailable:
    return Unavailable(f"{path} cannot be written: {error.strerror}", next_step="Free disk space")
