"""Every record with its fields: ``python -m tests.docs.data_model`` writes ``docs/data-model.md``.

Types, keys, statuses and places in files and tables are read from the code. Only the meanings of
fields are stated here; a test fails if a field has none.
"""

import dataclasses
import inspect
from enum import StrEnum
from pathlib import Path

from backends.json_files.legacy.lens import dialects
from backends.json_files.legacy.lens.dialects import DEFAULTS, DERIVED, Dialect, fields_of
from backends.sql import schema
from backends.sql.rows import TABLES
from orchestrator.rules.findings import FindingType
from registry_api.records import (
    ACTIVE_AGENT,
    AGENT_TRANSITIONS,
    CLASSES,
    FAILED_AGENT,
    FILTERS,
    KEY_FIELD,
    MOMENT,
    PHASE_TRANSITIONS,
    SORT,
    TASK_TRANSITIONS,
    TERMINAL_AGENT,
    TERMINAL_TASK,
    TEXT,
    AgentStatus,
    Kind,
    PhaseStatus,
    ReviewStatus,
    Severity,
    TaskStatus,
    task_status,
)
from registry_api.records.changeset import APPENDED, DELETABLE

PAGE = Path(__file__).parents[2] / "docs" / "data-model.md"


def _named(words: type[StrEnum]) -> str:
    return ", ".join(f"`{word}`" for word in words)


_TASK_ID = "the task that the record belongs to"
_EXTRA = "the fields that this version does not know, as the text of one JSON object"
_FOREIGN = "read from a log that another program wrote"
_BOUND = "the phase it belongs to, by index"

