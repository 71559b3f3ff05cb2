"""Look-alikes of the legacy system's database, in each of its three known schemas."""

import json
import sqlite3
from contextlib import closing

from tests import legacy

SCHEMAS = ("first", "reviews", "rounds")

_FIRST = """
CREATE TABLE tasks (task_id TEXT PRIMARY KEY, workspace TEXT, workspace_base TEXT, description TEXT,
  status TEXT, priority TEXT, client_cwd TEXT, created_at TEXT, updated_at TEXT,
  current_phase_index INTEGER);
CREATE TABLE phases (task_id TEXT, phase_index INTEGER, phase_id TEXT, name TEXT, description TEXT,
  deliverables TEXT, success_criteria TEXT, status TEXT, created_at TEXT, started_at TEXT,
  completed_at TEXT, PRIMARY KEY (task_id, phase_index));
CREATE TABLE agents (agent_id TEXT PRIMARY KEY, task_id TEXT, type TEXT, model TEXT,
  tmux_session TEXT, parent TEXT, depth INTEGER, phase_index INTEGER, claude_pid INTEGER,
  cursor_pid INTEGER, tracked_files TEXT, started_at TEXT, completed_at TEXT, status TEXT,
  progress INTEGER, last_update TEXT, prompt_preview TEXT);
CREATE TABLE agent_progress_latest (task_id TEXT, agent_id TEXT, timestamp TEXT, status TEXT,
  progress INTEGER, message TEXT, PRIMARY KEY (task_id, agent_id));
CREATE TABLE reviews (review_id TEXT PRIMARY KEY, task_id TEXT, phase_index INTEGER, status TEXT,
  verdict TEXT, created_at TEXT, completed_at TEXT, reviewer_notes TEXT, reviewer_agent_ids TEXT,
  critique_agent_id TEXT);
CREATE TABLE review_verdicts (verdict_id INTEGER PRIMARY KEY AUTOINCREMENT, review_id TEXT,
  task_id TEXT, reviewer_agent_id TEXT, verdict TEXT, findings TEXT, reviewer_notes TEXT,
  submitted_at TEXT);
CREATE TABLE agent_findings (finding_id INTEGER PRIMARY KEY AUTOINCREMENT, task_id TEXT,
  agent_id TEXT, phase_index INTEGER, finding_type TEXT, severity TEXT, message TEXT, data TEXT,
  created_at TEXT);
CREATE TABLE handovers (handover_id INTEGER PRIMARY KEY AUTOINCREMENT, task_id TEXT,
  from_phase_index INTEGER, to_phase_index INTEGER, summary TEXT, key_findings TEXT, blockers TEXT,
  recommendations TEXT, created_at TEXT);
CREATE TABLE task_config (task_id TEXT PRIMARY KEY, max_agents INTEGER, max_concurrent INTEGER,
  max_depth INTEGER, constraints TEXT, background_context TEXT);
CREATE TABLE agent_hierarchy (id INTEGER PRIMARY KEY, task_id TEXT, parent_agent_id TEXT,
  child_agent_id TEXT, spawned_at TEXT);
"""
_MORE = {
    "reviews": """
ALTER TABLE reviews ADD COLUMN num_reviewers INTEGER DEFAULT 2;
ALTER TABLE reviews ADD COLUMN auto_spawned INTEGER DEFAULT 0;
ALTER TABLE reviews ADD COLUMN phase_name TEXT;
ALTER TABLE agents ADD COLUMN review_id TEXT;
ALTER TABLE agents ADD COLUMN final_verdict TEXT;
""",
    "rounds": """
ALTER TABLE phases ADD COLUMN revision_round INTEGER DEFAULT 0;
ALTER TABLE phases ADD COLUMN max_revision_rounds INTEGER DEFAULT 3;
ALTER TABLE phases ADD COLUMN last_review_id TEXT;
ALTER TABLE phases ADD COLUMN revision_ready INTEGER DEFAULT 0;
ALTER TABLE reviews ADD COLUMN retry_count INTEGER DEFAULT 0;
CREATE TABLE phase_outcomes (outcome_id INTEGER PRIMARY KEY, task_id TEXT, phase_index INTEGER,
  review_summary TEXT);
""",
}
STATUSES = ("completed", "running", "failed", "working", "terminated")


