"""Records and changesets as JSON: the form they take in feeds, journals and on the wire."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache, lru_cache
from typing import Any

import orjson

from registry_api.records.models import CLASSES, KINDS, Kind, Record

__all__ = ["decode_record", "dump", "encode_record", "stamp", "unstamp"]

_OPTIONS = orjson.OPT_UTC_Z


@lru_cache(maxsize=256)  # a report's time is written into five rows
def stamp(moment: datetime) -> str:
    """Format a time in fixed width, ``2026-01-04T22:15:30.000000Z``: texts sort in time order."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="microseconds")[:26] + "Z"


def unstamp(text: str) -> datetime:
    """Parse a time that ``stamp`` or ``encode_record`` wrote."""
    return datetime.fromisoformat(text)


def dump(value: object) -> bytes:
    """Write a value of JSON types, records, enums and aware datetimes as compact JSON."""
    return orjson.dumps(value, option=_OPTIONS)


def encode_record(record: Record) -> list[Any]:
    """Return ``[kind, record]``, which ``dump`` writes and ``decode_record`` reads back."""
    return [KINDS[type(record)], record]


@cache
def field_types(kind: Kind) -> dict[str, tuple[Any, ...]]:
    """Return the plain types of each field: a union's one by one, without constraints."""
    out: dict[str, tuple[Any, ...]] = {}
    for name, hint in typing.get_type_hints(CLASSES[kind]).items():
        union = typing.get_origin(hint) in {typing.Union, types.UnionType}
        out[name] = typing.get_args(hint) if union else (hint,)
    return out


@cache
def _readers(kind: Kind) -> dict[str, Callable[[Any], Any]]:
    """Return, for each field that JSON cannot represent as it is, the function that restores it."""
    out: dict[str, Callable[[Any], Any]] = {}
    for name, parts in field_types(kind).items():
        for part in parts:
            if part is datetime:
                out[name] = datetime.fromisoformat
            elif isinstance(part, type) and issubclass(part, StrEnum):
                out[name] = part
            elif typing.get_origin(part) is tuple:
                out[name] = tuple
    return out


@cache
def _names(kind: Kind) -> frozenset[str]:
    return frozenset(f.name for f in fields(CLASSES[kind]))


def decode_record(value: list[Any]) -> Record:
    """Build a record from the output of ``encode_record``; drops the fields of a newer version.

    Does not validate: feeds and journals were validated when they were written.
    """
    kind = Kind(value[0])
    data: dict[str, Any] = value[1]
    known, readers = _names(kind), _readers(kind)
    out = {}
    for name, item in data.items():
        if name in known:
            reader = readers.get(name)
            out[name] = item if reader is None or item is None else reader(item)
    return CLASSES[kind](**out)