MEANINGS: dict[Kind, dict[str, str]] = {
    Kind.TASK: {
        "task_id": "the task's id; the orchestrator makes `TASK-<date>-<time>-<random>`",
        "description": "what is to be done",
        "recorded_status": "the status that was written, maybe out of date; the actual status is"
        " derived (see [Statuses](#statuses))",
        "created_at": "when the task was created; orders `list_tasks`",
        "priority": "free text; the orchestrator writes `P2` unless told otherwise",
        "workspace": "path of the task's folder",
        "workspace_base": "path of the workspace",
        "client_cwd": "working directory of the task's agents",
        "current_phase_index": "index of the phase in work",
        "max_agents": "most agents in total, reviewers not counted; None: the setting applies",
        "max_concurrent": "most agents active at once, reviewers not counted; None: the setting"
        " applies",
        "max_depth": "deepest nesting of agents, 1 for an agent of the conductor; None: the"
        " setting applies",
        "context": "what agents must know: `background_context`, `expected_deliverables`,"
        " `success_criteria`, `constraints`, `relevant_files`",
        "extra": _EXTRA,
    },
    Kind.PHASE: {
        "task_id": _TASK_ID,
        "phase_index": "place in the task's order, from 0",
        "phase_id": "the phase's id in legacy files; the orchestrator writes `phase-<index>`",
        "name": "short name",
        "description": "what is to be done in it",
        "status": "see [PhaseStatus](#phasestatus)",
        "created_at": "when the phase was planned",
        "started_at": "when work on it began",
        "completed_at": "when it was approved, or failed",
        "revision_round": "how many reviews have asked for a revision so far",
        "max_revision_rounds": "revisions before the phase is escalated; None: 3",
        "revision_ready": "the fixes are complete: the next review opens when the last agent has"
        " ended",
        "active_review_id": "the review that the phase waits for",
        "extra": _EXTRA + ", e.g. `deliverables`, `success_criteria`, `force_reason`",
    },
    Kind.AGENT: {
        "task_id": _TASK_ID,
        "agent_id": "the agent's id, unique in its task",
        "type": "role in words, e.g. `builder`; `reviewer` for the reviewers of a review",
        "model": "the language model it runs on",
        "status": "see [AgentStatus](#agentstatus); follows the newest report while the agent is"
        " active",
        "progress": "percent, as reported",
        "phase_index": _BOUND + "; None: bound to no phase; -1: a reviewer",
        "parent": "agent that deployed it; `orchestrator` for the conductor",
        "depth": "nesting: 1 for an agent of the conductor, otherwise 1 more than its parent's",
        "started_at": "when a place was reserved for it",
        "completed_at": "when it ended",
        "last_update": "time of its newest report or other sign of life",
        "tmux_session": "name of its tmux session, written by legacy programs",
        "pid": "process id of its program on the machine that started it",
        "review_id": "the review that it judges; None: not a reviewer",
        "final_verdict": "the verdict that it gave",
        "prompt": "what it was asked to do; the orchestrator keeps the beginning",
        "extra": _EXTRA + ", e.g. `process` (process identity), `agent_kind`, `reserved_by`",
    },
    Kind.PROGRESS: {
        "task_id": _TASK_ID,
        "entry_id": "the report's id; the id of a line of another program is made from the line",
        "agent_id": "the agent that reports",
        "timestamp": "when it reported",
        "status": "what the agent said; `agent_status()` maps it to an AgentStatus",
        "message": "what it said in words",
        "progress": "percent",
        "foreign": _FOREIGN + ": history and a sign of life, but no change of the agent's status"
        " or progress",
        "extra": _EXTRA,
    },
    Kind.FINDING: {
        "task_id": _TASK_ID,
        "finding_id": "the finding's id; the id of a line of another program is made from the line",
        "agent_id": "the agent that found it",
        "timestamp": "when it was reported",
        "finding_type": f"free text for stores; the orchestrator accepts {_named(FindingType)}",
        "severity": f"free text for stores; the orchestrator accepts {_named(Severity)}",
        "message": "what was found",
        "data": "details; `path` in it names a file, which the handover lists as an artifact",
        "phase_index": "the phase that the agent worked on, by index",
        "foreign": _FOREIGN,
        "extra": _EXTRA,
    },
    Kind.REVIEW: {
        "task_id": _TASK_ID,
        "review_id": "the review's id",
        "phase_index": "the phase under review, by index",
        "phase_id": "the phase under review, by its id in legacy files",
        "status": "see [ReviewStatus](#reviewstatus)",
        "verdict": "the outcome: `approved`, `needs_revision` or `rejected`; None: not decided",
        "num_reviewers": "how many reviewers it has",
        "reviewers": "agent ids of its reviewers",
        "created_at": "when it was opened",
        "completed_at": "when it was decided, aborted or failed",
        "notes": "remarks on the whole review",
        "extra": _EXTRA + ", e.g. `phase_name`, `abort_reason`, `failure_reason`",
    },
    Kind.VERDICT: {
        "task_id": _TASK_ID,
        "verdict_id": "the verdict's id; if a document has none, the review's id and the place",
        "review_id": "the review that it belongs to",
        "reviewer_id": "the reviewer; None: a legacy program kept none",
        "verdict": "`approved`, `needs_revision` or `rejected`; an unknown word of another program"
        " counts as `needs_revision`",
        "findings": "what the reviewer found: strings, or objects with `severity` and `message`",
        "notes": "remarks in words",
        "submitted_at": "when it was given",
        "extra": _EXTRA,
    },
    Kind.HANDOVER: {
        "task_id": _TASK_ID,
        "handover_id": "the handover's id",
        "from_phase_index": "the approved phase, by index",
        "to_phase_index": "the next phase, by index; None: it was the last one",
        "summary": "the result in words",
        "key_findings": "its findings that are neither blockers nor recommendations",
        "blockers": "what stands in the way of the next phase",
        "recommendations": "advice for the next phase",
        "artifacts": "files that were made: objects with `path` and `description`",
        "created_at": "when the phase was approved",
        "extra": _EXTRA,
    },
}

# Places that no table of the code states, (server, library). `…` is the object of the record.
_BY_INDEX = ("`phase_index`", "`phase_id`, else `phase_index`")
_FOLDER = "the task's folder"
PLACES: dict[tuple[Kind, str], tuple[str, str]] = {
    (Kind.TASK, "current_phase_index"): ("`current_phase_index`", "`current_phase_id`"),
    (Kind.PHASE, "phase_index"): ("place in `phases`; `order` is 1 more",) * 2,
    (Kind.AGENT, "phase_index"): _BY_INDEX,
    (Kind.REVIEW, "phase_index"): _BY_INDEX,
    (Kind.REVIEW, "reviewers"): ("`reviewers[].agent_id`", "the same, or `agent_id`"),
    (Kind.VERDICT, "review_id"): ("`review_id` of the review that lists it",) * 2,
    (Kind.VERDICT, "reviewer_id"): ("`reviewer_agent_id`", "the same, or the review's `agent_id`"),
}

