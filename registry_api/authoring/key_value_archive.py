"""An archive of a key-value store: a file of its keys and values, with a SHA-256.

The file is the line ``MAGIC``, then for each entry the lengths of key and value (4 bytes each, big
endian), the key and the value, in the order of the keys. Stamps are left out: they tell whose store
it is, and stay in it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from registry_api.authoring.archive_files import ArchiveFiles, corrupt_archive
from registry_api.authoring.key_layout import View, span_of

__all__ = ["KeyValueArchives", "entries"]

MAGIC = b"registry-backend key-value archive 1\n"

_PARTS = ("chain", "change", "id", "latest", "meta", "record", "task", "turn")

_LENGTHS = struct.Struct(">II")

_LONGEST = 64 * 2**20  # bytes of a value; more is a damaged file


def entries(view: View) -> Iterator[tuple[bytes, bytes]]:
    """Yield every key and value but the stamps, in the order of the keys."""
    for part in _PARTS:
        yield from view.scan(*span_of(part))


class KeyValueArchives:
    """The archives of a store in a folder."""

    def __init__(self, folder: Path, name: str, now: Callable[[], datetime]) -> None:
        self._files = ArchiveFiles(folder, name, ".kv", now)

    def write(self, view: View) -> str:
        """Write an archive durably and read it back; return its name and its SHA-256."""
        with self._files.new() as path:
            with path.open("wb") as file:
                file.writelines(_pieces(view))
            archive = self._files.finished(path)
            self.check(archive)
        return archive

    def check(self, archive: str) -> None:
        """Read an archive back; raises CorruptDocument if it is not as it was written."""
        for _ in self.read(archive):
            pass

    def read(self, archive: str) -> Iterator[tuple[bytes, bytes]]:
        """Yield the entries of an archive; raises CorruptDocument."""
        path = self._files.checked(archive)
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise corrupt_archive(path, "it is not an archive of a key-value store")
            while head := file.read(_LENGTHS.size):
                if len(head) != _LENGTHS.size:
                    raise corrupt_archive(path, "it ends within an entry")
                key, value = (_exactly(file, length, path) for length in _LENGTHS.unpack(head))
                yield key, value


def _pieces(view: View) -> Iterator[bytes]:
    yield MAGIC
    for key, value in entries(view):
        yield _LENGTHS.pack(len(key), len(value)) + bytes(key) + bytes(value)


def _exactly(file: BinaryIO, length: int, path: Path) -> bytes:
    data = file.read(length) if length <= _LONGEST else b""
    if len(data) != length:
        raise corrupt_archive(path, "it ends within an entry")
    return data
