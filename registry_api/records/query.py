"""Queries and pages: the filters, and one sort order for every store.

A page is ordered by (sort key, task id, record key), compared byte by byte, so that a cursor of one
store can be continued in another.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, Generic, TypeAlias, TypeVar

import orjson

from registry_api.errors import InvalidQuery
from registry_api.records.models import SAFE_INT, Kind, is_text, utc
from registry_api.records.status import AgentStatus, PhaseStatus, ReviewStatus, TaskStatus

__all__ = ["ALL", "ALL_RECORDS", "Page", "RecordQuery", "Refs", "TaskQuery"]

T = TypeVar("T")

PageKey: TypeAlias = tuple[str | int, str, str]

MAX_LIMIT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskQuery:
    """A filter of tasks: by derived status, creation (``since`` ≤ t < ``until``) and substring.

    ``text`` is searched in the id and the description, case-sensitively.
    """

    status: TaskStatus | None = None
    since: datetime | None = None
    until: datetime | None = None
    text: str | None = None
    newest_first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordQuery:
    """A filter of the records of one kind; ``task_id=None`` is the whole registry.

    ``since`` compares the record's time (``MOMENT``); ``text`` is a case-sensitive substring of the
    message, name or description. A filter that a kind does not have is refused.
    """

    task_id: str | None = None
    agent_id: str | None = None
    phase_index: int | None = None
    status: PhaseStatus | AgentStatus | ReviewStatus | None = None
    active: bool | None = None
    severity: str | None = None
    since: datetime | None = None
    text: str | None = None
    newest_first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Refs:
    """The part of a task to load: these kinds and, of the agents, only these ids."""

    kinds: frozenset[Kind] = frozenset(Kind)
    agent_ids: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """Some items and the cursor of the next page; ``next`` is None after the last."""

    items: tuple[T, ...]
    next: str | None = None


ALL = TaskQuery()

ALL_RECORDS = RecordQuery()

# Per kind: the field that orders it, the one that `since` compares, and those that `text` searches.
SORT: dict[Kind, str] = {
    Kind.TASK: "created_at",
    Kind.PHASE: "phase_index",
    Kind.AGENT: "agent_id",
    Kind.PROGRESS: "timestamp",
    Kind.FINDING: "timestamp",
    Kind.REVIEW: "created_at",
    Kind.VERDICT: "submitted_at",
    Kind.HANDOVER: "created_at",
}

MOMENT: dict[Kind, str] = {**SORT, Kind.PHASE: "started_at", Kind.AGENT: "last_update"}

TEXT: dict[Kind, tuple[str, ...]] = {
    Kind.PHASE: ("name", "description"),
    Kind.AGENT: ("type", "prompt"),
    Kind.PROGRESS: ("message",),
    Kind.FINDING: ("message",),
    Kind.REVIEW: ("notes",),
    Kind.VERDICT: ("notes",),
    Kind.HANDOVER: ("summary",),
}

# The query's filter -> the record's field; `since`, `text` and `task_id` fit every kind.
FILTERS: dict[Kind, dict[str, str]] = {
    Kind.PHASE: {"phase_index": "phase_index", "status": "status"},
    Kind.AGENT: {
        "agent_id": "agent_id",
        "phase_index": "phase_index",
        "status": "status",
        "active": "status",
    },
    Kind.PROGRESS: {"agent_id": "agent_id"},
    Kind.FINDING: {"agent_id": "agent_id", "phase_index": "phase_index", "severity": "severity"},
    Kind.REVIEW: {"phase_index": "phase_index", "status": "status"},
    Kind.VERDICT: {"agent_id": "reviewer_id"},
    Kind.HANDOVER: {"phase_index": "from_phase_index"},
}

_VOCABULARY: dict[Kind, type] = {
    Kind.PHASE: PhaseStatus,
    Kind.AGENT: AgentStatus,
    Kind.REVIEW: ReviewStatus,
}

_TYPES: dict[str, type] = {
    "task_id": str,
    "agent_id": str,
    "phase_index": int,
    "active": bool,
    "severity": str,
    "since": datetime,
    "until": datetime,
    "text": str,
    "newest_first": bool,
}

_COMMON = frozenset({"task_id", "since", "text", "newest_first"})


def check_limit(limit: int) -> int:
    """Return the limit, or raise InvalidQuery unless it is 1…1000."""
    if type(limit) is not int or not 1 <= limit <= MAX_LIMIT:
        raise InvalidQuery(f"limit {limit!r} is not between 1 and {MAX_LIMIT}")
    return limit


def check_query(kind: Kind, query: RecordQuery) -> RecordQuery:
    """Return the query with its time in UTC.

    Raises InvalidQuery for a filter that the kind does not have and for an invalid value.
    """
    if kind not in FILTERS:
        raise InvalidQuery(
            f"{kind!r} cannot be listed with list_records", next_step="Use list_tasks"
        )
    for field in fields(query):
        value = getattr(query, field.name)
        if value is None:
            continue
        if field.name not in _COMMON and field.name not in FILTERS[kind]:
            fits = ", ".join([*sorted(FILTERS[kind]), "since", "task_id", "text"])
            raise InvalidQuery(
                f"{kind} records have no filter {field.name!r}", next_step=f"They have: {fits}"
            )
        wanted = _VOCABULARY[kind] if field.name == "status" else _TYPES[field.name]
        _check_value(field.name, value, wanted)
    return query if query.since is None else replace(query, since=utc(query.since))


def check_tasks(query: TaskQuery) -> TaskQuery:
    """Return the query with its times in UTC; raises InvalidQuery for an invalid value."""
    for field in fields(query):
        value = getattr(query, field.name)
        if value is not None:
            _check_value(
                field.name, value, TaskStatus if field.name == "status" else _TYPES[field.name]
            )
    since, until = (None if m is None else utc(m) for m in (query.since, query.until))
    return replace(query, since=since, until=until)


def _check_value(name: str, value: object, wanted: type) -> None:
    fits = type(value) is wanted or (wanted is datetime and isinstance(value, datetime))
    if not fits:
        raise InvalidQuery(f"{name} is {value!r}, not a {wanted.__name__}")
    if isinstance(value, datetime):
        try:
            utc(value)
        except ValueError as error:
            raise InvalidQuery(
                f"{name}: the time {error}", next_step="Pass an aware datetime"
            ) from None
    if isinstance(value, int) and abs(value) > SAFE_INT:
        raise InvalidQuery(f"{name} {value} is beyond ±2**53")
    if isinstance(value, str) and not is_text(value):
        raise InvalidQuery(f"{name} contains U+0000 or a lone surrogate")


def make_cursor(key: PageKey) -> str:
    """Return an opaque cursor for the position after ``key``."""
    return base64.urlsafe_b64encode(orjson.dumps(key)).decode().rstrip("=")


def read_cursor(cursor: str | None, kind: Kind) -> PageKey | None:
    """Read a page cursor of this kind; raises InvalidQuery for anything else."""
    if cursor is None:
        return None
    if not isinstance(cursor, str):
        raise InvalidQuery("a page cursor must be a text", next_step="Pass the `next` of a page")
    try:
        value: Any = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError):
        value = None
    if (
        not isinstance(value, list)
        or len(value) != 3
        or not isinstance(value[0], int if kind is Kind.PHASE else str)
        or not all(isinstance(part, str) for part in value[1:])
        or (isinstance(value[0], int) and abs(value[0]) > SAFE_INT)
    ):
        raise InvalidQuery("not a page cursor", next_step="Pass the `next` of an earlier page")
    return value[0], value[1], value[2]
