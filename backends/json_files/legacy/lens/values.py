"""Converters that read and write one value of a document."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from backends.jsonl.times import Times
from registry_api.records import SAFE_INT, json_text

__all__ = [
    "UNREADABLE",
    "Converter",
    "choice",
    "flag",
    "integer",
    "json_of",
    "moment",
    "percent",
    "text",
    "texts",
]


class _Unreadable:
    """The marker of a value that is invalid for its field, which stays in ``extra``."""


UNREADABLE = _Unreadable()


@dataclass(frozen=True, slots=True)
class Converter:
    """A pair: ``read(value, times)`` returns a value or UNREADABLE, ``write`` is its inverse."""

    read: Callable[[Any, Times], Any]
    write: Callable[[Any, Times], Any] = lambda value, _: value


def _clean(value: Any) -> bool:
    return isinstance(value, str) and "\x00" not in value


text = Converter(lambda v, _: v if _clean(v) else UNREADABLE)
optional_text = Converter(lambda v, _: v if v is None or _clean(v) else UNREADABLE)
flag = Converter(lambda v, _: v if isinstance(v, bool) else UNREADABLE)
texts = Converter(
    lambda v, _: tuple(v) if isinstance(v, list) and all(map(_clean, v)) else UNREADABLE,
    lambda v, _: list(v),
)


def _integer(value: Any, _: Times) -> Any:
    fits = value is None or (type(value) is int and -SAFE_INT <= value <= SAFE_INT)
    return value if fits else UNREADABLE


optional_integer = Converter(_integer)
integer = Converter(lambda v, t: UNREADABLE if v is None else _integer(v, t))


def _percent(value: Any, times: Times) -> Any:
    """Read numbers as people and models write them: 55, "55", "55%", 66.6."""
    if isinstance(value, str):
        try:
            value = float(value.strip().removesuffix("%"))
        except ValueError:
            return UNREADABLE
    if isinstance(value, float):
        value = round(value) if math.isfinite(value) else None
    return UNREADABLE if value is None else _integer(value, times)


percent = Converter(_percent)


def _read_moment(value: Any, times: Times) -> Any:
    if value is None:
        return None
    found = times.read(value)
    return UNREADABLE if found is None else found


def _write_moment(value: datetime | None, times: Times) -> str | None:
    return None if value is None else times.write(value)


moment = Converter(_read_moment, _write_moment)
required_moment = Converter(
    lambda v, t: UNREADABLE if v is None else _read_moment(v, t), _write_moment
)


def choice(words: dict[str, StrEnum], names: dict[StrEnum, str]) -> Converter:
    """Return the converter of a vocabulary: the words read (lower case) and the one written.

    Case and surrounding blanks are ignored.
    """
    return Converter(
        lambda v, _: words.get(v.strip().lower(), UNREADABLE) if isinstance(v, str) else UNREADABLE,
        lambda v, _: names[v],
    )


def json_of(kind: type) -> Converter:
    """Return the converter of a field that holds JSON text of an object or an array."""
    return Converter(
        lambda v, _: json_text.dump_text(v) if isinstance(v, kind) else UNREADABLE,
        lambda v, _: json_text.parse_trusted(v.encode()),
    )
