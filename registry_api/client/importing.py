"""Take over tasks that were read from another program's files, each in one commit."""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any

from registry_api.client.paging import all_records
from registry_api.client.transactions import commit_with_retry
from registry_api.errors import Conflict, TaskNotFound
from registry_api.records import (
    HISTORIES,
    KINDS,
    Agent,
    Handover,
    History,
    Op,
    Put,
    Record,
    RecordQuery,
    Task,
    TaskSnapshot,
    encode_record,
    json_text,
    new_changeset,
    record_key,
)
from registry_api.store import RegistryStore

__all__ = ["FieldChange", "ImportedTask", "TaskImport", "import_task"]

_MARK = "imported"  # the key in a task's extra that holds the digest of what was imported last
_SAME = timedelta(seconds=1)  # two programs noted the same entry at most so far apart
_ATTEMPTS, _WAIT = 5, 30.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedTask:
    """A task that was read from elsewhere.

    ``records`` are its phases, agents, reviews, verdicts and handovers, ``histories`` its reports
    and findings, each with an id that is the same the next time. ``notes`` say what could not be
    taken over, a sentence each.
    """

    task: Task
    records: tuple[Record, ...] = ()
    histories: tuple[History, ...] = ()
    notes: tuple[str, ...] = ()


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
    store: RegistryStore, imported: ImportedTask, *, actor: str, dry_run: bool = False
) -> TaskImport:
    """Take over a task, in one commit; nothing of it if the process is killed before.

    A field that the import knows replaces ours, but an agent that has reported later here stays as
    it is, and records that the import does not have stay too. An entry of the history is appended
    unless the store has it: by its id, or by agent, message and a time within 1 s. Nothing is done
    if the same was imported before. Raises RegistryError.
    """
    task_id = imported.task.task_id
    for attempt in range(_ATTEMPTS):
        try:
            now = store.load(task_id)
        except TaskNotFound:
            now = None
        plan = _Plan(imported, now)
        ops = plan.ops(store)
        if dry_run or not ops:
            break
        changeset = new_changeset(task_id, ops, expected=now.revision if now else 0, actor=actor)
        try:
            commit_with_retry(store, changeset, deadline=time.monotonic() + _WAIT)
        except Conflict:
            if attempt + 1 == _ATTEMPTS:
                raise
            continue
        break
    return plan.result()


class _Plan:
    """The operations that take over one task, against the state ``now``."""

    def __init__(self, imported: ImportedTask, now: TaskSnapshot | None) -> None:
        self._imported = imported
        self._now = now
        self._changes: list[FieldChange] = []
        self._notes = list(imported.notes)
        self._put = self._appended = 0

    def ops(self, store: RegistryStore) -> list[Op]:
        """Return the operations; none if the same was imported before."""
        imported, digest = self._imported, _digest(self._imported)
        if self._now is not None and _extra(self._now.task).get(_MARK) == digest:
            return []
        found: list[Op] = []
        ours = {(KINDS[type(r)], record_key(r)): r for r in _records(self._now)}
        for record in imported.records:
            known = ours.get((KINDS[type(record)], record_key(record)))
            merged = self._merged(known, record)
            if merged is not None:
                found.append(Put(merged))
                self._put += 1
        for entry in self._new_histories(store):
            found.append(Put(entry))
            self._appended += 1
        task = self._merged(self._now.task if self._now else None, imported.task)
        task = task or (self._now.task if self._now else imported.task)
        assert isinstance(task, Task)
        marked = replace(task, extra=json_text.dump_text(_extra(task) | {_MARK: digest}))
        return [Put(marked), *found]

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
        """Return the record to put, None if nothing of it is new."""
        if known is None:
            return record
        if isinstance(record, Handover):
            return None  # appended only
        if isinstance(known, Agent) and isinstance(record, Agent) and _is_later(known, record):
            self._notes.append(f"agent {known.agent_id} has reported here since; it stays")
            return None
        name = f"{KINDS[type(record)]} {record_key(record)}"
        taken: dict[str, Any] = {}
        for field in fields(record):
            before, after = getattr(known, field.name), getattr(record, field.name)
            if field.name == "extra":
                after = json_text.dump_text(_extra(known) | _extra(record))
            if after == before or after in (None, "", (), "{}", "[]"):
                continue
            taken[field.name] = after
            change = FieldChange(
                record=name, field=field.name, before=_text(before), after=_text(after)
            )
            self._changes.append(change)
        return replace(known, **taken) if taken else None

    def _new_histories(self, store: RegistryStore) -> Iterator[History]:
        ids, times = set[str](), defaultdict[tuple[str, str], list[datetime]](list)
        if self._now is not None:
            query = RecordQuery(task_id=self._imported.task.task_id)
            for kind in HISTORIES:
                for entry in all_records(store, kind, query):
                    assert isinstance(entry, History)
                    ids.add(record_key(entry))
                    times[entry.agent_id, entry.message].append(entry.timestamp)
        for entry in self._imported.histories:
            at = times.get((entry.agent_id, entry.message), ())
            if record_key(entry) in ids or any(abs(entry.timestamp - t) <= _SAME for t in at):
                continue
            yield entry


def _is_later(known: Agent, record: Agent) -> bool:
    if known.last_update is None:
        return False
    return record.last_update is None or known.last_update > record.last_update + _SAME


def _records(now: TaskSnapshot | None) -> list[Record]:
    if now is None:
        return []
    return [*now.phases, *now.agents, *now.reviews, *now.verdicts, *now.handovers]


def _extra(record: Record) -> dict[str, Any]:
    found = json_text.parse_trusted(getattr(record, "extra", "{}").encode())
    return found if isinstance(found, dict) else {}


def _text(value: Any) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= 200 else f"{text[:199]}…"


def _digest(imported: ImportedTask) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for record in (imported.task, *imported.records, *imported.histories):
        digest.update(json_text.dump(encode_record(record)))
    return digest.hexdigest()
