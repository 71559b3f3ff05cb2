"""An archive of a key-value store: a file of its keys and values, with a SHA-256.

The file is the line ``MAGIC``, then for each entry the lengths of key and value (4 bytes each, big
endian), the key and the value, in the order of the keys. Stamps are left out: they tell whose store
it is, and stay in it.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from registry_api.authoring.key_layout import View, span_of
from registry_api.errors import CorruptDocument, Unavailable
from registry_api.workspace.durable_files import sync_folder
from registry_api.workspace.ownership import make_folder, open_owned

__all__ = ["KeyValueArchives", "entries"]

MAGIC = b"registry-backend key-value archive 1\n"

_PARTS = ("change", "id", "latest", "meta", "record", "task", "turn")

_LENGTHS = struct.Struct(">II")

_LONGEST = 64 * 2**20  # bytes of a value; more is a damaged file


def entries(view: View) -> Iterator[tuple[bytes, bytes]]:
    """Yield every key and value but the stamps, in the order of the keys."""
    for part in _PARTS:
        yield from view.scan(*span_of(part))


class KeyValueArchives:
    """The archives of a store in a folder."""

    def __init__(self, folder: Path, name: str, now: Callable[[], datetime]) -> None:
        self._folder, self._name, self._now = folder, name, now

    def write(self, view: View) -> str:
        """Write an archive durably and read it back; return its name and its SHA-256."""
        path = self._folder / f"{self._name}-{self._now():%Y%m%dT%H%M%S%f}.kv"
        written = hashlib.sha256()
        try:
            make_folder(self._folder, mode=0o700, parents=True)
            fd = open_owned(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
            with open(fd, "wb") as file:  # noqa: PTH123  (an open descriptor)
                for piece in _pieces(view):
                    file.write(piece)
                    written.update(piece)
                file.flush()
                os.fsync(fd)
            sync_folder(self._folder)
            archive = f"{path.name} {written.hexdigest()}"
            self.check(archive)
        except BaseException as error:
            path.unlink(missing_ok=True)
            if isinstance(error, OSError) and not isinstance(error, Unavailable):
                raise Unavailable(
                    f"{path} cannot be written: {error.strerror}", next_step="Free disk space"
                ) from error
            raise
        return archive

    def check(self, archive: str) -> Path:
        """Return the path of an archive; raise CorruptDocument if it is not as it was written."""
        name, _, digest = archive.partition(" ")
        path = self._folder / name
        if Path(name).name != name:
            raise _corrupt(path, "it is outside the folder of archives")
        try:
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    raise _corrupt(path, "its SHA-256 is not the recorded one")
        except OSError as error:
            raise _corrupt(path, str(error.strerror)) from error
        for _ in self.read(archive, checked=path):
            pass
        return path

    def read(self, archive: str, *, checked: Path | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Yield the entries of an archive; raises CorruptDocument."""
        path = checked or self.check(archive)
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise _corrupt(path, "it is not an archive of a key-value store")
            while head := file.read(_LENGTHS.size):
                if len(head) != _LENGTHS.size:
                    raise _corrupt(path, "it ends within an entry")
                yield tuple(_exactly(file, length, path) for length in _LENGTHS.unpack(head))  # type: ignore[misc]


def _pieces(view: View) -> Iterator[bytes]:
    yield MAGIC
    for key, value in entries(view):
        yield _LENGTHS.pack(len(key), len(value)) + bytes(key) + bytes(value)


def _exactly(file: BinaryIO, length: int, path: Path) -> bytes:
    data = file.read(length) if length <= _LONGEST else b""
    if len(data) != length:
        raise _corrupt(path, "it ends within an entry")
    return data


def _corrupt(path: Path, what: str) -> CorruptDocument:
    return CorruptDocument(
        f"the archive {path} cannot be used: {what}",
        next_step="Restore the archive from a backup",
        path=str(path),
    )
