"""A read-only store over legacy files as they are: it writes nothing into the workspace."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from backends.files import Problem
from backends.json_files.lazy import lazy
from backends.json_files.legacy.handovers import read_handovers
from backends.json_files.legacy.layout import (
    Layout,
    frozen_without_record,
    load_document,
    read_file,
)
from backends.json_files.legacy.lens.decoder import decode
from backends.json_files.legacy.merged_journals import merged_journals
from backends.json_files.legacy.state_database import legacy_state
from backends.json_files.legacy.stored_counts import listed_tasks, read_stored_counts
from backends.json_files.legacy.unreadable import unreadable_documents
from backends.jsonl.reader import find_logs, read_lines
from backends.jsonl.times import Times
from registry_api.authoring import select_records, select_tasks
from registry_api.errors import CorruptDocument, ReadOnly, StoreClosed, TaskNotFound
from registry_api.records import (
    ALL,
    ALL_RECORDS,
    HISTORIES,
    Change,
    Changeset,
    Commit,
    FeedCursor,
    Head,
    History,
    Kind,
    Page,
    ProgressEntry,
    Record,
    RecordQuery,
    Refs,
    RegistryCounts,
    TaskQuery,
    TaskSnapshot,
    TaskState,
    TaskSummary,
    after_report,
    check_limit,
)
from registry_api.store import StoreInfo

__all__ = ["JsonView", "read_task"]

_UNADOPTED = "unadopted"


@dataclass(slots=True)
class ReadTask:
    """One task as its files state it: records, histories, and what could not be read."""

    task_id: str
    state: TaskState
    updated_at: datetime
    histories: dict[Kind, list[History]]
    problems: list[Problem]

    def snapshot(self, only: Refs | None = None) -> TaskSnapshot:
        return self.state.snapshot(_UNADOPTED, 1, self.updated_at, only=only)


def read_task(layout: Layout, task_id: str, times: Times) -> ReadTask:
    """Read a task's document, handovers and logs; raises CorruptDocument or OSError."""
    path = layout.document(task_id)
    problems: list[Problem] = []
    document = load_document(read_file(path), path=path, task_id=task_id)
    modified = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    state = decode(document, task_id=task_id, times=times, path=path, problems=problems)
    folder = layout.folder(task_id)
    for handover in read_handovers(folder, state, times=times, problems=problems):
        state.handovers.setdefault(handover.handover_id, handover)
    histories: dict[Kind, list[History]] = {kind: [] for kind in HISTORIES}
    ghosts = set[str]()
    for log in find_logs(folder, problems):
        for _, record in read_lines(log, task_id=task_id, times=times, problems=problems):
            histories[log.kind].append(record)
            if isinstance(record, ProgressEntry) and record.foreign:
                agent = state.agents.get(record.agent_id)
                if agent is not None:
                    state.agents[agent.agent_id] = after_report(agent, record)
        strangers = {h.agent_id for h in histories[log.kind]} - state.agents.keys() - ghosts
        ghosts |= strangers
        for name in sorted(strangers):
            what = f"lines of agent {name}, which is not in the registry; kept"
            problems.append(Problem(path=log.path, what=what))
    return ReadTask(task_id, state, modified, histories, problems)


