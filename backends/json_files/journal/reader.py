"""Read a journal: apply its lines to a state, from a base line on."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import orjson

from backends.json_files.journal.file import JournalFile, find_start
from backends.json_files.journal.lines import is_complete
from backends.json_files.journal.state import JournalState
from registry_api.errors import CorruptDocument

__all__ = ["read_afresh", "read_from_base", "read_on"]

_ATTEMPTS = 3


def read_afresh(
    file: JournalFile, known: JournalState, *, reaches_back: bool = False
) -> JournalState:
    """Read the file from its newest base; an empty state if there is no file.

    ``known`` is what was read before: an unchanged file is read from the base that it names.
    ``reaches_back``: read the states of the last 15 minutes. Raises CorruptDocument.
    """
    fresh = JournalState(reaches_back=reaches_back)
    with suppress(FileNotFoundError):
        found = file.path.stat()
        fresh.inode = found.st_ino
        same = (found.st_ino, found.st_size) == (known.inode, known.size)
        if same and known.base > 0 and not reaches_back:
            fresh.size = known.base
        read_on(file, fresh)
    return fresh


def read_from_base(file: JournalFile, known: JournalState) -> JournalState:
    """Read the file from its newest base, keeping the ids that are known.

    For a file to which others appended so much, as a rollback does, that reading each line would
    take too long.
    """
    fresh = read_afresh(file, known)
    if fresh.inode == known.inode and known.entry_ids is not None:
        fresh.entry_ids = known.entry_ids | file.history_ids(known.size, fresh.size)
    if fresh.inode == known.inode and known.ids is not None:
        new = file.changeset_ids(known.size, fresh.size, floor=fresh.floor)
        fresh.ids = known.ids | new
    return fresh


def read_on(file: JournalFile, state: JournalState) -> None:
    """Apply the lines after ``state.size``; raises CorruptDocument, FileNotFoundError."""
    for attempt in range(_ATTEMPTS):
        try:
            _read_lines(file.path, state)
        except CorruptDocument:
            # Without the task's lock this may see a line that is just being written over an
            # incomplete one. A line that is really damaged stays so.
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(0.002)
        else:
            return


def _read_lines(path: Path, state: JournalState) -> None:
    with path.open("rb") as file:
        if state.size == 0:
            try:
                state.size = find_start(file, reaches_back=state.reaches_back)
            except (ValueError, KeyError, TypeError) as error:
                raise _damaged(path, 0, error) from None
            state.reaches_back = state.reaches_back or state.size == 0
        file.seek(state.size)
        for raw in file:
            if not is_complete(raw):
                break
            try:
                state.take(orjson.loads(raw), offset=state.size, length=len(raw))
            except (ValueError, KeyError, TypeError) as error:
                raise _damaged(path, state.size, error) from None
            state.size += len(raw)


def _damaged(path: Path, offset: int, error: Exception) -> CorruptDocument:
    return CorruptDocument(
        f"{path} at byte {offset}: {error}",
        next_step="Move it away: the task is then read again from its document",
        path=str(path),
    )
