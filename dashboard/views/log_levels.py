"""How bad a line of an agent's output is: agents write plain text, or a JSON object a line."""

from __future__ import annotations

import re
from typing import Any

from registry_api.records import json_text

__all__ = ["LEVELS", "is_at_least"]

LEVELS = ("warning", "error")
_ERROR = re.compile(
    r"\b(error|critical|fatal|panic|traceback|exception)\b|\b\w*(Error|Exception)\b", re.IGNORECASE
)
_WARNING = re.compile(r"\bwarn(ing)?s?\b", re.IGNORECASE)
_KEYS = ("level", "severity", "levelname", "type", "subtype")


def is_at_least(line: str, level: str) -> bool:
    """Whether a line is of a level of LEVELS or a higher one; every line is with an empty level.

    An object is judged by ``is_error`` and by the words of its level, severity, type and subtype,
    and by its message if it has no level; text by its words.
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
    words = [value[key].replace("_", " ") for key in _KEYS if isinstance(value.get(key), str)]
    if "level" not in value and isinstance(value.get("message"), str):
        words.append(value["message"])
    return " ".join(words)