class JsonView:
    """A read-only store over a workspace that was not adopted; every task is at revision 1."""

    def __init__(self, workspace: Path, *, times: Times) -> None:
        self._layout = Layout(workspace)
        self._times = times
        self._closed = False
        self._lock = threading.Lock()
        self.info = StoreInfo(name="json", location=str(workspace))

    @lazy
    def _read(self) -> tuple[dict[str, ReadTask], tuple[Problem, ...]]:
        problems: list[Problem] = []
        tasks = {}
        for task_id in self._layout.tasks(problems):
            try:
                tasks[task_id] = read_task(self._layout, task_id, self._times)
            except CorruptDocument as error:
                path, _, what = error.message.partition(": ")
                problems.append(Problem(path=Path(path), what=what))
            except OSError as error:
                path_ = self._layout.document(task_id)
                problems.append(Problem(path=path_, what=f"cannot be read: {error.strerror}"))
            else:
                problems += tasks[task_id].problems
        for task_id in sorted(listed_tasks(self._layout.global_file) - tasks.keys()):
            what = f"lists task {task_id}, which has no readable registry here"
            problems.append(Problem(path=self._layout.global_file, what=what))
        return tasks, tuple(problems)

    @property
    def _tasks(self) -> dict[str, ReadTask]:
        if self._closed:
            raise StoreClosed("the store is closed", next_step="Open it again")
        with self._lock:
            return self._read[0]

    # -- what only legacy files have ----------------------------------------------------------

    def stored_counts(self) -> dict[str, int]:
        """See Legacy.stored_counts."""
        return read_stored_counts(self._layout.global_file, [])

    def problems(self) -> tuple[str, ...]:
        """See Legacy.problems."""
        seen: list[Problem] = []
        read_stored_counts(self._layout.global_file, seen)
        with self._lock:
            return tuple(str(p) for p in (*self._read[1], *seen))

    def frozen_documents(self) -> int:
        """See Legacy.frozen_documents."""
        return frozen_without_record(self._layout)

    def merged(self) -> str | None:
        """See Legacy.merged."""
        found = merged_journals(self._layout)
        return f"{found[0]} and {found[1]}" if found else None

    def unreadable(self) -> dict[str, str]:
        """See Legacy.unreadable."""
        return unreadable_documents(self._layout)

    def legacy_state(self) -> datetime | None:
        """See Legacy.legacy_state."""
        found = legacy_state(self._layout.workspace)
        return found.written if found else None

    def legacy_state_summary(self) -> str | None:
        """See Legacy.legacy_state_summary."""
        found = legacy_state(self._layout.workspace)
        return str(found) if found else None

    # -- the contract ------------------------------------------------------------------------

    def load(self, task_id: str, *, only: Refs | None = None) -> TaskSnapshot:
        """See RegistryStore.load."""
        try:
            return self._tasks[task_id].snapshot(only)
        except KeyError:
            raise TaskNotFound(
                f"there is no readable task {task_id}",
                next_step="registry-backend status shows what there is",
            ) from None

    def head(self, task_id: str) -> Head:
        """See RegistryStore.head."""
        return Head(lineage=_UNADOPTED, revision=1) if task_id in self._tasks else Head()

    def commit(self, changeset: Changeset) -> Commit:
        """Raise ReadOnly: this store was opened for reading only."""
        raise ReadOnly(
            "the store was opened for reading only", next_step="Open it without read_only"
        )

    def list_tasks(
        self, query: TaskQuery = ALL, *, after: str | None = None, limit: int = 100
    ) -> Page[TaskSummary]:
        """See RegistryStore.list_tasks."""
        summaries = (t.snapshot().summary() for t in self._tasks.values())
        return select_tasks(summaries, query, after=after, limit=limit)

    def list_records(
        self,
        kind: Kind,
        query: RecordQuery = ALL_RECORDS,
        *,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[Record]:
        """See RegistryStore.list_records."""
        records = (r for t in self._tasks.values() for r in _records(t, kind))
        return select_records(kind, records, query, after=after, limit=limit)

    def counts(self) -> RegistryCounts:
        """See RegistryStore.counts."""
        tasks = self._tasks.values()
        records = {kind: sum(1 for t in tasks for _ in _records(t, kind)) for kind in Kind}
        return RegistryCounts(
            tasks=MappingProxyType(dict(Counter(t.snapshot().status for t in tasks))),
            agents=MappingProxyType(
                dict(Counter(a.status for t in tasks for a in t.state.agents.values()))
            ),
            records=MappingProxyType({k: n for k, n in records.items() if n}),
        )

    def changes(
        self, after: FeedCursor | None = None, *, task_id: str | None = None, limit: int = 100
    ) -> tuple[Change, ...]:
        """Return nothing: files that were not adopted have no feed."""
        check_limit(limit)
        return ()

    def close(self) -> None:
        """See RegistryStore.close."""
        self._closed = True


def _records(task: ReadTask, kind: Kind) -> Iterator[Record]:
    if kind in task.histories:
        yield from task.histories[kind]
    else:
        yield from task.state.records(kind)
