"""The record of a move, ``phase.json``: its phase; a switch commits by replacing it."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from registry_api.errors import BackendMismatch, Conflict, CorruptDocument, Unavailable
from registry_api.migration.phase import MigrationPhase, PhaseRecord
from registry_api.workspace.durable_files import replace_file
from registry_api.workspace.file_lock import Flock
from registry_api.workspace.instance import make_state_folder, registry_id

__all__ = ["PhaseFile", "move_id"]


_SPACE = uuid.UUID("6f0dbb1f-4f0c-4a3a-9d6a-5b0a1f7a2c11")


def move_id(folder: Path, record: PhaseRecord) -> str:
    """Return the id of a record's move; ``folder`` is ``.registry``.

    The same for the same move, so that a target which a refused switch has stamped is accepted by
    the next one, and so that a record of version 0.1 has an id, too.
    """
    parts = (registry_id(folder), str(len(record.completed)), record.source, record.target)
    return uuid.uuid5(_SPACE, "\n".join(parts)).hex


class PhaseFile:
    """The file ``.registry/phase.json``; replacing it is the only commit point of a switch."""

    def __init__(self, folder: Path, *, unrecorded: PhaseRecord | None = None) -> None:
        self.path = folder / "phase.json"
        self._place = str(self.path)
        self._unrecorded = unrecorded or PhaseRecord()
        self._seen: tuple[tuple[int, ...], PhaseRecord] | None = None

    def read(self) -> PhaseRecord | None:
        """Return the record, None if no move is recorded; raises CorruptDocument.

        Never stale: the file is only ever replaced, so a changed stat means a changed record.
        """
        try:
            found = os.stat(self._place)  # noqa: PTH116  (hot path)
        except (FileNotFoundError, NotADirectoryError):
            if self._seen is not None:
                refuse_missing(self.path.parent, self._seen[1].epoch)
            return None
        key = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        if self._seen is not None and self._seen[0] == key:
            return self._seen[1]
        try:
            data: dict[str, Any] = orjson.loads(self.path.read_bytes())
            record = PhaseRecord.from_dict(data)
        except OSError as error:
            raise Unavailable(
                f"{self.path} cannot be read: {error.strerror}", next_step="Check the folder"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptDocument(
                f"{self.path}: {str(error).splitlines()[0]}",
                next_step="Restore it: the last line of .registry/history.jsonl shows the move",
                path=str(self.path),
            ) from None
        if record.phase is not MigrationPhase.SOURCE_ONLY and not record.move:
            record = replace(record, move=move_id(self.path.parent, record))
        self._seen = (key, record)
        return record

    def current(self) -> PhaseRecord:
        """Return the record; without one, phase 0 of the move that would be recorded."""
        return self.read() or self._unrecorded

    def settle_zone(self, zone: str) -> PhaseRecord:
        """Record the time zone of legacy timestamps unless one is recorded; returns the record."""
        record = self.current()
        if record.zone is not None:
            return record
        with self._alone():
            record = self.current()
            if record.zone is None:
                record = replace(record, zone=zone)
                self._replace(record)
        return record

    def record_store(self, place: str) -> None:
        """Record which store the workspace uses, unless something is recorded."""
        if self.read() is None:
            with self._alone():
                if self.read() is None:
                    self._replace(PhaseRecord(source=place, target="", foreign_writers=False))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Serialise writers of the record: none replaces a record that it has not read."""
        try:
            make_state_folder(self.path.parent)
        except OSError as error:
            raise Unavailable(
                f"{self.path.parent}: {error.strerror}", next_step="Check the folder"
            ) from error
        lock = Flock(self.path.with_name("phase.lock"))
        try:
            with lock.exclusive(5.0):
                yield
        finally:
            lock.close()

    def advance(self, expected_epoch: int, new: PhaseRecord) -> PhaseRecord:
        """Replace the record durably; raises Conflict if its epoch is not ``expected_epoch``."""
        with self._alone():
            now = self.read()
            actual = now.epoch if now else 0
            if actual != expected_epoch:
                raise Conflict("phase.json", expected=expected_epoch, actual=actual)
            if now is not None:
                new = replace(new, target_phase=now.target_phase, zone=now.zone or new.zone)
            self._replace(new)
        return new

    def note(self, *, epoch: int | None = None, **fields: Any) -> None:
        """Change fields other than the phase (target phase, verified).

        With ``epoch``, only if the record still has that epoch: a later record is more recent.
        """
        with self._alone():
            record = self.current()
            if epoch is None or epoch == record.epoch:
                self._replace(replace(record, **fields))

    def _replace(self, record: PhaseRecord) -> None:
        data = orjson.dumps(record.to_dict(), option=orjson.OPT_INDENT_2) + b"\n"
        aside = self.path.with_name(f"phase.json.{os.getpid()}.{threading.get_ident()}")
        try:
            replace_file(self.path, data, aside=aside)
        except OSError as error:
            raise Unavailable(
                f"{self.path} cannot be written: {error.strerror}; the phase is unchanged",
                next_step="Free space or check the folder, then try again",
            ) from error


def refuse_missing(folder: Path, target_epoch: int | None) -> None:
    """Raise BackendMismatch if the record is missing although the target has recorded an epoch."""
    if target_epoch:
        raise BackendMismatch(
            f"{folder / 'phase.json'} is missing, but the target recorded epoch {target_epoch}",
            next_step="Restore it: the last line of .registry/history.jsonl shows the move",
        )
