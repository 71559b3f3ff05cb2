"""Records as rows: columns are the record's fields, in their order."""

from __future__ import annotations

import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from functools import cache
from operator import attrgetter
from typing import Any

import orjson

from registry_api.records import CLASSES, PLURALS, Kind, Record, field_types, stamp, unstamp

__all__ = ["TABLES", "RowCodec", "codec"]

TABLES = PLURALS


@dataclass(frozen=True, slots=True)
class RowCodec:
    """Writes a record as named parameters and reads one from a row of ``columns``."""

    cls: type[Record]
    columns: tuple[str, ...]
    values: Callable[[Record], tuple[Any, ...]]
    slots: tuple[Callable[[Record, Any], None], ...]
    writers: tuple[tuple[str, Callable[[Any], Any]], ...]
    readers: tuple[tuple[int, Callable[[Any], Any]], ...]

    def write(self, record: Record) -> dict[str, Any]:
        """Return the parameters of a record."""
        row = dict(zip(self.columns, self.values(record), strict=True))
        for name, writer in self.writers:
            if row[name] is not None:
                row[name] = writer(row[name])
        return row

    def read(self, row: Sequence[Any]) -> Any:
        """Build the record of a row.

        Sets slot by slot: the __init__ of a frozen dataclass takes more than twice as long.
        """
        values = list(row)
        for place, reader in self.readers:
            if values[place] is not None:
                values[place] = reader(values[place])
        record = object.__new__(self.cls)
        for put, value in zip(self.slots, values, strict=True):
            put(record, value)
        return record


def _dump_list(value: tuple[str, ...]) -> str:
    return orjson.dumps(value).decode()


def _load_list(text: str) -> tuple[str, ...]:
    return tuple(orjson.loads(text))


@cache
def codec(kind: Kind) -> RowCodec:
    """Return the codec of one kind."""
    cls = CLASSES[kind]
    writers: list[tuple[str, Callable[[Any], Any]]] = []
    readers: list[tuple[int, Callable[[Any], Any]]] = []
    hints = field_types(kind)
    columns = tuple(f.name for f in fields(cls))
    for place, name in enumerate(columns):
        for part in hints[name]:
            if part is datetime:
                writers.append((name, stamp))
                readers.append((place, unstamp))
            elif part is bool:
                writers.append((name, int))
                readers.append((place, bool))
            elif typing.get_origin(part) is tuple:
                writers.append((name, _dump_list))
                readers.append((place, _load_list))
            elif isinstance(part, type) and issubclass(part, StrEnum):
                members = {m.value: m for m in part}
                writers.append((name, str))
                readers.append((place, members.__getitem__))
    return RowCodec(
        cls,
        columns,
        values=attrgetter(*columns),
        slots=tuple(getattr(cls, name).__set__ for name in columns),
        writers=tuple(writers),
        readers=tuple(readers),
    )
