"""The raw baseline: plain sqlite3 that writes the same rows and log line, and nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import orjson
from uuid_utils import uuid7

__all__ = ["RawStore"]

_COLUMNS = 'task_id, entry_id, agent_id, timestamp, status, message, progress, "foreign", extra'
_ENTRY = f"INSERT INTO progress ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, 0, '{{}}')"
_LATEST = (
    f"INSERT OR REPLACE INTO agent_progress_latest ({_COLUMNS}) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, 0, '{}')"
)
_AGENT = "UPDATE agents SET status=?, progress=?, last_update=? WHERE task_id=? AND agent_id=?"
_TASK = "UPDATE tasks SET revision=revision+1, updated_at=? WHERE task_id=? RETURNING revision"
_FEED = (
    "INSERT INTO feed (task_id, lineage, revision, changeset_id, digest, at, changeset) "
    "VALUES (?, '', ?, ?, ?, ?, ?)"
)
_COUNT = "UPDATE counters SET n=n+1 WHERE kind='progress' AND status=''"


class RawStore:
    """A writer into the tables of a database that the store created, with the same pragmas."""

    def __init__(self, workspace: Path, *, full: bool) -> None:
        self.workspace = workspace
        path = workspace / ".registry" / "registry.sqlite3"
        self.db = sqlite3.connect(path, isolation_level=None, timeout=10)
        for pragma in (f"synchronous={'FULL' if full else 'NORMAL'}", "cache_size=-8000"):
            self.db.execute(f"PRAGMA {pragma}")

    def record_progress(self, task: str, agent: str, message: str, progress: int) -> None:
        """Append one report."""
        now = datetime.now(UTC).isoformat()
        entry, change = uuid7().hex, str(uuid7())
        row = (task, entry, agent, now, "running", message, progress)
        text = orjson.dumps([change, *row])
        digest = hashlib.sha256(text).hexdigest()
        db = self.db
        db.execute("BEGIN IMMEDIATE")
        (revision,) = db.execute(_TASK, (now, task)).fetchone()
        db.execute(_ENTRY, row)
        db.execute(_LATEST, row)
        db.execute(_AGENT, ("running", progress, now, task, agent))
        db.execute(_COUNT)
        db.execute(_FEED, (task, revision, change, digest, now, text.decode()))
        db.execute("COMMIT")
        line = dict(zip(("task", "entry_id", "agent_id", "timestamp"), row, strict=False))
        line |= {"status": "running", "message": message, "progress": progress}
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        fd = os.open(self.workspace / task / "progress" / f"{agent}_progress.jsonl", flags, 0o644)
        os.write(fd, json.dumps(line).encode() + b"\n")
        os.close(fd)

    def load(self, task: str) -> dict[str, list[dict[str, object]]]:
        """Return the rows of one task as dicts, by table."""
        out = {}
        tables = "tasks phases agents reviews verdicts handovers agent_progress_latest"
        for table in tables.split():
            cursor = self.db.execute(f"SELECT * FROM {table} WHERE task_id = ?", (task,))
            names = [column[0] for column in cursor.description]
            out[table] = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        return out
