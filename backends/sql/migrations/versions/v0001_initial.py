"""The first schema.

Its statements stand here as they were, so that a later change of ``schema.py`` needs a migration of
its own: a test compares what all migrations make with the current schema.
"""

import re
import uuid

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_STATEMENTS = [
    """
    CREATE TABLE agent_progress_latest ( task_id TEXT NOT NULL, entry_id TEXT NOT NULL, agent_id
    TEXT NOT NULL, timestamp TEXT NOT NULL, status TEXT NOT NULL, message TEXT NOT NULL,
    progress BIGINT NOT NULL, "foreign" BIGINT NOT NULL, extra TEXT NOT NULL, PRIMARY KEY
    (task_id, agent_id) ) WITHOUT ROWID
    """,
    """
    CREATE TABLE agents ( task_id TEXT NOT NULL, agent_id TEXT NOT NULL, type TEXT NOT NULL,
    model TEXT, status TEXT NOT NULL, progress BIGINT NOT NULL, phase_index BIGINT, parent TEXT,
    depth BIGINT, started_at TEXT, completed_at TEXT, last_update TEXT, tmux_session TEXT, pid
    BIGINT, review_id TEXT, final_verdict TEXT, prompt TEXT NOT NULL, extra TEXT NOT NULL,
    active BIGINT NOT NULL, PRIMARY KEY (task_id, agent_id) ) WITHOUT ROWID
    """,
    """
    CREATE INDEX idx_agents_active ON agents (active, agent_id, task_id)
    """,
    """
    CREATE INDEX idx_agents_order ON agents (agent_id, task_id)
    """,
    """
    CREATE INDEX idx_agents_status ON agents (status, agent_id, task_id)
    """,
    """
    CREATE INDEX idx_agents_task_phase ON agents (task_id, phase_index)
    """,
    """
    CREATE INDEX idx_agents_task_status ON agents (task_id, status)
    """,
    """
    CREATE TABLE counters ( kind TEXT NOT NULL, status TEXT NOT NULL, n BIGINT NOT NULL, PRIMARY
    KEY (kind, status) ) WITHOUT ROWID
    """,
    """
    CREATE TABLE feed ( number INTEGER NOT NULL, task_id TEXT NOT NULL, lineage TEXT NOT NULL,
    revision BIGINT NOT NULL, changeset_id TEXT NOT NULL, digest TEXT NOT NULL, at TEXT NOT
    NULL, changeset TEXT NOT NULL, PRIMARY KEY (number), UNIQUE (task_id, changeset_id) )
    """,
    """
    CREATE INDEX idx_feed_task ON feed (task_id, number)
    """,
    """
    CREATE TABLE findings ( task_id TEXT NOT NULL, finding_id TEXT NOT NULL, agent_id TEXT NOT
    NULL, timestamp TEXT NOT NULL, finding_type TEXT NOT NULL, severity TEXT NOT NULL, message
    TEXT NOT NULL, data TEXT NOT NULL, phase_index BIGINT, "foreign" BIGINT NOT NULL, extra TEXT
    NOT NULL, PRIMARY KEY (task_id, finding_id) ) WITHOUT ROWID
    """,
    """
    CREATE INDEX idx_findings_agent ON findings (task_id, agent_id, timestamp, finding_id)
    """,
    """
    CREATE INDEX idx_findings_order ON findings (timestamp, task_id, finding_id)
    """,
    """
    CREATE INDEX idx_findings_severity ON findings (severity, timestamp, task_id, finding_id)
    """,
    """
    CREATE INDEX idx_findings_task ON findings (task_id, timestamp, finding_id)
    """,
    """
    CREATE TABLE handovers ( task_id TEXT NOT NULL, handover_id TEXT NOT NULL, from_phase_index
    BIGINT, to_phase_index BIGINT, summary TEXT NOT NULL, key_findings TEXT NOT NULL, blockers
    TEXT NOT NULL, recommendations TEXT NOT NULL, artifacts TEXT NOT NULL, created_at TEXT NOT
    NULL, extra TEXT NOT NULL, PRIMARY KEY (task_id, handover_id) ) WITHOUT ROWID
    """,
    """
    CREATE INDEX idx_handovers_order ON handovers (created_at, task_id, handover_id)
    """,
    """
    CREATE TABLE meta ( name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (name) ) WITHOUT
    ROWID
    """,
    """
    CREATE TABLE phases ( task_id TEXT NOT NULL, phase_index BIGINT NOT NULL, phase_id TEXT NOT
    NULL, name TEXT NOT NULL, description TEXT NOT NULL, status TEXT NOT NULL, created_at TEXT,
    started_at TEXT, completed_at TEXT, revision_round BIGINT NOT NULL, max_revision_rounds
    BIGINT, revision_ready BIGINT NOT NULL, active_review_id TEXT, extra TEXT NOT NULL, PRIMARY
    KEY (task_id, phase_index) ) WITHOUT ROWID
    """,
    """
    CREATE INDEX idx_phases_order ON phases (phase_index, task_id)
    """,
    """
    CREATE INDEX idx_phases_status ON phases (status, phase_index, task_id)
    """,
    """
    CREATE TABLE progress ( task_id TEXT NOT NULL, entry_id TEXT NOT NULL, agent_id TEXT NOT
    NULL, timestamp TEXT NOT NULL, status TEXT NOT NULL, message TEXT NOT NULL, progress BIGINT
    NOT NULL, "foreign" BIGINT NOT NULL, extra TEXT NOT NULL, PRIMARY KEY (task_id, entry_id) )
    WITHOUT ROWID
    """,
    """
    CREATE INDEX idx_progress_agent ON progress (task_id, agent_id, timestamp, entry_id)
    """,
    """
    CREATE INDEX idx_progress_order ON progress (timestamp, task_id, entry_id)
    """,
    """
    CREATE INDEX idx_progress_task ON progress (task_id, timestamp, entry_id)
    """,
    """
    CREATE TABLE reviews ( task_id TEXT NOT NULL, review_id TEXT NOT NULL, phase_index BIGINT,
    phase_id TEXT, status TEXT NOT NULL, verdict TEXT, num_reviewers BIGINT NOT NULL, reviewers
    TEXT NOT NULL, created_at TEXT NOT NULL, completed_at TEXT, notes TEXT NOT NULL, extra TEXT
    NOT NULL, PRIMARY KEY (task_id, review_id) ) WITHOUT ROWID
    """,
    """
    CREATE INDEX idx_reviews_order ON reviews (created_at, task_id, review_id)
    """,
    """
    CREATE INDEX idx_reviews_status ON reviews (status, created_at, task_id, review_id)
    """,
    """
    CREATE TABLE tasks ( task_id TEXT NOT NULL, description TEXT NOT NULL, recorded_status TEXT
    NOT NULL, created_at TEXT NOT NULL, priority TEXT NOT NULL, workspace TEXT, workspace_base
    TEXT, client_cwd TEXT, current_phase_index BIGINT, max_agents BIGINT, max_concurrent BIGINT,
    max_depth BIGINT, context TEXT NOT NULL, extra TEXT NOT NULL, lineage TEXT NOT NULL,
    revision BIGINT NOT NULL, updated_at TEXT NOT NULL, status TEXT NOT NULL, phases BIGINT NOT
    NULL, agents BIGINT NOT NULL, active_agents BIGINT NOT NULL, feed_floor BIGINT NOT NULL,
    expired_before TEXT, PRIMARY KEY (task_id) ) WITHOUT ROWID
    """,
    """
    CREATE INDEX idx_tasks_created ON tasks (created_at, task_id)
    """,
    """
    CREATE INDEX idx_tasks_status ON tasks (status, created_at, task_id)
    """,
    """
    CREATE TABLE verdicts ( task_id TEXT NOT NULL, verdict_id TEXT NOT NULL, review_id TEXT NOT
    NULL, reviewer_id TEXT, verdict TEXT NOT NULL, findings TEXT NOT NULL, notes TEXT NOT NULL,
    submitted_at TEXT NOT NULL, extra TEXT NOT NULL, PRIMARY KEY (task_id, verdict_id) ) WITHOUT
    ROWID
    """,
    """
    CREATE INDEX idx_verdicts_order ON verdicts (submitted_at, task_id, verdict_id)
    """,
]


_WITHOUT_ROWID = re.compile(r"\s+WITHOUT\s+ROWID")


def _for_postgresql(statement: str) -> str:
    """Return a statement with PostgreSQL's types: texts are compared as bytes, as in SQLite."""
    statement = _WITHOUT_ROWID.sub("", statement).replace("number INTEGER", "number BIGINT")
    return re.sub(r"\bTEXT\b", 'TEXT COLLATE "C"', statement)


def upgrade() -> None:
    """Create every table, and the id of the feed; in PostgreSQL also the sequence of its numbers.

    ``counters.kind`` is the text before a slash there: several rows count one kind.
    """
    postgresql = op.get_bind().dialect.name == "postgresql"
    if postgresql:
        op.execute("CREATE SEQUENCE feed_number AS BIGINT")
    for statement in _STATEMENTS:
        if not postgresql:
            op.execute(statement)
        elif "idx_findings_severity" not in statement:  # its entries would be limited there
            op.execute(_for_postgresql(statement))
    meta = sa.table("meta", sa.column("name"), sa.column("value"))
    op.execute(meta.insert().values(name="feed_id", value=str(uuid.uuid4())))
