"""Changesets: one atomic change to one task; also the feed event and the idempotency key."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

from pydantic import ConfigDict, Discriminator, Tag, TypeAdapter, ValidationError
from uuid_utils.compat import uuid7

from registry_api.errors import InvalidChangeset
from registry_api.records.codec import decode_record, dump, encode_record
from registry_api.records.models import (
    HISTORIES,
    KINDS,
    Agent,
    Finding,
    Handover,
    Id,
    Int,
    Kind,
    Phase,
    ProgressEntry,
    Review,
    Task,
    Text,
    Timestamp,
    Verdict,
    Word,
)

__all__ = [
    "Change",
    "Changeset",
    "Commit",
    "Delete",
    "FeedCursor",
    "Limits",
    "Op",
    "Put",
    "new_changeset",
    "validate_changeset",
]

_LAST_MS = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z

APPENDED = frozenset({*HISTORIES, Kind.HANDOVER})

DELETABLE = frozenset({Kind.PHASE, Kind.AGENT, Kind.REVIEW, Kind.VERDICT, Kind.HANDOVER})

_PHASE_KEY = re.compile(r"0|-?[1-9][0-9]{0,15}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one changeset: number of ops, bytes of its JSON form."""

    ops: int = 10_000
    changeset_bytes: int = 16 * 2**20


def _kind(value: object) -> str | None:
    """Return the kind by which pydantic picks the class to validate a record as."""
    return KINDS.get(type(value))  # type: ignore[arg-type]


_NO_RECORD = Discriminator(
    _kind, custom_error_type="no_record", custom_error_message="Input is not a record"
)

_NO_OP = Discriminator(
    lambda value: type(value).__name__,
    custom_error_type="no_op",
    custom_error_message="Input is neither a put of a record nor a delete",
)


@dataclass(frozen=True, slots=True)
class Put:
    """Insert or replace one record; progress and findings can only be inserted."""

    record: Annotated[
        Annotated[Task, Tag(Kind.TASK)]
        | Annotated[Phase, Tag(Kind.PHASE)]
        | Annotated[Agent, Tag(Kind.AGENT)]
        | Annotated[ProgressEntry, Tag(Kind.PROGRESS)]
        | Annotated[Finding, Tag(Kind.FINDING)]
        | Annotated[Review, Tag(Kind.REVIEW)]
        | Annotated[Verdict, Tag(Kind.VERDICT)]
        | Annotated[Handover, Tag(Kind.HANDOVER)],
        _NO_RECORD,
    ]


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove one record, if it is there; a phase is named by its index as decimal text."""

    kind: Literal[Kind.PHASE, Kind.AGENT, Kind.REVIEW, Kind.VERDICT, Kind.HANDOVER]
    key: Text


Op: TypeAlias = Put | Delete


class _Checked(NamedTuple):
    """What ``validate_changeset`` found out about a changeset; ``size`` is that of ``text``."""

    digest: str
    text: str
    size: int
    derived: bool


class _Checkable:
    """Room for what is known of a changeset; not a field, so ``replace`` leaves it out."""

    __slots__ = ("_checked",)

    _checked: _Checked


@dataclass(frozen=True, slots=True, kw_only=True)
class Changeset(_Checkable):
    """One atomic change to one task.

    ``expected``: 0, the task must not exist; n, it must be at revision n; None, any revision,
    allowed only if every op appends a new progress entry, finding or handover.
    ``at`` and ``actor`` are stamped by the caller; ``id`` is a UUIDv7 whose time bounds how long a
    retry is recognised.
    """

    id: uuid.UUID
    task_id: Id
    expected: Int | None
    ops: tuple[
        Annotated[Annotated[Put, Tag("Put")] | Annotated[Delete, Tag("Delete")], _NO_OP], ...
    ]
    at: Timestamp
    actor: Word = "unknown"

    def created(self) -> datetime | None:
        """Return the time inside the id, None if it has none."""
        return created_at(self.id)


def created_at(changeset_id: uuid.UUID) -> datetime | None:
    """Return the time inside a UUIDv7; None for any other version."""
    if changeset_id.version != 7:
        return None
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=changeset_id.int >> 80)


class ValidatedChangeset(NamedTuple):
    """A validated changeset: times in UTC, with the SHA-256 (hex) of its JSON text."""

    changeset: Changeset
    digest: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedCursor:
    """A position in a feed: after change ``number``. Ordered only within one ``feed_id``."""

    feed_id: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """The result of a commit: the task is at ``revision`` of ``lineage``.

    ``replayed``: this changeset was committed before; this is the result of that first commit.
    ``chain`` is that of ``Head``; a replay may leave it out.
    """

    task_id: str
    changeset_id: uuid.UUID
    lineage: str
    revision: int
    cursor: FeedCursor
    replayed: bool = False
    chain: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One line of the feed: a changeset as it was applied. ``chain`` is that of ``Head``."""

    cursor: FeedCursor
    lineage: str
    revision: int
    changeset: Changeset
    digest: str
    chain: str = field(default="", compare=False)


def commit_of(change: Change) -> Commit:
    """Return the Commit that was returned when the change was applied."""
    return Commit(
        task_id=change.changeset.task_id,
        changeset_id=change.changeset.id,
        lineage=change.lineage,
        revision=change.revision,
        cursor=change.cursor,
        chain=change.chain,
    )


