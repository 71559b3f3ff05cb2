"""The domain records: one definition each, frozen, validated only at the border.

Timestamps are aware and in UTC with microseconds; integers lie within ±2**53; text is any Unicode
but U+0000 and lone surrogates. ``extra`` holds the fields that this version does not know, as the
compact text of one JSON object (order and the text of numbers kept), so that the fields of a legacy
or newer program survive a move unchanged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, TypeAlias, get_args

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints

from registry_api.records import json_text
from registry_api.records.status import AgentStatus, PhaseStatus, ReviewStatus, TaskStatus

__all__ = [
    "Agent",
    "Finding",
    "Handover",
    "History",
    "Kind",
    "Phase",
    "ProgressEntry",
    "Record",
    "Review",
    "Task",
    "Verdict",
    "is_id",
    "is_text",
    "record_key",
    "utc",
]

SAFE_INT = 2**53


class Kind(StrEnum):
    """The kinds of record; the value is the name used in feeds, documents and queries."""

    TASK = "task"
    PHASE = "phase"
    AGENT = "agent"
    PROGRESS = "progress"
    FINDING = "finding"
    REVIEW = "review"
    VERDICT = "verdict"
    HANDOVER = "handover"


def utc(moment: datetime) -> datetime:
    """Return the same time in UTC, as a plain datetime; raises ValueError if that is impossible."""
    if moment.tzinfo is UTC and type(moment) is datetime:
        return moment
    if moment.utcoffset() is None:
        raise ValueError("has no time zone")
    try:
        there = moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("lies outside the years 1 to 9999 in UTC") from None
    return datetime.combine(there.date(), there.time(), UTC)


_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}", re.ASCII)


def is_id(value: object) -> bool:
    """Return whether a value is an id: letters, digits, ``._-``, no leading dot, at most 128."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def is_text(value: str) -> bool:
    """Return whether a text can be stored: it has no U+0000 and no lone surrogate."""
    return _UNSTORABLE.search(value) is None


def _json_of(kind: type) -> AfterValidator:
    """Return a validator of JSON text of this kind, which writes it in compact form."""

    def check(text: str) -> str:
        if text in {"{}", "[]"} and isinstance([] if text == "[]" else {}, kind):
            return text
        value = json_text.parse(text.encode())
        if not isinstance(value, kind):
            raise ValueError(f"is not the text of a JSON {kind.__name__}")
        return json_text.dump_text(value)

    return AfterValidator(check)


_NO_NUL = r"^[^\x00]*$"

Id: TypeAlias = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$", max_length=128)
]

Text: TypeAlias = Annotated[str, StringConstraints(pattern=_NO_NUL)]

Word: TypeAlias = Annotated[str, StringConstraints(pattern=_NO_NUL, min_length=1, max_length=64)]

Int: TypeAlias = Annotated[int, Field(strict=True, ge=-SAFE_INT, le=SAFE_INT)]

Timestamp: TypeAlias = Annotated[datetime, Field(strict=True), AfterValidator(utc)]

JsonObject: TypeAlias = Annotated[Text, _json_of(dict)]