def open_database(workspace, schema):
    """Create the database in a workspace, in WAL mode; the caller closes it."""
    (workspace / "registry").mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(workspace / "registry" / "state.sqlite3", isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.executescript(_FIRST)
    for name in SCHEMAS[1 : SCHEMAS.index(schema) + 1]:
        database.executescript(_MORE[name])
    return database


def insert(database, table, **values):
    names = ", ".join(values)
    marks = ", ".join("?" for _ in values)
    database.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(values.values()))


def at(minute, second=0):
    return f"2026-02-03T10:{minute:02}:{second:02}.250000"


def fill(database, workspace, tasks=3, *, documents=True):
    """Insert tasks of two phases, five agents, a review, findings; write their empty documents."""
    for n in range(tasks):
        task = f"TASK-20260203-10000{n}-abcdef0{n}"
        if documents:
            folder = legacy.write_task(workspace, task, created_at=at(0))
        insert(
            database,
            "tasks",
            task_id=task,
            workspace=f"/elsewhere/{task}",
            workspace_base="/elsewhere",
            description=f"task {n}",
            status="COMPLETED",  # as the system did after the first agent had completed
            priority="P1",
            created_at=at(0),
            current_phase_index=1,
        )
        insert(database, "task_config", task_id=task, max_agents=50, constraints='["no network"]')
        for index, status in enumerate(("APPROVED", "UNDER_REVIEW")):
            insert(
                database,
                "phases",
                task_id=task,
                phase_index=index,
                phase_id=f"phase-{n}{index}",
                name=f"phase {index}",
                status=status,
                deliverables='["a report"]',
                started_at=at(index),
            )
        for m, status in enumerate(STATUSES):
            agent = f"worker-10000{m}-{n}"
            insert(
                database,
                "agents",
                agent_id=agent,
                task_id=task,
                type="worker",
                model="opus",
                parent="orchestrator",
                depth=1,
                phase_index=1,
                status=status,
                progress=10 * m,
                started_at=at(1),
                last_update=at(5 + m),
                tracked_files='{"log_file": "x"}',
            )
            insert(
                database,
                "agent_progress_latest",
                task_id=task,
                agent_id=agent,
                timestamp=at(5 + m),
                status=status,
                progress=10 * m,
                message=f"report {m}",
            )
            if documents:  # the system notes a report twice, a moment apart
                line = {"timestamp": at(5 + m)[:-6] + "900000", "agent_id": agent, "status": status}
                line |= {"message": f"report {m}", "progress": 10 * m}
                log = folder / "progress" / f"{agent}_progress.jsonl"
                log.write_text(json.dumps(line) + "\n")
            insert(
                database,
                "agent_findings",
                task_id=task,
                agent_id=agent,
                phase_index=1,
                finding_type="issue",
                severity="high",
                message=f"finding {m}",
                data='{"file": "a.py"}',
                created_at=at(6 + m),
            )
        insert(
            database,
            "reviews",
            review_id=f"review-{n}",
            task_id=task,
            phase_index=0,
            status="completed",
            verdict="approved",
            created_at=at(2),
            completed_at=at(3),
            reviewer_agent_ids=json.dumps([f"worker-100000-{n}"]),
        )
        insert(
            database,
            "review_verdicts",
            review_id=f"review-{n}",
            task_id=task,
            reviewer_agent_id=f"worker-100000-{n}",
            verdict="approved",
            findings='["fine"]',
            submitted_at=at(3),
        )
        insert(
            database,
            "handovers",
            task_id=task,
            from_phase_index=0,
            to_phase_index=1,
            summary="done",
            key_findings='["one", "two"]',
            created_at=at(4),
        )
        insert(database, "agent_hierarchy", task_id=task, parent_agent_id="x", child_agent_id="y")


def made(workspace, schema="rounds", tasks=3, **more):
    with closing(open_database(workspace, schema)) as database:
        fill(database, workspace, tasks, **more)
