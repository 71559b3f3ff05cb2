"""Logs next to a store that holds the records itself: they are its export and its inbox."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from backends.files import Problem
from backends.jsonl.append import Appender
from backends.jsonl.lines import encode_line, without_id
from backends.jsonl.reader import find_logs, log_name, read_lines
from backends.jsonl.times import Times
from registry_api.capabilities import Reconciled
from registry_api.client import all_records, all_tasks
from registry_api.errors import InvalidChangeset, RecordExists
from registry_api.records import (
    HISTORIES,
    Changeset,
    Commit,
    History,
    Kind,
    Put,
    RecordQuery,
    TaskQuery,
    new_changeset,
    record_key,
    validate_changeset,
)
from registry_api.settings import Settings
from registry_api.store import Capability, RegistryStore
from registry_api.wrappers import StoreWrapper

__all__ = ["LoggedStore", "is_kept_for"]

log = logging.getLogger("registry_backend")
_UNKNOWN = "00000000-0000-0000-0000-000000000000"  # the changeset of a line that reconcile wrote
_UNDER_WAY = timedelta(seconds=10)
_BATCH = 500


def is_kept_for(store: RegistryStore, settings: Settings) -> bool:
    """Return whether logs are kept for a store: it is persistent, and keeps none itself.

    For one that several hosts share, only if the settings say ``jsonl``: each host would have the
    lines of its own commits only.
    """
    has = store.info.capabilities
    if settings.logs == "off" or (
        Capability.MULTI_HOST in has and "logs" not in settings.model_fields_set
    ):
        return False
    return Capability.PERSISTENT in has and Capability.LOGGED not in has


class LoggedStore(StoreWrapper):
    """A store that appends a log line per committed progress entry and finding.

    The lines have the legacy format and are not synced: the store holds the records, and
    ``reconcile`` writes lines that a kill or a full disk left out. Lines that others append are an
    inbox: ``reconcile`` absorbs them as history and signs of life.
    """

    def __init__(
        self, inner: RegistryStore, workspace: Path, *, times: Times, now: Callable[[], datetime]
    ) -> None:
        super().__init__(inner)
        self._workspace = workspace
        self._root = str(workspace)
        self._times = times
        self._now = now
        self._logs = Appender()

    def commit(self, changeset: Changeset) -> Commit:
        """See RegistryStore.commit; a log that cannot be written never fails the caller."""
        change = validate_changeset(changeset, self.inner.info.limits).changeset
        commit = self.inner.commit(change)
        if not commit.replayed:
            for op in change.ops:
                if isinstance(op, Put) and isinstance(op.record, History):
                    self._append(op.record, str(change.id))
        return commit

    def _append(self, record: History, changeset: str) -> bool:
        name = log_name(record)
        try:
            line = encode_line(record, changeset=changeset, times=self._times)
            self._logs.append(f"{self._root}/{record.task_id}", name, line)
        except OSError as error:
            log.warning(
                "%s/%s: a line was not written (%s); registry-backend reconcile writes it",
                record.task_id,
                name,
                error.strerror,
            )
            return False
        return True

    def close(self) -> None:
        """Close the store and the logs."""
        super().close()
        self._logs.close()

    # -- reconcile ---------------------------------------------------------------------------

    def reconcile(self, *, dry_run: bool = False) -> Reconciled:
        """See Logged.reconcile."""
        taken = written = 0
        for task in all_tasks(self.inner, TaskQuery()):
            for kind in HISTORIES:
                # From before the logs are read: whoever commits a record meanwhile writes its line,
                # however long the reading takes.
                before = self._now() - _UNDER_WAY
                theirs, logged = self._inbox(task.task_id, kind)
                missing = self._missing(task.task_id, kind, logged, before=before)
                if dry_run:
                    taken, written = taken + len(theirs), written + sum(1 for _ in missing)
                    continue
                for n in range(0, len(theirs), _BATCH):
                    taken += self._take(task.task_id, theirs[n : n + _BATCH])
                written += sum(self._append(record, _UNKNOWN) for record in missing)
        return Reconciled(taken=taken, written=written)

    def write_missing(self, before: datetime) -> int:
        """Write the lines of records that are older than ``before``; return how many.

        Nobody may be about to write one of them any more.
        """
        written = 0
        for task in all_tasks(self.inner, TaskQuery()):
            for kind in HISTORIES:
                logged = {record_key(record) for record in self._logged(task.task_id, kind)}
                missing = self._missing(task.task_id, kind, logged, before=before)
                written += sum(self._append(record, _UNKNOWN) for record in missing)
        return written

    def _inbox(self, task_id: str, kind: Kind) -> tuple[list[History], set[str]]:
        """Return the records that only the logs have, and all ids in the logs."""
        query = RecordQuery(task_id=task_id)
        known = {record_key(r) for r in all_records(self.inner, kind, query)}
        logged = set[str]()
        theirs = []
        for record in self._logged(task_id, kind):
            key = record_key(record)
            if key not in known and key not in logged:
                # Its status may be long outdated: it counts as history and a sign of life.
                theirs.append(replace(record, foreign=True))
            logged.add(key)
        if theirs:
            theirs = self._news(task_id, kind, theirs, logged)
        return theirs, logged

    def _news(
        self,
        task_id: str,
        kind: Kind,
        theirs: list[History],
        logged: set[str],
    ) -> list[History]:
        """Leave out the remaining lines of a truncated log: they were absorbed before.

        They now have another place, and so another id.
        """
        gone = Counter(
            without_id(r)
            for r in all_records(self.inner, kind, RecordQuery(task_id=task_id))
            if isinstance(r, History) and r.foreign and record_key(r) not in logged
        )
        out = []
        for record in theirs:
            content = without_id(record)
            if gone[content]:
                gone[content] -= 1
            else:
                out.append(record)
        return out

    def _logged(self, task_id: str, kind: Kind) -> Iterator[History]:
        problems: list[Problem] = []
        for found in find_logs(self._workspace / task_id, problems):
            if found.kind is kind:
                for _, record in read_lines(
                    found, task_id=task_id, times=self._times, problems=problems
                ):
                    yield record
        for problem in problems:
            log.warning("%s", problem)

    def _take(self, task_id: str, records: list[History]) -> int:
        try:
            self.inner.commit(
                new_changeset(
                    task_id,
                    [Put(r) for r in records],
                    expected=None,
                    actor="foreign",
                    at=self._now(),
                )
            )
        except (RecordExists, InvalidChangeset) as error:
            # Another reconcile has absorbed some of the lines, or together they are too large:
            # commit one by one. One that is too large by itself must not stop the others.
            if len(records) > 1:
                return sum(self._take(task_id, [record]) for record in records)
            if not isinstance(error, RecordExists):
                log.warning("%s/%s: %s", task_id, log_name(records[0]), error.message)
            return 0
        return len(records)

    def _missing(
        self, task_id: str, kind: Kind, logged: set[str], *, before: datetime
    ) -> Iterator[History]:
        """Yield the records of ours without a line; a foreign one had a line, in a log now gone.

        Only records older than ``before``: the lines of younger ones may be about to be written.
        """
        for record in all_records(self.inner, kind, RecordQuery(task_id=task_id)):
            assert isinstance(record, History)
            old = record.timestamp < before and not record.foreign
            if old and record_key(record) not in logged:
                yield record
