"""Read the tasks of the legacy system's own database, ``state.sqlite3``.

The database and its logs are copied first, until none of them changes meanwhile: the system may
run, and its files are not touched. Its three known schemas differ in columns, which are looked up.
Rows become a document as the system wrote it, which the decoder of documents reads; so statuses and
times mean the same. What a document has no place for is kept in the ``extra`` of a record.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import sqlite3
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from backends.files import Problem
from backends.json_files.legacy.lens.decoder import decode
from backends.json_files.legacy.lens.dialects import OURS
from backends.jsonl.times import Times
from registry_api.errors import CorruptDocument, RegistryError, Unavailable
from registry_api.plugins import ImportedTask, OpenContext
from registry_api.records import (
    Finding,
    Handover,
    History,
    Kind,
    ProgressEntry,
    Record,
    Task,
    TaskState,
    is_id,
    json_text,
)

__all__ = ["LegacyDatabase", "database_in"]

_COPIES, _PAUSE = 50, 0.1  # tries to copy a database that is being written, seconds between two
_KEPT = 200_000  # bytes of rows that are kept in a task's extra
# Tables that are read below. Others with a task_id are kept in the task's extra.
_READ = frozenset(
    {
        *("tasks", "phases", "agents", "agent_progress_latest", "reviews", "review_verdicts"),
        *("agent_findings", "handovers", "task_config", "sqlite_sequence"),
    }
)
_LIMITS = ("max_agents", "max_concurrent", "max_depth")
_CONTEXT = (
    *("constraints", "relevant_files", "conversation_history", "background_context"),
    *("expected_deliverables", "success_criteria", "project_context"),
)
_FINDING = (
    *("finding_id", "agent_id", "created_at", "finding_type", "severity", "message"),
    *("data", "phase_index"),
)
_HANDOVER = (
    *("handover_id", "from_phase_index", "to_phase_index", "summary", "key_findings"),
    *("blockers", "recommendations", "created_at"),
)
_VERDICT = (
    *("verdict_id", "review_id", "verdict", "reviewer_notes", "submitted_at"),
    *("reviewer_agent_id", "findings"),
)
Row = dict[str, Any]


class LegacyDatabase:
    """Reads the database of a place."""

    def read(self, place: Path, context: OpenContext) -> Iterator[ImportedTask]:
        """Yield the tasks of the database; see Importer."""
        path = database_in(place)
        if path is None:
            raise Unavailable(f"{place} has no state.sqlite3", next_step="Name its workspace")
        times = Times.named(context.settings.legacy_tz)
        with tempfile.TemporaryDirectory(prefix="registry-import-") as folder:
            copy = _copied(path, Path(folder))
            try:
                with closing(sqlite3.connect(copy)) as database:
                    database.row_factory = sqlite3.Row
                    database.text_factory = _decoded
                    check = str(database.execute("PRAGMA quick_check(1)").fetchone()[0])
                    if check != "ok":
                        raise sqlite3.DatabaseError(check)
                    tables = _tables(database)
            except sqlite3.Error as error:
                raise CorruptDocument(
                    f"{path} is not a database of the legacy system: {error}",
                    next_step=f"sqlite3 {path} 'PRAGMA integrity_check'",
                ) from error
        if "tasks" not in tables:
            raise CorruptDocument(f"{path} has no table tasks", next_step="Name another place")
        base = path.parent.parent if path.parent.name == "registry" else path.parent
        tasks = [row for row in tables["tasks"] if row.get("task_id") is not None]
        of_task: dict[str, dict[str, list[Row]]] = {str(row["task_id"]): {} for row in tasks}
        lost = 0
        for name, rows in tables.items():
            for row in rows:
                of = of_task.get(str(row.get("task_id")))
                if of is not None:
                    of.setdefault(name, []).append(row)
                else:
                    lost += "task_id" in row
        notes = [f"rows of tasks that are not in the database, not taken: {lost}"] if lost else []
        for row in tasks:
            task_id = str(row["task_id"])
            reader = _Reader(row, of_task[task_id], times=times, path=path, base=base, notes=notes)
            try:
                found = reader.task()
            except (TypeError, ValueError, RecursionError, RegistryError) as error:
                found = ImportedTask(task=Task(task_id=task_id), error=str(error))
            yield found
            notes = []


def database_in(place: Path) -> Path | None:
    """Return the database that a place is or, as a workspace, has."""
    for path in (place, place / "registry" / "state.sqlite3", place / "state.sqlite3"):
        if not path.is_file():
            continue
        with suppress(OSError), path.open("rb") as file:
            if file.read(16) == b"SQLite format 3\0":
                return path
    return None


def _copied(path: Path, folder: Path) -> Path:
    """Copy a database with its logs, all from one moment; SQLite then recovers the copy."""
    path = path.resolve()  # SQLite keeps the logs beside the file that a link leads to
    copy = folder / path.name
    files = (path, *(path.with_name(path.name + end) for end in ("-wal", "-journal")))
    for _ in range(_COPIES):
        before = [_stamp(file) for file in files]
        try:
            for file, stamp in zip(files, before, strict=True):
                target = folder / file.name
                target.unlink(missing_ok=True)
                if stamp is not None:
                    shutil.copyfile(file, target)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise Unavailable(
                f"{path} cannot be copied: {error.strerror}", next_step="Check its permissions"
            ) from error
        if [_stamp(file) for file in files] == before:
            return copy
        time.sleep(_PAUSE)
    raise Unavailable(
        f"{path} is written all the time, so no consistent copy can be made",
        next_step="Stop the legacy programs, then try again",
    )


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _tables(database: sqlite3.Connection) -> dict[str, list[Row]]:
    names = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    found: dict[str, list[Row]] = {}
    for (name,) in names:
        quoted = str(name).replace('"', '""')
        rows = database.execute(f'SELECT * FROM "{quoted}"').fetchall()  # noqa: S608  (quoted)
        found[str(name).lower()] = [{k.lower(): _plain(row[k]) for k in row.keys()} for row in rows]  # noqa: SIM118  (a row iterates over its values)
    return found


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _plain(value: Any) -> Any:
    """Return a column's value as JSON knows it: its types are not declared."""
    if isinstance(value, bytes):
        return _decoded(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _Reader:
    """The rows of one task."""

    def __init__(
        self,
        row: Row,
        tables: Mapping[str, list[Row]],
        *,
        times: Times,
        path: Path,
        base: Path,
        notes: list[str],
    ) -> None:
        self._row = row
        self._task_id = str(row["task_id"])
        self._tables = tables
        self._times = times
        self._path = path
        self._base = base
        self._notes = notes

    def task(self) -> ImportedTask:
        """Return the task with everything that belongs to it."""
        problems: list[Problem] = []
        state = decode(
            self._document(),
            task_id=self._task_id,
            times=self._times,
            path=self._path,
            problems=problems,
        )
        self._notes += [problem.what for problem in problems]
        self._read_handovers(state)
        kinds = (Kind.PHASE, Kind.AGENT, Kind.REVIEW, Kind.VERDICT, Kind.HANDOVER)
        records: tuple[Record, ...] = tuple(r for kind in kinds for r in state.records(kind))
        return ImportedTask(
            task=state.task,
            records=records,
            histories=tuple(self._histories()),
            notes=tuple(self._notes),
        )

    def _of(self, table: str) -> list[Row]:
        rows = self._tables.get(table, ())
        return [{k: v for k, v in row.items() if v is not None} for row in rows]

    def _document(self) -> dict[str, Any]:
        row = {k: v for k, v in self._row.items() if v is not None}
        folder = self._base / self._task_id
        found: dict[str, Any] = {
            "task_id": self._task_id,
            "task_description": row.get("description", ""),
            "workspace_base": str(self._base),
            "phases": [_phase(phase) for phase in self._of("phases")],
            "agents": [_agent(agent) for agent in self._of("agents")],
            "reviews": self._reviews(),
        }
        for key in ("created_at", "priority", "client_cwd", "current_phase_index"):
            if key in row:
                found[key] = row[key]
        if row.get("status") == "CANCELLED":
            found["status"] = row["status"]
        # Others are derived: the system completed a task with the first agent of its first phase.
        # The folder may have been moved since; its place is where it is now.
        found["workspace"] = str(folder) if folder.is_dir() else row.get("workspace")
        for config in self._of("task_config"):
            found |= {key: config[key] for key in _LIMITS if key in config}
            context = {key: _parsed(config[key]) for key in _CONTEXT if key in config}
            if context:
                found["task_context"] = context
            found |= _left(config, *_LIMITS, *_CONTEXT)
        read = ("description", "workspace", "workspace_base", "status", "updated_at")
        same = ("created_at", "priority", "client_cwd", "current_phase_index")
        return found | self._kept() | _left(row, *read, *same)

    def _kept(self) -> dict[str, Any]:
        """Return the rows of tables that are not read, for the task's extra."""
        kept: dict[str, Any] = {}
        for table in sorted(self._tables.keys() - _READ):
            rows = self._of(table)
            if not rows:
                continue
            if len(json_text.dump(rows)) > _KEPT:
                self._notes.append(f"{len(rows)} rows of the table {table} are too large to keep")
            else:
                kept[f"legacy_{table}"] = rows
        return kept

    def _reviews(self) -> list[dict[str, Any]]:
        verdicts = defaultdict[str, list[dict[str, Any]]](list)
        for row in self._of("review_verdicts"):
            verdict: dict[str, Any] = {
                key: row[key]
                for key in ("verdict", "reviewer_notes", "submitted_at", "reviewer_agent_id")
                if key in row
            }
            verdict["findings"] = _listed(row.get("findings"))
            verdict |= _left(row, *_VERDICT)
            verdict[OURS] = {"verdict_id": f"legacy-verdict-{row.get('verdict_id')}"}
            verdicts[str(row.get("review_id"))].append(verdict)
        found = []
        for row in self._of("reviews"):
            said = verdicts.pop(str(row.get("review_id")), [])
            names = _listed(row.get("reviewer_agent_ids"))
            names += [v["reviewer_agent_id"] for v in said if "reviewer_agent_id" in v]
            review: dict[str, Any] = {
                "review_id": row.get("review_id"),
                "reviewers": [{"agent_id": name} for name in dict.fromkeys(map(str, names))],
                "verdicts": said,
                "num_reviewers": row.get("num_reviewers", max(1, len(names))),
            }
            renamed = {"verdict": "final_verdict"}
            same = ("phase_index", "phase_name", "status", "created_at", "completed_at")
            for key in (*same, "verdict", "reviewer_notes", "auto_spawned", "critique_agent_id"):
                if key in row:
                    review[renamed.get(key, key)] = row[key]
            read = ("review_id", "reviewer_agent_ids", "num_reviewers", "verdict")
            more = ("reviewer_notes", "auto_spawned", "critique_agent_id")
            found.append(review | _left(row, *read, *same, *more))
        if verdicts:
            self._notes.append(f"verdicts of {len(verdicts)} unknown reviews were not taken")
        return found

    def _read_handovers(self, state: TaskState) -> None:
        for row in self._of("handovers"):
            moment = self._times.read(row.get("created_at"))
            key = f"legacy-handover-{row.get('handover_id')}"
            if moment is None or not is_id(key):
                self._notes.append(f"handover {row.get('handover_id')} has no time, not taken")
                continue
            state.handovers[key] = Handover(
                task_id=self._task_id,
                handover_id=key,
                from_phase_index=_integer(row.get("from_phase_index")),
                to_phase_index=_integer(row.get("to_phase_index")),
                summary=_text(row.get("summary")),
                key_findings=_texts(row.get("key_findings")),
                blockers=_texts(row.get("blockers")),
                recommendations=_texts(row.get("recommendations")),
                created_at=moment,
                extra=json_text.dump_text(_left(row, *_HANDOVER)),
            )

    def _dated(self, table: str, column: str) -> Iterator[tuple[datetime, str, Row]]:
        """Yield the rows of a table with their time and agent; tell of those that lack one."""
        for row in self._of(table):
            moment, agent_id = self._times.read(row.get(column)), row.get("agent_id")
            if moment is None or not is_id(agent_id):
                self._notes.append(f"a row of {table} of {agent_id} has no time, not taken")
            else:
                yield moment, str(agent_id), row

    def _histories(self) -> Iterator[History]:
        for moment, agent_id, row in self._dated("agent_progress_latest", "timestamp"):
            yield ProgressEntry(
                task_id=self._task_id,
                entry_id=f"legacy-{_short(agent_id, row.get('timestamp'), row.get('message'))}",
                agent_id=agent_id,
                timestamp=moment,
                status=_text(row.get("status")),
                message=_text(row.get("message")),
                progress=_integer(row.get("progress")) or 0,
                foreign=True,
            )
        for moment, agent_id, row in self._dated("agent_findings", "created_at"):
            data = _parsed(row.get("data"))
            yield Finding(
                task_id=self._task_id,
                finding_id=f"legacy-finding-{row.get('finding_id')}",
                agent_id=agent_id,
                timestamp=moment,
                finding_type=_text(row.get("finding_type")),
                severity=_text(row.get("severity")),
                message=_text(row.get("message")),
                data=json_text.dump_text(data) if isinstance(data, dict) else "{}",
                phase_index=_integer(row.get("phase_index")),
                foreign=True,
                extra=json_text.dump_text(_left(row, *_FINDING)),
            )


def _phase(row: Row) -> dict[str, Any]:
    index = _integer(row.get("phase_index")) or 0
    found: dict[str, Any] = {"id": row.get("phase_id", f"phase-{index}"), "order": index + 1}
    for key in ("name", "description", "status", "created_at", "started_at", "completed_at"):
        if key in row:
            found[key] = row[key]
    for key in ("deliverables", "success_criteria"):
        if key in row:
            found[key] = _parsed(row[key])
    if "revision_round" in row:
        found["revision_count"] = row["revision_round"]
    if "last_review_id" in row:
        found["active_review_id"] = row["last_review_id"]
    found |= _left(
        row,
        *("phase_id", "phase_index", "name", "description", "status", "deliverables"),
        *("success_criteria", "created_at", "started_at", "completed_at", "revision_round"),
        *("last_review_id", "max_revision_rounds", "revision_ready"),
    )
    ours = {key: row[key] for key in ("max_revision_rounds",) if key in row}
    if "revision_ready" in row:
        ours["revision_ready"] = bool(row["revision_ready"])
    return found | ({OURS: ours} if ours else {})


def _agent(row: Row) -> dict[str, Any]:
    renamed = {"agent_id": "id", "prompt_preview": "prompt"}
    left = ("task_id", "review_id", "tracked_files")
    found = {renamed.get(k, k): v for k, v in row.items() if k not in left}
    if "tracked_files" in row:
        found["tracked_files"] = _parsed(row["tracked_files"])
    return found | ({OURS: {"review_id": row["review_id"]}} if "review_id" in row else {})


def _parsed(value: Any) -> Any:
    """Return the value of a column that holds JSON, else the column's text."""
    if isinstance(value, str):
        with suppress(ValueError):
            return json_text.parse(value.encode())
    return value


def _short(*values: Any) -> str:
    """Return an id that follows from some values."""
    text = "\0".join(map(str, values))
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=12).hexdigest()


def _listed(value: Any) -> list[Any]:
    found = _parsed(value)
    return list(found) if isinstance(found, list) else []


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(_text(v if isinstance(v, str) else json_text.dump_text(v)) for v in _listed(value))


def _text(value: Any) -> str:
    return "" if value is None else str(value).replace("\x00", "")


def _integer(value: Any) -> int | None:
    return value if type(value) is int and abs(value) < 2**53 else None


def _left(row: Row, *known: str) -> Row:
    """Return the columns that nothing above reads; they are kept in the record's extra."""
    return {f"legacy_{k}": v for k, v in row.items() if k not in {"task_id", *known}}
