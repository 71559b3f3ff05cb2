"""A strict JSON reader: it refuses what two parsers could read differently.

A number whose text Python would not write back the same is kept as its text (``Number``), so that
``dump`` writes every value as it was. Refused: duplicate keys, NaN and infinities, lone surrogates,
anything but one document, nesting beyond 64 levels. A leading byte order mark is skipped.
"""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from functools import cache
from typing import Any

import orjson

__all__ = ["Number", "dump", "dump_text", "parse", "parse_trusted"]

MAX_DEPTH = 64

# Numbers that orjson could change silently: long, with exponent, -0, trailing or many zeros.
_DELICATE = re.compile(rb"[0-9.]{16}|[0-9.][eE]|-0\b|\.[0-9]+0(?![0-9])|\.0000")

_SURROGATE = re.compile("[\ud800-\udfff]")


class Number:
    """A number kept as its text."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Number) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Number({self.text!r})"


def parse(data: bytes) -> Any:
    """Parse one document of unknown origin; raises ValueError that says what is wrong and where."""
    data = data.removeprefix(BOM_UTF8)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{_encoding(data)} at byte {error.start}") from None
    if not text.strip():
        raise ValueError("empty")
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    try:
        value = _strict().decode(text)
    except json.JSONDecodeError as error:
        position = len(text[: error.pos].encode())
        raise ValueError(f"{error.msg} at byte {position}") from None
    if _SURROGATE_ESCAPE.search(text):
        _refuse_surrogates(value)
    return value


def parse_trusted(data: bytes) -> Any:
    """Parse a document that ``parse`` accepted or ``dump`` wrote: the same value, faster."""
    data = data.removeprefix(BOM_UTF8)
    if _DELICATE.search(data):
        return _strict().decode(data.decode("utf-8"))
    return orjson.loads(data)


def dump(value: object, *, indent: bool = False) -> bytes:
    """Write a value that ``parse`` returned, or one of JSON types; numbers keep their text."""
    return orjson.dumps(value, default=_fragment, option=orjson.OPT_INDENT_2 if indent else None)


def dump_text(value: object) -> str:
    """Return ``dump`` as text."""
    return dump(value).decode()


_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


def _encoding(data: bytes) -> str:
    """Describe the probable encoding of a text that is not UTF-8."""
    return "UTF-16, not UTF-8," if data[:2] in {BOM_UTF16_LE, BOM_UTF16_BE} else "not UTF-8"


def _depth(text: str) -> int:
    """Return the deepest nesting of brackets outside strings."""
    depth = deepest = 0
    for token in re.finditer(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', text, re.DOTALL):
        if token[0] in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif token[0] in "]}":
            depth -= 1
    return deepest


def _fragment(value: object) -> orjson.Fragment:
    if isinstance(value, Number):
        return orjson.Fragment(value.text)
    raise TypeError(f"{type(value).__name__} is not a JSON value")


@cache
def _strict() -> json.JSONDecoder:
    return json.JSONDecoder(
        object_pairs_hook=_pairs, parse_float=_float, parse_int=_int, parse_constant=_constant
    )


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen = set[str]()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key!r} appears twice in one object")
            seen.add(key)
    return value


def _float(text: str) -> float | Number:
    value = float(text)
    return value if repr(value) == text and "e" not in text else Number(text)


def _int(text: str) -> int | Number:
    # 2**63 and beyond would come back from orjson as floats.
    return int(text) if len(text) < 19 and text != "-0" else Number(text)


def _constant(text: str) -> None:
    raise ValueError(f"{text} is not a JSON number")


def _refuse_surrogates(value: object) -> None:
    if isinstance(value, str):
        if _SURROGATE.search(value):
            raise ValueError("a text contains a lone surrogate")
    elif isinstance(value, list):
        for item in value:
            _refuse_surrogates(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            _refuse_surrogates(key)
            _refuse_surrogates(item)
