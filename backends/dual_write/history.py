"""The files that tell what was done: the switches made, differences found in sampled reads."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from backends.dual_write.session import Session
from registry_api.migration import (
    Mismatch,
    PhaseRecord,
    SwitchStep,
)
from registry_api.workspace import open_owned

__all__ = ["keep_mismatches", "note_switch", "now", "read_history"]


def read_history(session: Session) -> list[dict[str, Any]]:
    """See Migration.history."""
    try:
        lines = (session.folder / "history.jsonl").read_bytes().splitlines()
    except FileNotFoundError:
        return []
    return [line for line in map(_parsed, lines) if line is not None]


def note_switch(session: Session, record: PhaseRecord, step: SwitchStep) -> None:
    """Append a switch to ``history.jsonl``; a failure to write is ignored."""
    line = orjson.dumps(record.to_dict() | {"pause_ms": step.pause_ms}) + b"\n"
    path = session.folder / "history.jsonl"
    # The switch is committed: a history that cannot be written must not say otherwise.
    with suppress(OSError):
        fd = open_owned(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
        try:
            os.write(fd, line)
            os.fsync(fd)
        finally:
            os.close(fd)


def keep_mismatches(path: Path, found: list[Mismatch], *, most: int = 100) -> None:
    """Append differences that sampled reads found; keep the last ``most`` lines."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    lines += [orjson.dumps(asdict(m) | {"at": now()}) for m in found]
    fd = open_owned(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC)
    with open(fd, "wb") as file:  # noqa: PTH123  (an open descriptor)
        file.write(b"\n".join(lines[-most:]) + b"\n")


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None  # a line cut off by a kill
    return value if isinstance(value, dict) else None


def now() -> str:
    """Return the time as ISO 8601 text in UTC."""
    return datetime.now(UTC).isoformat()
