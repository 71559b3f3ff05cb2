"""The importer protocol: how the tasks of another program's files are read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from registry_api.client.importing import ImportedTask

if TYPE_CHECKING:
    from registry_api.plugins.context import OpenContext

__all__ = ["ImportedTask", "Importer", "RegisterImporter"]


class Importer(Protocol):
    """Reads the tasks of one kind of file; it never writes to the place."""

    def recognises(self, place: Path) -> bool:
        """Whether a file or folder holds what it reads; looks only, raises nothing."""

    def read(self, place: Path, context: OpenContext) -> Iterator[ImportedTask]:
        """Yield the tasks of one consistent state of the place. Raises RegistryError."""


class RegisterImporter(Protocol):
    """The callback that ``registry_register_importers`` receives."""

    def __call__(self, name: str, importer: Importer) -> None:
        """Register the importer for ``registry-backend import --reader name``."""
