"""Take over tasks that were read from another program's files, each in one commit."""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from registry_api.client.paging import all_records
from registry_api.client.transactions import commit_with_retry
from registry_api.errors import Conflict, TaskNotFound
from registry_api.records import (
    HISTORIES,
    KINDS,
    TERMINAL_AGENT,
    Agent,
    Finding,
    Handover,
    History,
    Op,
    Phase,
    PhaseStatus,
    Put,
    Record,
    RecordQuery,
    Task,
    TaskSnapshot,
    encode_record,
    json_text,
    new_changeset,
    record_key,
    validate_changeset,
)
from registry_api.store import RegistryStore

__all__ = ["FieldChange", "ImportedTask", "TaskImport", "import_task"]

_MARK = "registry_import"  # the key in a task's extra: by importer, digests of what it gave last
_SAME = timedelta(seconds=1)  # two programs noted the same entry at most so far apart
_ATTEMPTS, _WAIT = 5, 30.0  # seconds
_ENTRIES = 5_000  # of the history in a commit, which holds at most 10,000 operations


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedTask:
    """A task that was read from elsewhere.

    ``records`` are its phases, agents, reviews, verdicts and handovers, ``histories`` its reports
    and findings, each with an id that is the same the next time. ``notes`` say what could not be
    taken over, a sentence each. ``error``: the task could not be read; nothing of it is imported.
    """

    task: Task
    records: tuple[Record, ...] = ()
    histories: tuple[History, ...] = ()
    notes: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldChange:
    """A field of a record that an import changes; values as text, empty without one."""

    record: str
    field: str
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskImport:
    """What an import did to a task, or would do: records put, history entries appended."""

    task_id: str
    created: bool = False
    put: int = 0
    appended: int = 0
    changes: tuple[FieldChange, ...] = ()
    notes: tuple[str, ...] = ()


def import_task(
    store: RegistryStore, imported: ImportedTask, *, reader: str, dry_run: bool = False
) -> TaskImport:
    """Take over a task in one commit; nothing of it is there if the process is killed before.

    A record that has not changed since the same ``reader`` gave it is left alone. Of others, a
    field that the import knows (it is not the default) replaces ours; but an approved phase, an
    agent that has reported here later and an agent that has ended stay as they are. Records that
    the import does not have stay too. An entry of the history is appended unless the store has it:
    by its id, or by agent, message and a time within 1 s. More than 5,000 entries go into further
    commits, which the next import completes after a kill. Raises RegistryError.
    """
    task_id = imported.task.task_id
    for attempt in range(_ATTEMPTS):
        try:
            now = store.load(task_id)
        except TaskNotFound:
            now = None
        plan = _Plan(imported, now, reader)
        parts = plan.parts(store)
        try:
            revision = now.revision if now else 0
            for ops in parts:
                actor = f"import:{reader}"
                changeset = new_changeset(task_id, ops, expected=revision, actor=actor)
                if dry_run:
                    validate_changeset(changeset, store.info.limits)
                    continue
                deadline = time.monotonic() + _WAIT
                revision = commit_with_retry(store, changeset, deadline=deadline).revision
        except Conflict:
            if attempt + 1 == _ATTEMPTS:
                raise
            continue
        break
    return plan.result()


