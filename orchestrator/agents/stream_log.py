"""What an agent's log says of its end: the result line of its program, and its last output.

Claude's and Gemini's ``stream-json`` end with a line of type ``result``; Codex's ``--json`` with
``turn.completed`` or ``turn.failed``. The forms are from the documentation of these programs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from orchestrator.redaction import redacted

__all__ = ["Result", "last_output", "result_of"]

TAIL = 256 * 1024  # bytes at the end of a log in which the result line is looked for
_CUT = 500  # characters that a record keeps


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The program's own statement of how its work ended; ``text`` is cut and has no secrets."""

    ok: bool
    text: str = ""


def result_of(tail: bytes) -> Result | None:
    """Return what the newest result line of a log says; None if there is none."""
    for line in reversed(tail.splitlines()):
        if line.startswith(b"{") and (b'"result"' in line or b'"turn.' in line):
            try:
                said = json.loads(line)
            except (ValueError, RecursionError):
                continue  # cut at the beginning of the tail, or another program's
            form = _FORMS.get(str(said.get("type")))
            if form is not None:
                return form(said)
    return None


def last_output(parts: Iterable[bytes]) -> str | None:
    """Return the end of the first of some logs that is not empty, without secrets."""
    for part in parts:
        text = _storable(part.decode("utf-8", "replace")).strip()
        if text:
            return redacted(text)[-_CUT:]
    return None


def _result(said: dict[str, Any]) -> Result:
    failed = bool(said.get("is_error")) or said.get("status") == "error"
    text = said.get("result") or said.get("error") or said.get("subtype")
    if isinstance(text, dict):
        text = text.get("message")
    return Result(ok=not failed, text=_cut(text))


def _failed_turn(said: dict[str, Any]) -> Result:
    error = said.get("error")
    return Result(ok=False, text=_cut(error.get("message") if isinstance(error, dict) else error))


_FORMS: dict[str, Callable[[dict[str, Any]], Result]] = {
    "result": _result,
    "turn.completed": lambda _: Result(ok=True),
    "turn.failed": _failed_turn,
}


def _cut(text: object) -> str:
    return redacted(_storable(text))[:_CUT] if isinstance(text, str) else ""


def _storable(text: str) -> str:
    """Return a text without U+0000 and lone surrogates, which no record may hold."""
    shown = text.encode("utf-8", "replace").decode()
    return shown.replace("\x00", "\N{REPLACEMENT CHARACTER}")