WHERE: dict[Kind, str] = {
    Kind.TASK: "the document itself, `TASK-*/AGENT_REGISTRY.json`",
    Kind.PHASE: "an object in the document's list `phases`",
    Kind.AGENT: "an object in the document's list `agents`",
    Kind.PROGRESS: "a line of `progress/<agent>_progress.jsonl` in the task's folder or in its"
    " `archive/`",
    Kind.FINDING: "a line of `findings/<agent>_findings.jsonl` in the task's folder or in its"
    " `archive/`",
    Kind.REVIEW: "an object in the document's list `reviews`",
    Kind.VERDICT: "an object in the list `verdicts` of its review (server); the review itself"
    " (library, one reviewer); below our key `registry_backend` if its review is missing",
    Kind.HANDOVER: "an object in the list `handovers` below our key `registry_backend`; those of"
    " legacy programs are read from `handovers/<phase id>.md`",
}

# The keys of a log line are the names of the fields, but for these.
LINE_KEYS: dict[str, str] = {
    "task_id": _FOLDER,
    "finding_id": "`entry_id`",
    "extra": "the line's other keys",
}

COLUMNS: dict[str, str] = {
    "lineage": "the id of the task's history of revisions",
    "revision": "the number of the task's state",
    "updated_at": "the time of its newest changeset",
    "status": "the derived status",
    "phases": "how many phases it has",
    "agents": "how many agents it has",
    "active_agents": "how many of them are active",
    "feed_floor": "up to which number lines of its feed were dropped",
    "expired_before": "ids of changesets older than this are refused",
    "chain": "stands for all changes up to its revision",
    "active": "1 if the status is active, else 0",
}

STATUSES: dict[type, dict[str, str]] = {
    TaskStatus: {
        "INITIALIZED": "created; no agent yet",
        "ACTIVE": "in work",
        "COMPLETED": "every phase is approved or, without phases, every agent has ended",
        "FAILED": "given up, a phase failed, or all agents of a task without phases failed",
        "CANCELLED": "ended by the conductor or the operator",
    },
    PhaseStatus: {
        "PENDING": "an earlier phase comes first",
        "ACTIVE": "agents may work on it",
        "IN_REVIEW": "reviewers judge it",
        "APPROVED": "done",
        "REVISION_NEEDED": "a review asks for fixes",
        "FIXING": "agents fix what the review asked for",
        "ESCALATED": "no decision by reviewers, or too many revisions: a human decides",
        "FAILED": "given up with its task",
    },
    AgentStatus: {
        "running": "deployed; no report yet",
        "working": "reported that it works; also any unknown word of a report",
        "blocked": "reported that it cannot go on",
        "reviewing": "judges a phase",
        "completed": "did its work",
        "failed": "did not; also a process that ended without a final report",
        "error": "ended by an error",
        "terminated": "stopped by the conductor or the operator",
        "killed": "stopped; a word of legacy programs",
        "phase_completed": "ended with its phase; a word of legacy programs",
        "unknown": "a status in a document that we do not know",
    },
    ReviewStatus: {
        "pending": "not begun; a word of legacy programs, open",
        "in_progress": "open: reviewers may give verdicts",
        "completed": "decided; `verdict` is the outcome",
        "aborted": "ended without an outcome",
        "failed": "its reviewers ended without the verdicts that a decision needs",
    },
}

_HEAD = """# Data model

Every record of a registry, field by field. Written from the code by
`python -m tests.docs.data_model`; a test checks that the page is current. The records are the
frozen dataclasses of `registry_api/records/models.py`. Terms are in the [glossary](glossary.md),
the calls that read and write records in [python-api.md](python-api.md), and what to edit for a new
field in [how-to.md](how-to.md).

## Common rules

A record belongs to one task and is found by (task, kind, key). `list_tasks` and `load` return
tasks; `list_records` returns the records of every other kind.

| type | values |
|---|---|
| Id | letters, digits and `._-`, at most 128, not starting with a dot; case counts |
| Text | any Unicode except U+0000 and lone surrogates |
| Int | within ±2**53 |
| Timestamp | an aware datetime, kept in UTC with microseconds |
| JsonObject, JsonArray | the text of a JSON object or array; order and numbers stay as written |
| tuple[Text, ...] | texts, in this order |

SQL columns hold times as text (`2026-01-04T22:15:30.000000Z`), booleans as 0 and 1, and tuples as
the text of a JSON array. In legacy documents, naive times are read in `REGISTRY_LEGACY_TZ`, and the
text of an unchanged time stays as it is. A value in a document that is not valid for its field
stays in `extra` under its own key.

*Server* and *library* are the two dialects of a legacy document; `=` means: as in the server
dialect. *Ours* marks a key below `registry_backend` in the object: no legacy program knows it, and
an object without such values has no such key. *Always* marks a key that a new object gets even if
the value is the default, because legacy programs read it without checking that it exists.
"""