class _Plan:
    """The operations that take over one task, against the state ``now``."""

    def __init__(self, imported: ImportedTask, now: TaskSnapshot | None, reader: str) -> None:
        self._imported = imported
        self._now = now
        self._reader = reader
        self._changes: list[FieldChange] = []
        self._notes = list(imported.notes)
        self._put = self._appended = 0

    def parts(self, store: RegistryStore) -> list[list[Op]]:
        """Return the operations of each commit; none if the same was imported before."""
        imported, now = self._imported, self._now
        marks = _marks(now.task) if now else {}
        before, digests = marks.get(self._reader, {}), _digests(imported)
        if before == digests:
            return []
        ours = {_name(record): record for record in _records(now)}
        puts: list[Op] = []
        for record in imported.records:
            if now is not None and before.get(_name(record)) == digests[_name(record)]:
                continue
            merged = self._merged(ours.get(_name(record)), record)
            if merged is not None:
                puts.append(Put(merged))
                self._put += 1
        entries: list[Op] = [Put(entry) for entry in self._new_histories(store)]
        self._appended = len(entries)
        task = now.task if now else None
        if task is None or before.get("task") != digests["task"]:
            merged = self._merged(task, imported.task)
            task = merged if isinstance(merged, Task) else task
        assert task is not None
        extra = _object(task.extra) | {_MARK: {**marks, self._reader: digests}}
        marked = Put(replace(task, extra=json_text.dump_text(extra)))
        if len(entries) <= _ENTRIES:
            return [[marked, *puts, *entries]]
        # The mark comes last: without it the next import completes what is missing.
        parts = [[Put(task), *puts, *entries[:_ENTRIES]]]
        starts = range(_ENTRIES, len(entries), _ENTRIES)
        parts += [entries[start : start + _ENTRIES] for start in starts]
        parts[-1] = [marked, *parts[-1]]
        return parts

    def result(self) -> TaskImport:
        """Return what the operations do."""
        return TaskImport(
            task_id=self._imported.task.task_id,
            created=self._now is None,
            put=self._put,
            appended=self._appended,
            changes=tuple(self._changes),
            notes=tuple(self._notes),
        )

    def _merged(self, known: Record | None, record: Record) -> Record | None:
        """Return the record to put, None if nothing of it is taken."""
        if known is None:
            return record
        stays = _why_it_stays(known, record)
        if stays:
            if known != record and not isinstance(record, Handover):
                self._notes.append(f"{_name(record)} stays: {stays}")
            return None
        taken: dict[str, Any] = {}
        for field in fields(record):
            before, after = getattr(known, field.name), getattr(record, field.name)
            if field.name in {"extra", "context"}:
                after = json_text.dump_text(_object(before) | _object(after))
            if after == before or _is_default(field.default, after) or field.name == "created_at":
                continue
            taken[field.name] = after
            name, texts = _name(record), (_text(before), _text(after))
            change = FieldChange(record=name, field=field.name, before=texts[0], after=texts[1])
            self._changes.append(change)
        return replace(known, **taken) if taken else None

    def _new_histories(self, store: RegistryStore) -> Iterator[History]:
        ids, times = set[str](), defaultdict[tuple[str, ...], list[datetime]](list)
        if self._now is not None:
            query = RecordQuery(task_id=self._imported.task.task_id)
            for kind in HISTORIES:
                for entry in all_records(store, kind, query):
                    assert isinstance(entry, History)
                    ids.add(record_key(entry))
                    times[_said(entry)].append(entry.timestamp)
        for entry in self._imported.histories:
            if record_key(entry) in ids:
                continue
            noted = times.get(_said(entry), [])
            same = next((t for t in noted if abs(entry.timestamp - t) <= _SAME), None)
            if same is None:
                yield entry
            else:
                noted.remove(same)  # each of ours stands for one of theirs


def _why_it_stays(known: Record, record: Record) -> str:
    """Return why a record of ours is not changed, empty if it may be."""
    if isinstance(record, Handover):
        return "handovers are only appended"
    if isinstance(known, Phase) and isinstance(record, Phase):
        ended = known.status is PhaseStatus.APPROVED and record.status is not known.status
        return "it is approved here" if ended else ""
    if isinstance(known, Agent) and isinstance(record, Agent):
        theirs = record.last_update
        if known.last_update is not None and (theirs is None or known.last_update > theirs + _SAME):
            return "it has reported here since"
        if known.status in TERMINAL_AGENT and record.status not in TERMINAL_AGENT:
            return "it has ended here"
    return ""


def _is_default(default: Any, value: Any) -> bool:
    """Whether a value says nothing: what a record holds that was told nothing."""
    return value in (None, "", (), "{}", "[]") or (default is not MISSING and value == default)


def _records(now: TaskSnapshot | None) -> list[Record]:
    if now is None:
        return []
    return [*now.phases, *now.agents, *now.reviews, *now.verdicts, *now.handovers]


def _said(entry: History) -> tuple[str, ...]:
    said = (entry.agent_id, entry.message)
    return (*said, entry.finding_type, entry.severity) if isinstance(entry, Finding) else said


def _name(record: Record) -> str:
    return f"{KINDS[type(record)]} {record_key(record)}"


def _marks(task: Task) -> dict[str, dict[str, str]]:
    found = _object(task.extra).get(_MARK)
    if not isinstance(found, dict):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, dict)}


def _object(text: str) -> dict[str, Any]:
    found = json_text.parse_trusted(text.encode())
    return found if isinstance(found, dict) else {}


def _text(value: Any) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= 200 else f"{text[:199]}…"


def _digests(imported: ImportedTask) -> dict[str, str]:
    """Return a digest of each record, and of all histories.

    Where the task's folder is and when its file was made say nothing about its content.
    """
    made = datetime.fromtimestamp(0, UTC)
    task = replace(imported.task, workspace=None, workspace_base=None, created_at=made)
    found = {"task": _digest(task)}
    found |= {_name(record): _digest(record) for record in imported.records}
    return found | {"histories": _digest(*imported.histories)}


def _digest(*records: Record) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for record in records:
        digest.update(json_text.dump(encode_record(record)))
    return digest.hexdigest()
