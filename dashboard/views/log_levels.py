"""How bad a line of an agent's output is: agents write plain text, or a JSON object a line."""

from __future__ import annotations

import re
from typing import Any

from registry_api.records import json_text

__all__ = ["LEVELS", "is_at_least"]

LEVELS = ("warning", "error")
_ERROR = re.compile(
    r"\b(errors?|err|critical|fatal|panic|traceback|exception)\b|\b\w*(Error|Exception)\b"
    r"|^[EF]\d{4}\b",
    re.IGNORECASE,
)
_WARNING = re.compile(r"\bwarn(ing)?s?\b", re.IGNORECASE)
_KEYS = ("level", "severity", "levelname", "type", "subtype")


def is_at_least(line: str, level: str) -> bool:
    """Whether a line is of a level of LEVELS or a higher one; every line is with an empty level.

    An object is judged by ``is_error``, by a level that is a number (from 40 or 50 on), by the
    words of its level, severity, type and subtype, and by its message if it has no level; text is
    judged by its words.
    """
    if not level:
        return True
    text = _judged(line)
    return bool(_ERROR.search(text) or (level == "warning" and _WARNING.search(text)))


def _judged(line: str) -> str:
    if not line.startswith("{"):
        return line
    try:
        value: Any = json_text.parse(line.encode())
    except ValueError:
        return line
    if not isinstance(value, dict):
        return line
    if value.get("is_error") is True:
        return "error"
    number = value.get("level")
    if isinstance(number, int) and number >= 40:
        return "error" if number >= 50 else "warning"
    words = [value[key].replace("_", " ") for key in _KEYS if isinstance(value.get(key), str)]
    if "level" not in value:
        words += [value[key] for key in ("message", "msg") if isinstance(value.get(key), str)]
    return " ".join(words)