_STATUS_HEAD = """
## Statuses

Stores accept every transition, since another program may have made it. The rules of the
orchestrator (`orchestrator/rules/`) make only the transitions listed here. The statuses are defined
in `registry_api/records/status.py`, the words of documents in
`backends/json_files/legacy/lens/dialects.py`.
"""


def one_line(cls: type) -> str:
    """Return a class's docstring as one paragraph, with its code in single back-quotes."""
    return " ".join((inspect.getdoc(cls) or "").split()).replace("``", "`")


def places(kind: Kind, name: str) -> tuple[str, str]:
    """Return where a field is in a legacy file, in the server and the library dialect."""
    if kind in {Kind.PROGRESS, Kind.FINDING}:
        return (LINE_KEYS.get(name, f"`{name}`"),) * 2
    if (kind, name) in PLACES:
        return PLACES[kind, name]
    found = [
        f"`{f.key}`{', ours' if f.ours else ''}{', always' if f.always else ''}"
        for dialect in (Dialect.SERVER, Dialect.LIBRARY)
        for f in fields_of(kind, dialect)
        if f.name == name
    ]
    if found:
        return found[0], found[1]
    if name == "extra":
        return ("the object's other keys",) * 2
    assert name == "task_id", (kind, name)
    return (_FOLDER,) * 2


def _default(field: dataclasses.Field) -> str:
    if field.default is dataclasses.MISSING:
        return "required"
    value = field.default
    if isinstance(value, str):
        return f"`{value}`" if value else "empty"
    if value == ():
        return "empty"
    return "1970" if hasattr(value, "year") else str(value)


def _column(kind: Kind, name: str) -> str:
    column = schema.metadata.tables[TABLES[kind]].c[name]
    keys = [c.name for c in column.table.primary_key]
    notes = [str(column.type)]
    notes += ["NULL"] if column.nullable else []
    notes += ["key"] if name in keys else []
    return f"`{name}` {', '.join(notes)}"


def _record(kind: Kind) -> list[str]:
    cls, table = CLASSES[kind], schema.metadata.tables[TABLES[kind]]
    key = KEY_FIELD[kind]
    lines = [f"\n## {cls.__name__}\n", one_line(cls) + "\n"]
    lines.append(f"- Kind `{kind}` (`Kind.{kind.name}`); key `{key}`, table `{table.name}`.")
    writes = "appended, never replaced" if kind in APPENDED else "put, which replaces"
    writes += "; may be deleted" if kind in DELETABLE else "; never deleted"
    lines.append(f"- Written: {writes}.")
    order = f"- Listed by (`{SORT[kind]}`, task id, key)"
    if kind in FILTERS:
        order += f"; `since` compares `{MOMENT[kind]}`, `text` searches "
        order += ", ".join(f"`{n}`" for n in TEXT[kind])
        order += "; further filters: " + ", ".join(f"`{n}`" for n in FILTERS[kind])
    else:
        order += "; `since` and `until` compare it, `text` searches `task_id`, `description`"
    lines.append(order + ".")
    lines.append(f"- In legacy files: {WHERE[kind]}.\n")
    lines.append("| field | type | default | meaning | server | library | SQL column |")
    lines.append("|---|---|---|---|---|---|---|")
    for field in dataclasses.fields(cls):
        server, library = places(kind, field.name)
        library = "=" if library == server else library
        kind_of = str(field.type).replace("|", "or")
        lines.append(
            f"| `{field.name}` | {kind_of} | {_default(field)} | {MEANINGS[kind][field.name]}"
            f" | {server} | {library} | {_column(kind, field.name)} |"
        )
    own = [c.name for c in table.columns if c.name not in MEANINGS[kind]]
    if own:
        said = ", ".join(f"`{n}` ({COLUMNS[n]})" for n in own)
        lines.append(f"\nColumns that are not fields: {said}.")
    derived = sorted(DERIVED.get(kind, frozenset()) - {dialects.OURS})
    if derived:
        said = ", ".join(f"`{n}`" for n in derived)
        lines.append(f"\nKeys that are derived from the records and not kept in `extra`: {said}.")
    if kind is Kind.TASK:
        said = ", ".join(f"`{n}` {value}" for n, value in DEFAULTS.items())
        lines.append(f"\nWritten for legacy programs in place of None: {said}.")
    return lines


