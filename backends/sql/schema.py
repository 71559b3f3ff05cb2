"""The tables. Names and columns are those of the legacy system's database where it had them."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Sequence,
    Table,
    Text,
    UniqueConstraint,
)

__all__ = ["VERSION", "metadata"]

VERSION = "0002"
metadata = MetaData()
_SERIAL = BigInteger().with_variant(Integer(), "sqlite")  # in SQLite such a key is the rowid
# PostgreSQL compares bytes, as the other stores do, only with this collation.
_TEXT = Text().with_variant(Text(collation="C"), "postgresql")


def _text(name: str, *, null: bool = False) -> Column[str]:
    return Column(name, _TEXT, nullable=null)


def _chain() -> Column[str]:
    """Empty, also where a program that knows no chains has inserted the row."""
    return Column("chain", _TEXT, nullable=False, server_default="")


def _int(name: str, *, null: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=null)


tasks = Table(
    "tasks",
    metadata,
    _text("task_id"),
    _text("description"),
    _text("recorded_status"),
    _text("created_at"),
    _text("priority"),
    _text("workspace", null=True),
    _text("workspace_base", null=True),
    _text("client_cwd", null=True),
    _int("current_phase_index", null=True),
    _int("max_agents", null=True),
    _int("max_concurrent", null=True),
    _int("max_depth", null=True),
    _text("context"),
    _text("extra"),
    _text("lineage"),
    _int("revision"),
    _text("updated_at"),
    _text("status"),
    _int("phases"),
    _int("agents"),
    _int("active_agents"),
    _int("feed_floor"),
    _text("expired_before", null=True),
    _chain(),
    PrimaryKeyConstraint("task_id"),
    Index("idx_tasks_created", "created_at", "task_id"),
    Index("idx_tasks_status", "status", "created_at", "task_id"),
    sqlite_with_rowid=False,
)

phases = Table(
    "phases",
    metadata,
    _text("task_id"),
    _int("phase_index"),
    _text("phase_id"),
    _text("name"),
    _text("description"),
    _text("status"),
    _text("created_at", null=True),
    _text("started_at", null=True),
    _text("completed_at", null=True),
    _int("revision_round"),
    _int("max_revision_rounds", null=True),
    _int("revision_ready"),
    _text("active_review_id", null=True),
    _text("extra"),
    PrimaryKeyConstraint("task_id", "phase_index"),
    Index("idx_phases_order", "phase_index", "task_id"),
    Index("idx_phases_status", "status", "phase_index", "task_id"),
    sqlite_with_rowid=False,
)

agents = Table(
    "agents",
    metadata,
    _text("task_id"),
    _text("agent_id"),
    _text("type"),
    _text("model", null=True),
    _text("status"),
    _int("progress"),
    _int("phase_index", null=True),
    _text("parent", null=True),
    _int("depth", null=True),
    _text("started_at", null=True),
    _text("completed_at", null=True),
    _text("last_update", null=True),
    _text("tmux_session", null=True),
    _int("pid", null=True),
    _text("review_id", null=True),
    _text("final_verdict", null=True),
    _text("prompt"),
    _text("extra"),
    _int("active"),
    PrimaryKeyConstraint("task_id", "agent_id"),
    Index("idx_agents_order", "agent_id", "task_id"),
    Index("idx_agents_active", "active", "agent_id", "task_id"),
    Index("idx_agents_status", "status", "agent_id", "task_id"),
    Index("idx_agents_task_status", "task_id", "status"),
    Index("idx_agents_task_phase", "task_id", "phase_index"),
    sqlite_with_rowid=False,
)

progress = Table(
    "progress",
    metadata,
    _text("task_id"),
    _text("entry_id"),
    _text("agent_id"),
    _text("timestamp"),
    _text("status"),
    _text("message"),
    _int("progress"),
    _int("foreign"),
    _text("extra"),
    PrimaryKeyConstraint("task_id", "entry_id"),
    Index("idx_progress_order", "timestamp", "task_id", "entry_id"),
    Index("idx_progress_task", "task_id", "timestamp", "entry_id"),
    Index("idx_progress_agent", "task_id", "agent_id", "timestamp", "entry_id"),
    sqlite_with_rowid=False,
)

agent_progress_latest = Table(
    "agent_progress_latest",
    metadata,
    *(Column(c.name, c.type, nullable=c.nullable) for c in progress.columns),
    PrimaryKeyConstraint("task_id", "agent_id"),
    sqlite_with_rowid=False,
)

findings = Table(
    "findings",
    metadata,
    _text("task_id"),
    _text("finding_id"),
    _text("agent_id"),
    _text("timestamp"),
    _text("finding_type"),
    _text("severity"),
    _text("message"),
    _text("data"),
    _int("phase_index", null=True),
    _int("foreign"),
    _text("extra"),
    PrimaryKeyConstraint("task_id", "finding_id"),
    Index("idx_findings_order", "timestamp", "task_id", "finding_id"),
    Index("idx_findings_task", "task_id", "timestamp", "finding_id"),
    Index("idx_findings_agent", "task_id", "agent_id", "timestamp", "finding_id"),
    Index("idx_findings_severity", "severity", "timestamp", "task_id", "finding_id"),
    sqlite_with_rowid=False,
)

reviews = Table(
    "reviews",
    metadata,
    _text("task_id"),
    _text("review_id"),
    _int("phase_index", null=True),
    _text("phase_id", null=True),
    _text("status"),
    _text("verdict", null=True),
    _int("num_reviewers"),
    _text("reviewers"),
    _text("created_at"),
    _text("completed_at", null=True),
    _text("notes"),
    _text("extra"),
    PrimaryKeyConstraint("task_id", "review_id"),
    Index("idx_reviews_order", "created_at", "task_id", "review_id"),
    Index("idx_reviews_status", "status", "created_at", "task_id", "review_id"),
    sqlite_with_rowid=False,
)

verdicts = Table(
    "verdicts",
    metadata,
    _text("task_id"),
    _text("verdict_id"),
    _text("review_id"),
    _text("reviewer_id", null=True),
    _text("verdict"),
    _text("findings"),
    _text("notes"),
    _text("submitted_at"),
    _text("extra"),
    PrimaryKeyConstraint("task_id", "verdict_id"),
    Index("idx_verdicts_order", "submitted_at", "task_id", "verdict_id"),
    sqlite_with_rowid=False,
)

handovers = Table(
    "handovers",
    metadata,
    _text("task_id"),
    _text("handover_id"),
    _int("from_phase_index", null=True),
    _int("to_phase_index", null=True),
    _text("summary"),
    _text("key_findings"),
    _text("blockers"),
    _text("recommendations"),
    _text("artifacts"),
    _text("created_at"),
    _text("extra"),
    PrimaryKeyConstraint("task_id", "handover_id"),
    Index("idx_handovers_order", "created_at", "task_id", "handover_id"),
    sqlite_with_rowid=False,
)

feed = Table(
    "feed",
    metadata,
    Column("number", _SERIAL, nullable=False, autoincrement=False),
    _text("task_id"),
    _text("lineage"),
    _int("revision"),
    _text("changeset_id"),
    _text("digest"),
    _text("at"),
    _text("changeset"),
    _chain(),
    PrimaryKeyConstraint("number"),
    UniqueConstraint("task_id", "changeset_id"),
    Index("idx_feed_task", "task_id", "number"),
)

# Where several transactions write at the same time, it gives out the numbers of the feed.
feed_number = Sequence("feed_number", data_type=BigInteger())

# ``kind`` ends with ``/N`` where several transactions write at the same time: several counters of
# one kind and status, whose sum counts.
counters = Table(
    "counters",
    metadata,
    _text("kind"),
    _text("status"),
    _int("n"),
    PrimaryKeyConstraint("kind", "status"),
    sqlite_with_rowid=False,
)

# Only where several hosts may share the database. ``expires``: ms of the server's clock.
leases = Table(
    "leases",
    metadata,
    _text("name"),
    _text("holder"),
    _int("token"),
    _int("expires"),
    PrimaryKeyConstraint("name"),
    info={"shared": True},
)

meta = Table(
    "meta",
    metadata,
    _text("name"),
    _text("value"),
    PrimaryKeyConstraint("name"),
    sqlite_with_rowid=False,
)
