"""An archive of documents: a tar file with a manifest of SHA-256 hashes, verified before use."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from registry_api.errors import CorruptDocument
from registry_api.workspace import open_owned

__all__ = ["Archive", "Member"]

_MANIFEST = "MANIFEST.json"
_MOST_MEMBERS = 1_000_000
_MOST_BYTES = 256 * 2**20  # a member


@dataclass(frozen=True, slots=True)
class Member:
    """A file to archive under a name; ``read`` returns its bytes, None if the file is gone."""

    name: str
    read: Callable[[], bytes | None]


class Archive:
    """One archive file.

    Members are handled one at a time. Reading refuses links, paths outside the workspace, and too
    many or too large members.
    """

    def __init__(self, path: Path, *, sync: Callable[[int], None] = os.fsync) -> None:
        self.path = path
        self._sync = sync

    def write(
        self, members: list[Member], *, progress: Callable[[int, int], None] | None = None
    ) -> str:
        """Write the archive durably; return its SHA-256 (hex). Raises OSError."""
        manifest: dict[str, str] = {}
        fd = open_owned(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
        try:
            with open(fd, "w+b") as file:  # noqa: PTH123  (an open descriptor)
                with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
                    for n, member in enumerate(members):
                        data = member.read()
                        if data is not None:
                            manifest[member.name] = hashlib.sha256(data).hexdigest()
                            _add(tar, member.name, data)
                        if progress is not None:
                            progress(n + 1, len(members))
                    _add(tar, _MANIFEST, orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
                file.flush()
                self._sync(fd)
                file.seek(0)
                return hashlib.file_digest(file, "sha256").hexdigest()
        except BaseException:
            self.path.unlink(missing_ok=True)
            raise

    def check(self, digest: str) -> dict[str, str]:
        """Verify the archive against its SHA-256 and its manifest; return the manifest.

        Raises CorruptDocument.
        """
        try:
            with self.path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    raise self._corrupt("its SHA-256 is not the recorded one")
                file.seek(0)
                return self._read_back(tarfile.open(fileobj=file, mode="r:"))
        except CorruptDocument:
            raise
        except (OSError, tarfile.TarError, ValueError) as error:
            raise self._corrupt(str(error)) from None

    def read(self, digest: str) -> Iterator[tuple[str, bytes]]:
        """Verify the archive, then yield every member's name and bytes. Raises CorruptDocument."""
        names = self.check(digest)
        with tarfile.open(self.path, mode="r:") as tar:
            for info in tar:
                member = tar.extractfile(info) if info.name in names else None
                if member is not None:
                    yield info.name, member.read()

    def _read_back(self, tar: tarfile.TarFile) -> dict[str, str]:
        found: dict[str, str] = {}
        manifest: dict[str, str] | None = None
        for n, info in enumerate(tar):
            parts = Path(info.name).parts
            if not info.isreg() or info.name.startswith("/") or ".." in parts:
                raise self._corrupt(f"{info.name} is not a regular file inside the workspace")
            if n > _MOST_MEMBERS or info.size > _MOST_BYTES:
                raise self._corrupt(f"too many members, or {info.name} is too large")
            member = tar.extractfile(info)
            assert member is not None
            data = member.read()
            if info.name == _MANIFEST:
                manifest = orjson.loads(data)
            else:
                found[info.name] = hashlib.sha256(data).hexdigest()
        if manifest is None or manifest != found:
            raise self._corrupt("its members do not match its manifest")
        return manifest

    def _corrupt(self, what: str) -> CorruptDocument:
        return CorruptDocument(
            f"{self.path}: {what}",
            next_step="Keep it; registry-backend switch back writes the documents without it",
            path=str(self.path),
        )


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o600
    tar.addfile(info, io.BytesIO(data))
