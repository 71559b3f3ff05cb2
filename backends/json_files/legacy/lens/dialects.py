"""The place of every field and status in the two dialects of a legacy document.

*server*: written by the legacy MCP server: phase statuses in upper case, phases named by index.
*library*: written by its helper functions: lower case, phases named by id, a ``version`` counter.
Both are always read; a new value is written in the dialect of the document.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from backends.json_files.legacy.lens.values import (
    Converter,
    choice,
    flag,
    integer,
    json_of,
    moment,
    optional_integer,
    optional_text,
    percent,
    required_moment,
    text,
    texts,
)
from registry_api.records import AgentStatus, Kind, PhaseStatus, ReviewStatus, TaskStatus

__all__ = ["DEFAULTS", "DERIVED", "FIELDS", "OURS", "Dialect", "Field", "fields_of"]

OURS = "registry_backend"  # our only key in a document, for fields that a dialect lacks

# Keys of a task that legacy programs read without checking that they exist (KeyError, TypeError),
# with their own defaults. OURS lists those that we wrote although the record has no value.
DEFAULTS = {"max_agents": 45, "max_depth": 5, "max_concurrent": 20, "current_phase_index": 0}


class Dialect(StrEnum):
    """The two dialects."""

    SERVER = "server"
    LIBRARY = "library"


@dataclass(frozen=True, slots=True)
class Field:
    """A record's field and its place: ``key`` in the element, or below OURS if ``ours``.

    ``always``: legacy programs read the key without checking that it exists. ``unreadable``: the
    field's value if the value in the document is unknown to us, None: the field's default.
    """

    name: str
    key: str
    converter: Converter
    ours: bool = False
    always: bool = False
    unreadable: StrEnum | None = None


_P = PhaseStatus
_SERVER_PHASE: dict[StrEnum, str] = {
    _P.PENDING: "PENDING",
    _P.ACTIVE: "ACTIVE",
    _P.IN_REVIEW: "UNDER_REVIEW",
    _P.APPROVED: "APPROVED",
    _P.REVISION_NEEDED: "REVISING",
    _P.FIXING: "FIXING",
    _P.ESCALATED: "ESCALATED",
    _P.FAILED: "FAILED",
}
_LIBRARY_PHASE: dict[StrEnum, str] = {
    **{status: word.lower() for status, word in _SERVER_PHASE.items()},
}
# The words of both dialects and of the system's later revisions. COMPLETED: approved, and the task
# had moved on.
_PHASE_WORDS: dict[str, StrEnum] = {
    **{status.value.lower(): status for status in _P},
    "awaiting_review": _P.IN_REVIEW,
    "under_review": _P.IN_REVIEW,
    "completed": _P.APPROVED,
    "rejected": _P.REVISION_NEEDED,
    "revising": _P.REVISION_NEEDED,
}
_AGENT_WORDS: dict[str, StrEnum] = {
    **{status.value: status for status in AgentStatus},
    "pending": AgentStatus.RUNNING,
    "starting": AgentStatus.RUNNING,
    # Words that people and models write for them, if they can mean only one status.
    **dict.fromkeys(("started", "active", "in_progress", "in progress"), AgentStatus.RUNNING),
    **dict.fromkeys(("done", "complete", "finished", "succeeded"), AgentStatus.COMPLETED),
    **dict.fromkeys(("cancelled", "canceled", "stopped", "aborted"), AgentStatus.TERMINATED),
    **dict.fromkeys(("crashed", "failure", "dead"), AgentStatus.FAILED),
}
_TASK_WORDS: dict[str, StrEnum] = {status.value.lower(): status for status in TaskStatus}
_REVIEW_WORDS: dict[str, StrEnum] = {status.value: status for status in ReviewStatus}


def _same(kind: type[StrEnum]) -> dict[StrEnum, str]:
    return {status: status.value for status in kind}


_PHASE_STATUS = {
    Dialect.SERVER: choice(_PHASE_WORDS, _SERVER_PHASE),
    Dialect.LIBRARY: choice(_PHASE_WORDS, _LIBRARY_PHASE),
}

FIELDS: dict[Kind, tuple[Field, ...]] = {
    Kind.TASK: (
        Field("task_id", "task_id", text, always=True),
        Field("description", "task_description", text, always=True),
        Field("created_at", "created_at", required_moment, always=True),
        Field("workspace", "workspace", optional_text, always=True),
        Field("workspace_base", "workspace_base", optional_text, always=True),
        Field("client_cwd", "client_cwd", optional_text, always=True),
        Field("recorded_status", "status", choice(_TASK_WORDS, _same(TaskStatus)), always=True),
        Field("priority", "priority", text, always=True),
        Field("max_agents", "max_agents", optional_integer),
        Field("max_depth", "max_depth", optional_integer),
        Field("max_concurrent", "max_concurrent", optional_integer),
        Field("context", "task_context", json_of(dict)),
    ),
    Kind.PHASE: (
        Field("phase_id", "id", text, always=True),
        Field("name", "name", text, always=True),
        Field("description", "description", text, always=True),
        Field("status", "status", _PHASE_STATUS[Dialect.SERVER], always=True),
        Field("created_at", "created_at", moment),
        Field("started_at", "started_at", moment, always=True),
        Field("completed_at", "completed_at", moment),
        Field("revision_round", "revision_count", integer),
        Field("active_review_id", "active_review_id", optional_text),
        Field("max_revision_rounds", "max_revision_rounds", optional_integer, ours=True),
        Field("revision_ready", "revision_ready", flag, ours=True),
    ),
    Kind.AGENT: (
        Field("agent_id", "id", text, always=True),
        Field("type", "type", text, always=True),
        Field("model", "model", optional_text),
        Field("tmux_session", "tmux_session", optional_text),  # present: the agent is running
        Field("parent", "parent", optional_text, always=True),
        Field("depth", "depth", optional_integer),
        Field(
            "status",
            "status",
            choice(_AGENT_WORDS, _same(AgentStatus)),
            always=True,
            unreadable=AgentStatus.UNKNOWN,
        ),
        Field("started_at", "started_at", moment, always=True),
        Field("progress", "progress", percent, always=True),
        Field("last_update", "last_update", moment, always=True),
        Field("prompt", "prompt", text, always=True),
        Field("completed_at", "completed_at", moment),
        Field("pid", "claude_pid", optional_integer),
        Field("final_verdict", "final_verdict", optional_text),
        Field("review_id", "review_id", optional_text, ours=True),
    ),
    Kind.REVIEW: (
        Field("review_id", "review_id", text, always=True),
        Field("phase_id", "phase_id", optional_text, always=True),
        Field("status", "status", choice(_REVIEW_WORDS, _same(ReviewStatus)), always=True),
        Field("num_reviewers", "num_reviewers", integer, always=True),
        Field("created_at", "created_at", required_moment, always=True),
        Field("verdict", "final_verdict", optional_text),
        Field("completed_at", "completed_at", moment),
        Field("notes", "reviewer_notes", text),
    ),
    Kind.VERDICT: (
        Field("verdict", "verdict", text, always=True),
        Field("findings", "findings", json_of(list), always=True),
        Field("notes", "reviewer_notes", text, always=True),
        Field("submitted_at", "submitted_at", required_moment, always=True),
        Field("reviewer_id", "reviewer_agent_id", optional_text),
        Field("verdict_id", "verdict_id", text, ours=True),
    ),
    Kind.HANDOVER: (
        Field("handover_id", "handover_id", text, always=True),
        Field("from_phase_index", "from_phase_index", optional_integer),
        Field("to_phase_index", "to_phase_index", optional_integer),
        Field("summary", "summary", text, always=True),
        Field("key_findings", "key_findings", texts),
        Field("blockers", "blockers", texts),
        Field("recommendations", "recommendations", texts),
        Field("artifacts", "artifacts", json_of(list)),
        Field("created_at", "created_at", required_moment, always=True),
    ),
}

# Keys that follow from the records: not in ``extra``, corrected when a document is written.
DERIVED: dict[Kind, frozenset[str]] = {
    Kind.TASK: frozenset(
        {
            "agents",
            "phases",
            "reviews",
            "agent_hierarchy",
            "total_spawned",
            "active_count",
            "completed_count",
            "failed_count",
            "current_phase_index",
            "current_phase_id",
            "version",
            OURS,
        }
    ),
    Kind.PHASE: frozenset({"order", OURS}),
    Kind.AGENT: frozenset({"phase_index", "phase_id", OURS}),
    Kind.REVIEW: frozenset({"phase_index", "reviewers", "verdicts", OURS}),
    Kind.VERDICT: frozenset({OURS}),
    Kind.HANDOVER: frozenset({OURS}),
}


def fields_of(kind: Kind, dialect: Dialect) -> tuple[Field, ...]:
    """Return the fields of one kind of record in one dialect."""
    if kind is Kind.PHASE and dialect is Dialect.LIBRARY:
        return _LIBRARY_PHASE_FIELDS
    return FIELDS[kind]


_LIBRARY_PHASE_FIELDS = tuple(
    Field("status", "status", _PHASE_STATUS[Dialect.LIBRARY], always=True)
    if field.name == "status"
    else field
    for field in FIELDS[Kind.PHASE]
)


def dialect_of(document: dict[str, Any]) -> Dialect:
    """Return the dialect that most signs in a document point to; without any it is the server's.

    Signs are the case of its phase statuses and how it names the current phase. ``version`` counts
    only if there are no others: helper functions set it in the server's documents too.
    """
    phases = document.get("phases")
    listed = phases if isinstance(phases, list) else []
    statuses = [p.get("status") for p in listed if isinstance(p, dict)]
    words = [s for s in statuses if isinstance(s, str)]
    server = sum(w.isupper() for w in words) + ("current_phase_index" in document)
    library = sum(w.islower() for w in words) + ("current_phase_id" in document)
    if server or library:
        return Dialect.LIBRARY if library > server else Dialect.SERVER
    return Dialect.LIBRARY if "version" in document else Dialect.SERVER
