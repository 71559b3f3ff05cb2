"""The lines of a journal: how they are written, and what can be read of one without parsing it.

A line is a JSON object:

``change``  a changeset as applied: ``r`` revision, ``n`` feed number, ``d`` digest, ``c`` chain,
            ``h`` hash of the document after it, ``logs`` how far the logs are read, ``cs`` the
            changeset
``same``    a foreign write that changed no record: only the document's hash
``base``    the whole state, so that a reader need not read the journal from its start
``history`` history records of a task that was replaced as a whole, which are not in its feed

Every line holds ``b``, the offset of the newest base line before it. A line is valid once its
newline is there; the next writer cuts off a line that a kill left incomplete.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import orjson

from registry_api.records import (
    HISTORIES,
    Changeset,
    History,
    Put,
    dump,
    encode_record,
)

__all__ = [
    "BASE",
    "FOREIGN",
    "IDS",
    "IDS_OF_HISTORIES",
    "WITH_HISTORIES",
    "History",
    "change_line",
    "highest_number",
    "histories_of",
    "history_lines",
    "is_complete",
    "numbers_in",
    "same_line",
]

FOREIGN = "foreign"  # the actor of a change that another program made

BASE = b'{"k":"base"'
IDS = re.compile(
    rb'^\{"k":"change","r":(\d+),"n":(\d+),"id":"([0-9a-f-]{36})","d":"([0-9a-f]{64})"'
)
# As encode_record writes them; inside a text the quotes would be escaped.
IDS_OF_HISTORIES = re.compile(
    rb'"(progress|finding)",\{"task_id":"[^"]*","(?:entry|finding)_id":"([^"]+)"'
)
MARKS = {kind: f'"{kind}",{{"task_id":'.encode() for kind in HISTORIES}
WITH_HISTORIES = (b'{"k":"change"', b'{"k":"history"')
_BATCH = 500  # records per history line


def is_complete(raw: bytes) -> bool:
    """Return whether a line is valid: no line holds NUL, that is reserved space."""
    return raw.endswith(b"\n") and b"\x00" not in raw


def change_line(
    changeset: Changeset,
    *,
    digest: str,
    chain: str,
    text: str,
    revision: int,
    number: int,
    hash_after: str,
    logs: dict[str, int],
    lineage: str,
    base: int,
    trim_to: tuple[int, datetime] | None = None,
    shown: bool = True,
) -> bytes:
    """Return the line of a change; ``base`` is the offset of the newest base line before it.

    ``trim_to``: the feed number up to which lines have expired, and the latest time of their ids.
    ``shown`` False: the document never held exactly this state, since several changes were written
    at once.
    """
    head = {
        "k": "change",
        "r": revision,
        "n": number,
        "id": str(changeset.id),
        "d": digest,
        "c": chain,
        "l": lineage,
        "h": hash_after,
        "at": changeset.at,
        "b": base,
        "logs": logs,
        "x": trim_to[1] if trim_to else None,
        "f": trim_to[0] if trim_to else 0,
        "cs": orjson.Fragment(text),
    }
    if not shown:
        head["mid"] = True
    return dump(head) + b"\n"


def same_line(hash_after: str, at: datetime, *, base: int, logs: dict[str, int]) -> bytes:
    """Return the line of a foreign write that changed no record."""
    line = {"k": "same", "h": hash_after, "at": at, "b": base, "logs": logs}
    return dump(line) + b"\n"


def history_lines(records: list[History], at: datetime | None) -> Iterator[bytes]:
    """Yield the lines of the history records of a replaced task."""
    for n in range(0, len(records), _BATCH):
        batch = [encode_record(r) for r in records[n : n + _BATCH]]
        yield dump({"k": "history", "at": at, "b": 0, "records": batch}) + b"\n"


def histories_of(changeset: Changeset) -> list[History]:
    """Return the history records that a changeset appends."""
    return [
        op.record for op in changeset.ops if isinstance(op, Put) and isinstance(op.record, History)
    ]


def numbers_in(path: Path) -> Iterator[int]:
    """Yield the feed numbers of a journal's changes."""
    with path.open("rb") as file:
        for raw in file:
            found = IDS.match(raw)
            if found:
                yield int(found[2])


def highest_number(folder: Path) -> int:
    """Return the highest feed number in the journals of a folder."""
    return max((n for path in folder.glob("*.journal") for n in numbers_in(path)), default=0)