def new_changeset(
    task_id: str,
    ops: Iterable[Op],
    *,
    expected: int | None,
    actor: str = "unknown",
    at: datetime | None = None,
    changeset_id: uuid.UUID | None = None,
) -> Changeset:
    """Make a changeset with a fresh UUIDv7 and the time of this machine's clock, unless given."""
    return Changeset(
        id=changeset_id or uuid7(),
        task_id=task_id,
        expected=expected,
        ops=tuple(ops),
        at=at or datetime.now(UTC),
        actor=actor,
    )


for _cls in (Changeset, Put, Delete):
    setattr(_cls, "__pydantic_config__", ConfigDict(revalidate_instances="always"))  # noqa: B010  (mypy knows no such attribute)


@cache
def _adapter() -> TypeAdapter[Changeset]:
    return TypeAdapter(Changeset)


def validate_changeset(
    changeset: Changeset, limits: Limits, *, derived: bool = False
) -> ValidatedChangeset:
    """Validate a caller's changeset; every store's commit calls this first.

    ``derived``: the changeset is a store's own, e.g. for a foreign edit, and its id is a UUIDv8
    derived from its content; callers' ids are UUIDv7. The digest tells a replay from another change
    under the same id. Raises InvalidChangeset, naming each field that is wrong.
    """
    checked = getattr(changeset, "_checked", None)
    # A wrapping store validates too, and hands on what it got from here.
    if checked is None or checked.derived != derived:
        changeset = _validated(changeset, version=8 if derived else 7)
        data = dump_changeset(changeset)
        digest = hashlib.sha256(data).hexdigest()
        checked = _Checked(digest, data.decode(), len(data), derived)
    if len(changeset.ops) > limits.ops or checked.size > limits.changeset_bytes:
        raise InvalidChangeset(
            f"changeset has {len(changeset.ops)} ops and {checked.size} bytes; at most "
            f"{limits.ops} and {limits.changeset_bytes} are allowed",
            next_step="Split it into several changesets",
        )
    object.__setattr__(changeset, "_checked", checked)
    return ValidatedChangeset(changeset, checked.digest, checked.text)


def _validated(changeset: Changeset, *, version: int) -> Changeset:
    try:
        out = _adapter().validate_python(changeset)
    except ValidationError as error:
        faults = "; ".join(
            f"{_place(e['loc'])}: {e['msg']}"
            for e in error.errors(include_url=False, include_input=False)[:5]
        )
        raise InvalidChangeset(
            f"changeset is not valid: {faults}", next_step="Correct the fields named"
        ) from None
    if out.id.version != version or (version == 7 and out.id.int >> 80 > _LAST_MS):
        raise InvalidChangeset(
            f"changeset id {out.id} is not a UUIDv{version}",
            next_step="Make it with new_changeset()",
        )
    if not out.ops:
        raise InvalidChangeset("changeset has no ops", next_step="Put or delete a record")
    if out.expected is not None and out.expected < 0:
        raise InvalidChangeset(f"expected revision {out.expected} is negative")
    for op in out.ops:
        _check_op(out, op)
    if out.expected == 0 and not any(
        isinstance(op, Put) and KINDS[type(op.record)] is Kind.TASK for op in out.ops
    ):
        raise InvalidChangeset(
            f"changeset creates task {out.task_id} without its task record",
            next_step="Put a Task among the ops",
        )
    return out


def _place(loc: tuple[int | str, ...]) -> str:
    """Return where a fault is, e.g. ``ops.0.progress.timestamp``."""
    return ".".join(str(part) for part in loc if part not in {"Put", "Delete", "record"}) or "it"


def _check_op(changeset: Changeset, op: Op) -> None:
    if isinstance(op, Delete):
        if op.kind is Kind.PHASE and not _PHASE_KEY.fullmatch(op.key):
            raise InvalidChangeset(
                f"phase key {op.key!r} is not an index",
                next_step="Name a phase by its index, e.g. '0'",
            )
        if changeset.expected is None:
            raise InvalidChangeset(
                f"a delete of {op.kind} {op.key} needs an expected revision",
                next_step="Load the task and pass its revision",
            )
        return
    kind = KINDS[type(op.record)]
    if op.record.task_id != changeset.task_id:
        raise InvalidChangeset(
            f"op on task {op.record.task_id} in a changeset of task {changeset.task_id}",
            next_step="Make one changeset per task",
        )
    if changeset.expected is None and kind not in APPENDED:
        raise InvalidChangeset(
            f"a put of {kind} needs an expected revision",
            next_step="Without one only progress, findings and handovers can be appended",
        )


def dump_changeset(changeset: Changeset) -> bytes:
    """Write a changeset as JSON: ``{id, task_id, expected, ops, at, actor}``."""
    return dump(
        {
            "id": str(changeset.id),
            "task_id": changeset.task_id,
            "expected": changeset.expected,
            "ops": [_encode_op(op) for op in changeset.ops],
            "at": changeset.at,
            "actor": changeset.actor,
        }
    )


def changeset_from(data: dict[str, Any]) -> Changeset:
    """Build a changeset from the parsed form of ``dump_changeset``; does not validate it."""
    return Changeset(
        id=uuid.UUID(data["id"]),
        task_id=data["task_id"],
        expected=data["expected"],
        ops=tuple(_decode_op(op) for op in data["ops"]),
        at=datetime.fromisoformat(data["at"]),
        actor=data["actor"],
    )


def _encode_op(op: Op) -> list[Any]:
    if isinstance(op, Put):
        return ["put", *encode_record(op.record)]
    return ["delete", op.kind, op.key]


def _decode_op(value: list[Any]) -> Op:
    if value[0] == "put":
        return Put(decode_record(value[1:]))
    return Delete(Kind(value[1]), value[2])  # type: ignore[arg-type]
