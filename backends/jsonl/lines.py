"""Convert a line of a log to its record and back.

Our lines hold ``entry_id`` and ``changeset``. The id of a foreign line is made from the generation
of its log (the hash of the log's first line, which a log keeps when it is moved to ``archive/`` and
a re-created one does not have), its offset and its bytes. So it stays the same when the log moves.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from backends.jsonl.times import Times
from registry_api.records import (
    KINDS,
    SAFE_INT,
    Finding,
    History,
    Kind,
    ProgressEntry,
    is_id,
    json_text,
)

__all__ = ["LineError", "encode_line", "generation", "parse_line", "without_id"]

_COMMON = {"timestamp", "agent_id", "message", "entry_id", "changeset", "foreign"}
_OURS = {"entry_id", "changeset", "foreign"}
_KNOWN = {
    Kind.PROGRESS: _COMMON | {"status", "progress"},
    Kind.FINDING: _COMMON | {"finding_type", "severity", "data", "phase_index"},
}


class LineError(ValueError):
    """An error for a line that is not an entry; the message says why."""


def generation(first_line: bytes) -> str:
    """Return the name of a log's generation; at most 4096 bytes of its first line count."""
    return hashlib.blake2b(first_line, digest_size=9).hexdigest()


def parse_line(
    raw: bytes, *, kind: Kind, task_id: str, times: Times, log: str, offset: int
) -> History:
    """Parse one line, without its newline; ``log`` is the generation, ``offset`` in bytes.

    Raises LineError. A value that is invalid for its field stays in ``extra`` under its own key.
    """
    try:
        data = json_text.parse(raw)
    except ValueError as error:
        raise LineError(str(error)) from None
    if not isinstance(data, dict):
        raise LineError(f"a JSON {type(data).__name__} instead of an object")
    moment = times.read(data.get("timestamp"))
    if moment is None:
        raise LineError("no timestamp")
    agent_id: Any = data.get("agent_id")
    if not is_id(agent_id):
        raise LineError(f"agent_id {agent_id!r} is not a valid id")
    ours = isinstance(data.get("changeset"), str) and is_id(data.get("entry_id"))
    key = data["entry_id"] if ours else _foreign_id(raw, log, offset)
    known = _KNOWN[kind] if ours else _KNOWN[kind] - _OURS
    extra = {} if data.keys() <= known else {k: v for k, v in data.items() if k not in known}
    if ours and isinstance(data.get("extra"), dict):
        extra = data["extra"]
    message = _text(data, "message", "", extra)
    foreign = data.get("foreign") is True if ours else True
    record: History
    if kind is Kind.PROGRESS:
        record = ProgressEntry(
            task_id=task_id,
            agent_id=agent_id,
            timestamp=moment,
            message=message,
            foreign=foreign,
            entry_id=key,
            status=_text(data, "status", "", extra),
            progress=_int(data, "progress", 0, extra),
            extra=json_text.dump_text(extra) if extra else "{}",
        )
    else:
        payload = data.get("data")
        if "data" in data and not isinstance(payload, dict):
            extra["data"] = payload
        record = Finding(
            task_id=task_id,
            agent_id=agent_id,
            timestamp=moment,
            message=message,
            foreign=foreign,
            finding_id=key,
            finding_type=_text(data, "finding_type", "", extra),
            severity=_text(data, "severity", "", extra),
            data=json_text.dump_text(payload) if isinstance(payload, dict) else "{}",
            phase_index=_int(data, "phase_index", None, extra),
            extra=json_text.dump_text(extra),
        )
    return record


def encode_line(record: History, *, changeset: str, times: Times) -> bytes:
    """Return a record as a line of ours, with its newline, with the keys of legacy programs."""
    data: dict[str, Any] = {
        "timestamp": times.write(record.timestamp),
        "agent_id": record.agent_id,
    }
    if isinstance(record, ProgressEntry):
        data |= {"status": record.status, "message": record.message, "progress": record.progress}
        data["entry_id"] = record.entry_id
    else:
        data |= {
            "finding_type": record.finding_type,
            "severity": record.severity,
            "message": record.message,
            "data": json_text.parse_trusted(record.data.encode()),
        }
        if record.phase_index is not None:
            data["phase_index"] = record.phase_index
        data["entry_id"] = record.finding_id
    data["changeset"] = changeset
    if record.foreign:
        data["foreign"] = True
    if record.extra == "{}":
        return json_text.dump(data) + b"\n"
    extra = json_text.parse_trusted(record.extra.encode())
    clash = extra.keys() & (_KNOWN[KINDS[type(record)]] | {"extra"})
    return json_text.dump(data | ({"extra": extra} if clash else extra)) + b"\n"


def without_id(record: History) -> History:
    """Return the content of a record, without its id.

    The id of a foreign record depends on the place of its line, which changes when a log is
    truncated.
    """
    if isinstance(record, ProgressEntry):
        return replace(record, entry_id="")
    return replace(record, finding_id="")


def _foreign_id(raw: bytes, log: str, offset: int) -> str:
    digest = hashlib.blake2b(f"{log} {offset} ".encode() + raw, digest_size=12).hexdigest()
    return f"foreign-{digest}"


def _text(data: dict[str, Any], key: str, default: str, extra: dict[str, Any]) -> str:
    value = data.get(key, default)
    if isinstance(value, str) and "\x00" not in value:
        return value
    extra[key] = value
    return default


def _int(data: dict[str, Any], key: str, default: Any, extra: dict[str, Any]) -> Any:
    value = data.get(key, default)
    if type(value) is int and -SAFE_INT <= value <= SAFE_INT:
        return value
    if key in data:
        extra[key] = value
    return default