def _read_words(words: dict, status: str) -> list[str]:
    return sorted(word for word, found in words.items() if found == status)


def _words(kind: type, status: str) -> str:
    """Return the words of a status in documents: written, and read besides."""
    written = {
        PhaseStatus: [dialects._SERVER_PHASE, dialects._LIBRARY_PHASE],
    }.get(kind, [{s: s.value for s in kind}])
    read = {
        TaskStatus: dialects._TASK_WORDS,
        PhaseStatus: dialects._PHASE_WORDS,
        AgentStatus: dialects._AGENT_WORDS,
        ReviewStatus: dialects._REVIEW_WORDS,
    }[kind]
    said = [table[status] for table in written]
    others = [w for w in _read_words(read, status) if w not in {s.lower() for s in said}]
    text = " / ".join(f"`{w}`" for w in said)
    return text + (f"; read: {', '.join(f'`{w}`' for w in others)}" if others else "")


def _group(kind: type, status: str) -> str:
    groups = {
        "active": ACTIVE_AGENT if kind is AgentStatus else (),
        "terminal": TERMINAL_AGENT if kind is AgentStatus else TERMINAL_TASK,
        "counts as failed": FAILED_AGENT if kind is AgentStatus else (),
    }
    return ", ".join(name for name, members in groups.items() if status in members) or "-"


def _statuses() -> list[str]:
    lines = [_STATUS_HEAD]
    transitions = {
        TaskStatus: TASK_TRANSITIONS,
        PhaseStatus: PHASE_TRANSITIONS,
        AgentStatus: AGENT_TRANSITIONS,
    }
    for kind, meanings in STATUSES.items():
        lines.append(f"\n### {kind.__name__}\n\n{one_line(kind)}\n")
        grouped = kind in {TaskStatus, AgentStatus}
        table = transitions.get(kind)
        columns = ["status", "meaning", *(["group"] if grouped else [])]
        columns += ["can become"] if table else []
        columns.append("in documents (server / library)" if kind is PhaseStatus else "in documents")
        lines.append(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
        for status in kind:
            cells = [f"`{status}`", meanings[status.value]]
            cells += [_group(kind, status)] if grouped else []
            if table:
                reach = [s for s in kind if s in table[status]]
                all_but = set(kind) - {status, AgentStatus.UNKNOWN}
                many = len(reach) > 5 and set(reach) == all_but
                named = ", ".join(f"`{s}`" for s in reach) or "-"
                cells.append("any but `unknown`" if many else named)
            cells.append(_words(kind, status))
            lines.append(f"| {' | '.join(cells)} |")
    lines.append(
        "\nA review has no table of transitions: `pending` and `in_progress` are open, and an open"
        "\nreview becomes `completed`, `aborted` or `failed`, once"
        " (`orchestrator/rules/reviews.py`)."
    )
    lines.append("\n### How a task's status is derived\n")
    said = (inspect.getdoc(task_status) or "").replace("``", "`")
    lines.append(said)
    lines.append(
        "\nThe code is `registry_api.task_status`; `TaskSnapshot.status` and `TaskSummary.status`"
        " call it or\nhold its result."
    )
    return lines


def written() -> str:
    """Return the page."""
    lines = [_HEAD, "## Keys\n", "| record | kind | key in its task |", "|---|---|---|"]
    for kind, cls in CLASSES.items():
        name = cls.__name__
        lines.append(f"| [{name}](#{name.lower()}) | `{kind}` | `{KEY_FIELD[kind]}` |")
    for kind in CLASSES:
        lines += _record(kind)
    return "\n".join(lines + _statuses()) + "\n"


if __name__ == "__main__":
    PAGE.write_text(written(), encoding="utf-8")