JsonArray: TypeAlias = Annotated[Text, _json_of(list)]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A piece of work; ``recorded_status`` is the status that was written, maybe out of date.

    The actual status is derived from the records: ``TaskSnapshot.status``, ``TaskSummary.status``.
    Limits (``max_…``) that are None come from the settings.
    """

    task_id: Id
    description: Text = ""
    recorded_status: TaskStatus = TaskStatus.INITIALIZED
    created_at: Timestamp = _EPOCH
    priority: Text = "P2"
    workspace: Text | None = None
    workspace_base: Text | None = None
    client_cwd: Text | None = None
    current_phase_index: Int | None = None
    max_agents: Int | None = None
    max_concurrent: Int | None = None
    max_depth: Int | None = None
    context: JsonObject = "{}"
    extra: JsonObject = "{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A stage of a task's work, keyed by its 0-based index."""

    task_id: Id
    phase_index: Int
    phase_id: Text = ""
    name: Text = ""
    description: Text = ""
    status: PhaseStatus = PhaseStatus.PENDING
    created_at: Timestamp | None = None
    started_at: Timestamp | None = None
    completed_at: Timestamp | None = None
    revision_round: Int = 0
    max_revision_rounds: Int | None = None
    revision_ready: bool = False
    active_review_id: Text | None = None
    extra: JsonObject = "{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """A program that works on a task, keyed by (task, agent).

    ``status``, ``progress`` (percent) and ``last_update`` follow the newest report while the agent
    is active. ``phase_index`` None: bound to no phase; -1: a reviewer, as legacy programs write it.
    """

    task_id: Id
    agent_id: Id
    type: Text = ""
    model: Text | None = None
    status: AgentStatus = AgentStatus.RUNNING
    progress: Int = 0
    phase_index: Int | None = None
    parent: Text | None = None
    depth: Int | None = None
    started_at: Timestamp | None = None
    completed_at: Timestamp | None = None
    last_update: Timestamp | None = None
    tmux_session: Text | None = None
    pid: Int | None = None
    review_id: Text | None = None
    final_verdict: Text | None = None
    prompt: Text = ""
    extra: JsonObject = "{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressEntry:
    """One report of an agent: appended, never changed.

    ``status`` is what the agent said. ``foreign``: read from a log that another program wrote;
    such an entry is history and a sign of life, but does not change the agent's status or progress.
    """

    task_id: Id
    entry_id: Id
    agent_id: Id
    timestamp: Timestamp
    status: Text = "working"
    message: Text = ""
    progress: Int = 0
    foreign: bool = False
    extra: JsonObject = "{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something an agent found: appended, never changed."""

    task_id: Id
    finding_id: Id
    agent_id: Id
    timestamp: Timestamp
    finding_type: Text = "insight"
    severity: Text = "low"
    message: Text = ""
    data: JsonObject = "{}"
    phase_index: Int | None = None
    foreign: bool = False
    extra: JsonObject = "{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """A review of one phase by one or more reviewers."""

    task_id: Id
    review_id: Id
    phase_index: Int | None = None
    phase_id: Text | None = None
    status: ReviewStatus = ReviewStatus.IN_PROGRESS
    verdict: Text | None = None
    num_reviewers: Int = 1
    reviewers: tuple[Text, ...] = ()
    created_at: Timestamp = _EPOCH
    completed_at: Timestamp | None = None
    notes: Text = ""
    extra: JsonObject = "{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One reviewer's verdict; ``reviewer_id`` is None if a legacy program kept none."""

    task_id: Id
    verdict_id: Id
    review_id: Id
    reviewer_id: Text | None = None
    verdict: Text = "approved"
    findings: JsonArray = "[]"
    notes: Text = ""
    submitted_at: Timestamp = _EPOCH
    extra: JsonObject = "{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """What one phase passes to the next; ``artifacts`` is a JSON array of {path, description}."""

    task_id: Id
    handover_id: Id
    from_phase_index: Int | None = None
    to_phase_index: Int | None = None
    summary: Text = ""
    key_findings: tuple[Text, ...] = ()
    blockers: tuple[Text, ...] = ()
    recommendations: tuple[Text, ...] = ()
    artifacts: JsonArray = "[]"
    created_at: Timestamp = _EPOCH
    extra: JsonObject = "{}"


History: TypeAlias = ProgressEntry | Finding
"""Records that are only appended, and read in pages; a snapshot does not hold them."""

Record: TypeAlias = Task | Phase | Agent | History | Review | Verdict | Handover

CLASSES: dict[Kind, type[Record]] = {
    Kind.TASK: Task,
    Kind.PHASE: Phase,
    Kind.AGENT: Agent,
    Kind.PROGRESS: ProgressEntry,
    Kind.FINDING: Finding,
    Kind.REVIEW: Review,
    Kind.VERDICT: Verdict,
    Kind.HANDOVER: Handover,
}

for _cls in CLASSES.values():
    # Records from outside are validated although they are instances: a dataclass can hold anything.
    setattr(_cls, "__pydantic_config__", ConfigDict(revalidate_instances="always"))  # noqa: B010  (mypy knows no such attribute)

KINDS: dict[type[Record], Kind] = {cls: kind for kind, cls in CLASSES.items()}

KEY_FIELD: dict[Kind, str] = {
    Kind.TASK: "task_id",
    Kind.PHASE: "phase_index",
    Kind.AGENT: "agent_id",
    Kind.PROGRESS: "entry_id",
    Kind.FINDING: "finding_id",
    Kind.REVIEW: "review_id",
    Kind.VERDICT: "verdict_id",
    Kind.HANDOVER: "handover_id",
}


HISTORIES = tuple(KINDS[cls] for cls in get_args(History))
"""The kinds of ``History``."""

PARTS = tuple(k for k in Kind if k is not Kind.TASK and k not in HISTORIES)
"""Kinds of which a snapshot holds every record of its task."""

PLURALS: dict[Kind, str] = {
    Kind.TASK: "tasks",
    Kind.PHASE: "phases",
    Kind.AGENT: "agents",
    Kind.PROGRESS: "progress",
    Kind.FINDING: "findings",
    Kind.REVIEW: "reviews",
    Kind.VERDICT: "verdicts",
    Kind.HANDOVER: "handovers",
}
"""The names of a kind's records: of a snapshot's field, a table, a key of ``--json``."""


def record_key(record: Record) -> str:
    """Return the record's key within its task; a phase's index as decimal text."""
    return str(getattr(record, KEY_FIELD[KINDS[type(record)]]))
