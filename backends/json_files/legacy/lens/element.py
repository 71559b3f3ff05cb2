"""Read and write one element of a document, the object of one record, by its table of fields."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

from backends.json_files.legacy.lens.dialects import (
    DEFAULTS,
    DERIVED,
    OURS,
    Dialect,
    Field,
    fields_of,
)
from backends.json_files.legacy.lens.values import UNREADABLE
from backends.jsonl.times import Times
from registry_api.records import CLASSES, Kind, Record, json_text

__all__ = ["is_default", "read_element", "write_element"]

Json = dict[str, Any]


@cache
def _defaults(kind: Kind) -> dict[str, Any]:
    return {
        f.name: None if f.default is dataclasses.MISSING else f.default
        for f in dataclasses.fields(CLASSES[kind])
    }


@cache
def _plain_keys(kind: Kind, dialect: Dialect) -> frozenset[str]:
    return frozenset(f.key for f in fields_of(kind, dialect) if not f.ours)


def is_default(element: Json, key: str) -> bool:
    """Return whether a value was written only for legacy programs: the record has none."""
    named = ours_of(element).get("defaults")
    return isinstance(named, list) and key in named and element.get(key) == DEFAULTS.get(key)


def ours_of(element: Json) -> Json:
    """Return the object under our key, {} if there is none."""
    value = element.get(OURS)
    return value if isinstance(value, dict) else {}


def read_element(
    kind: Kind,
    element: Json,
    *,
    dialect: Dialect,
    times: Times,
    derived: frozenset[str] = frozenset(),
    **fixed: Any,
) -> Record:
    """Return the record; ``fixed`` fields come from elsewhere, ``derived`` keys are not kept.

    A value that is invalid for its field stays in ``extra`` under its own key.
    """
    values: dict[str, Any] = {}
    unreadable: Json = {}
    for field in fields_of(kind, dialect):
        value = _read(field, element, times)
        if value is UNREADABLE:
            unreadable[field.key] = element[field.key]
            if field.unreadable is not None:
                values[field.name] = field.unreadable
        elif value is not _ABSENT:
            values[field.name] = value
    skip = _plain_keys(kind, dialect) | DERIVED[kind] | derived
    unknown = {k: v for k, v in element.items() if k not in skip} | unreadable
    kept = ours_of(element).get("extra")
    extra = unknown
    if isinstance(kept, dict):
        extra = {k: unknown.pop(k, v) for k, v in kept.items() if k in unknown or k in skip}
        extra |= unknown
    values |= fixed
    return CLASSES[kind](**values, extra=json_text.dump_text(extra) if extra else "{}")


_ABSENT = object()


def _read(field: Field, element: Json, times: Times) -> Any:
    place = ours_of(element) if field.ours else element
    if field.key not in place or is_default(element, field.key):
        return _ABSENT
    value = field.converter.read(place[field.key], times)
    return _ABSENT if value is UNREADABLE and field.ours else value


def write_element(
    kind: Kind,
    record: Record,
    element: Json,
    *,
    dialect: Dialect,
    times: Times,
    derived: frozenset[str] = frozenset(),
) -> None:
    """Change ``element`` so that ``read_element`` returns the record; equal values stay untouched.

    An empty element gets every key that legacy programs expect.
    """
    new = not element
    ours = dict(ours_of(element))
    extra: Json = json_text.parse_trusted(record.extra.encode()) if record.extra != "{}" else {}
    unread = list[str]()
    for field in fields_of(kind, dialect):
        wanted = getattr(record, field.name)
        found = _read(field, element, times)
        default = _defaults(kind)[field.name]
        if found is UNREADABLE and wanted == (field.unreadable or default) and field.key in extra:
            if _same(extra[field.key], element[field.key]):
                unread.append(field.key)
                continue
        elif found is _ABSENT and wanted == default and not (new and field.always):
            continue
        if wanted is None and found is not UNREADABLE and found is not None and not field.always:
            # Legacy programs check whether the key exists; a null that they wrote stays.
            (ours if field.ours else element).pop(field.key)
            if kind is Kind.TASK and field.key in DEFAULTS:
                named = ours.get("defaults")
                ours["defaults"] = [*(named if isinstance(named, list) else []), field.key]
                element[field.key] = DEFAULTS[field.key]
        elif found is UNREADABLE or found != wanted:
            (ours if field.ours else element)[field.key] = field.converter.write(wanted, times)
    known = _plain_keys(kind, dialect) | DERIVED[kind] | derived
    _write_unknown(element, {k: v for k, v in extra.items() if k not in known}, known)
    if "defaults" in ours:
        missing = {f.key for f in fields_of(kind, dialect) if getattr(record, f.name) is None}
        named = ours["defaults"] if isinstance(ours["defaults"], list) else []
        ours["defaults"] = [k for k in named if k in (*missing, "current_phase_index")]
    ours.pop("extra", None)
    if list(extra) != [k for k in element if k not in known] + unread:
        # A field uses one of the keys, or the order would change: keep all of it under our key.
        ours["extra"] = extra
    if ours:
        element[OURS] = ours
    else:
        element.pop(OURS, None)


def _write_unknown(element: Json, unknown: Json, known: frozenset[str]) -> None:
    """Replace the keys of ``element`` that are not ``known`` by ``unknown``, in its order."""
    for key in [k for k in element if k not in known and k not in unknown]:
        del element[key]
    for key, value in unknown.items():
        if key not in element or not _same(element[key], value):
            element[key] = value
    if [k for k in element if k not in known] != list(unknown):
        for key in unknown:
            element[key] = element.pop(key)


def _same(a: Any, b: Any) -> bool:
    """Return whether two JSON values are the same; for Python 1 == 1.0 == True."""
    return type(a) is type(b) and json_text.dump(a) == json_text.dump(b)
