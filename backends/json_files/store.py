"""The store: the contract over the legacy files, which legacy programs write as well."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from itertools import islice
from pathlib import Path

from backends.json_files.global_file import Projection
from backends.json_files.journal.feed_counter import FeedNumbers
from backends.json_files.journal.intent import pending_numbers
from backends.json_files.journal.lines import highest_number
from backends.json_files.legacy.layout import Layout
from backends.json_files.summaries import Summaries, snapshot_of
from backends.json_files.task.task import Task
from backends.json_files.task.workspace_state import Shared
from backends.json_files.tasks import Tasks
from backends.jsonl.times import Times
from registry_api.authoring import cursor_expired, select_records, select_tasks
from registry_api.errors import (
    Conflict,
    RegistryError,
    TaskNotFound,
    Unavailable,
)
from registry_api.records import (
    ALL,
    ALL_RECORDS,
    HISTORIES,
    Change,
    Changeset,
    Commit,
    FeedCursor,
    Head,
    Kind,
    Page,
    Record,
    RecordQuery,
    Refs,
    RegistryCounts,
    TaskQuery,
    TaskSnapshot,
    TaskSummary,
    check_limit,
    check_query,
    validate_changeset,
)
from registry_api.store import Capability, StoreInfo
from registry_api.workspace import at_most, make_folder, make_state_folder

__all__ = ["JsonFilesStore"]

MAX_NUMBER = 2**63
# Seconds that a commit waits for another task's lock to count it for the global file, in addition
# to its own work and the 100 ms by which a switch may delay it.
_COUNTING = 0.02


class JsonFilesStore:
    """A registry in AGENT_REGISTRY.json files, which legacy programs may read and write as well."""

    def __init__(
        self,
        workspace: Path,
        *,
        times: Times,
        now: Callable[[], datetime],
        timeout: float,
        durable: bool,
        epoch: Callable[[], int] = lambda: 0,
        successor: Callable[[], str] = lambda: "",
    ) -> None:
        layout = Layout(workspace)
        folder = layout.state / "json"
        make_state_folder(layout.state)
        make_folder(folder, mode=0o700)
        self.shared = Shared(
            layout=layout,
            times=times,
            numbers=FeedNumbers(folder, timeout=timeout, taken=lambda: highest_number(folder)),
            now=now,
            timeout=timeout,
            durable=durable,
            epoch=epoch,
            successor=successor,
        )
        self._intents = self.shared.folder("intents")
        self.tasks = Tasks(self.shared)
        self._summaries = Summaries(self.tasks)
        self._projection = Projection(self.shared)
        self._next_try = 0.0
        capabilities = {
            Capability.MULTI_PROCESS,
            Capability.PERSISTENT,
            Capability.MIGRATION_SOURCE,
        }
        capabilities.add(Capability.LOGGED)
        if durable:
            capabilities.add(Capability.DURABLE)
        self.info = StoreInfo(
            name="json", location=str(workspace), capabilities=frozenset(capabilities)
        )

    # -- one task ----------------------------------------------------------------------------

    def load(self, task_id: str, *, only: Refs | None = None) -> TaskSnapshot:
        """See RegistryStore.load."""
        self.restore_list()
        return self._snapshot(self.tasks.existing(task_id), only)

    @staticmethod
    def _snapshot(task: Task, only: Refs | None = None) -> TaskSnapshot:
        task.current()
        return snapshot_of(task.stand(), only)

    def head(self, task_id: str) -> Head:
        """See RegistryStore.head."""
        self.restore_list()
        try:
            task = self.tasks.if_held(task_id)
            # The usual case, and fast. An unfinished write of a killed writer was not acknowledged.
            if task is not None and task.is_unchanged():
                return task.journal.head()
            return self.tasks.existing(task_id).current().head()
        except TaskNotFound:
            return Head()

    def commit(self, changeset: Changeset) -> Commit:
        """See RegistryStore.commit."""
        self.restore_list()
        change = validate_changeset(changeset, self.info.limits)
        task_id = change.changeset.task_id
        try:
            find = self.tasks.task if changeset.expected == 0 else self.tasks.existing
            task = find(task_id)
        except TaskNotFound as error:
            if self.tasks.is_link(task_id):
                raise Unavailable(error.message, next_step="Move it away, then try again") from None
            if changeset.expected is None:
                raise
            raise Conflict(task_id, expected=changeset.expected, actual=0) from None
        commit, moved = task.commit(change)
        if moved or (time.monotonic() > self._next_try and self._projection.is_stale()):
            self._project(task_id)
        return commit

    def restore_list(self) -> None:
        """Restore the global file if a legacy program has created it again, empty."""
        if self._projection.was_emptied() and not self.tasks.is_closed and not self.shared.frozen():
            self._project()

    def _project(self, task_id: str | None = None) -> None:
        """Bring the global file up to date; if that fails, a later commit tries again."""
        with suppress(RegistryError, OSError), at_most(_COUNTING):
            behind = self._projection.is_stale()
            self._projection.mark()
            if task_id is not None and not behind:
                snapshots = [self._snapshot(self.tasks.task(task_id))]
            else:  # an earlier update failed, and its task is not known
                snapshots = [snapshot_of(task.stand()) for task in self.tasks.readable()]
            if self._projection.update(self.counts(), snapshots):
                return
        self._next_try = time.monotonic() + 1.0

    # -- the registry ------------------------------------------------------------------------

    def list_tasks(
        self, query: TaskQuery = ALL, *, after: str | None = None, limit: int = 100
    ) -> Page[TaskSummary]:
        """See RegistryStore.list_tasks."""
        self.restore_list()
        return select_tasks(self._summaries.all(), query, after=after, limit=limit)

    def list_records(
        self,
        kind: Kind,
        query: RecordQuery = ALL_RECORDS,
        *,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[Record]:
        """See RegistryStore.list_records."""
        self.restore_list()
        query = check_query(kind, query)
        check_limit(limit)
        records = self._records(kind, query.task_id)
        return select_records(kind, records, query, after=after, limit=limit)

    def _records(self, kind: Kind, task_id: str | None) -> Iterator[Record]:
        if task_id is None:
            tasks = self.tasks.readable()
        else:
            try:
                task = self.tasks.existing(task_id)
                task.current()
            except TaskNotFound:
                return
            tasks = iter([task])
        for task in tasks:
            if kind in HISTORIES:
                yield from task.histories(kind)
            else:
                yield from task.stand().state.records(kind)

    def counts(self) -> RegistryCounts:
        """See RegistryStore.counts."""
        self.restore_list()
        return self._summaries.counts()

    def changes(
        self, after: FeedCursor | None = None, *, task_id: str | None = None, limit: int = 100
    ) -> tuple[Change, ...]:
        """See RegistryStore.changes."""
        self.restore_list()
        check_limit(limit)
        self.tasks.check_open()
        if task_id is None:
            for _ in self.tasks.readable():
                pass  # settles each task and absorbs foreign edits
            feed_id, below = self._settled_feed()
            # Every number below the bound is in a journal by now. The tasks are listed again: one
            # that was created since then has such a number, too.
            tasks = list(self.tasks.all())
            for task in tasks:
                task.journal.refresh()
        else:
            # One journal is in order by itself: what is in it is committed, whatever others write.
            tasks = self._one(task_id)
            feed_id, below = self.shared.numbers.feed_id(), MAX_NUMBER
        floor = max((t.journal.floor for t in tasks), default=0)
        if after is not None and after.feed_id != feed_id:
            raise cursor_expired("it is of another feed")
        if after is not None and after.number < floor:
            raise cursor_expired("they were trimmed")
        # Without a cursor start above the floor, so that the returned cursors can be resumed.
        start = after.number if after else floor
        # Task by task, since each holds its journal open while it is read.
        found = [
            change
            for task in tasks
            for change in islice(task.journal.changes(feed_id, after=start, below=below), limit)
        ]
        found.sort(key=lambda c: c.cursor.number)
        return tuple(found[:limit])

    def _one(self, task_id: str) -> list[Task]:
        try:
            task = self.tasks.existing(task_id)
            task.current()
        except TaskNotFound:
            return []
        return [task]

    def _settled_feed(self) -> tuple[str, int]:
        """Return the feed's id and the number below which every change is in a journal.

        A number that an intent still holds may yet appear in a journal: nothing above it is served,
        or a subscriber would miss it. Intents of dead processes are settled first.
        """
        for name in pending_numbers(self._intents):
            try:
                self.tasks.task(name).current()
            except RegistryError:
                continue
        with self.shared.numbers.locked():
            feed_id, following = self.shared.numbers.peek()
            return feed_id, min([following, *pending_numbers(self._intents).values()])

    def close(self) -> None:
        """See RegistryStore.close."""
        self.tasks.close()
        self.shared.numbers.close()

    def absorb(self) -> tuple[tuple[str, Head], ...]:
        """See ForeignWriters.absorb."""
        out = []
        for task in self.tasks.readable():
            task.absorb_logs(current=True)
            out.append((task.task_id, task.journal.head()))
        return tuple(out)

    # -- files for legacy programs -------------------------------------------------------------

    def restore(self, *, dry_run: bool = False) -> int:
        """See ForeignWriters.restore."""
        if self.shared.frozen():
            return 0
        if dry_run:
            return sum(sum(task.removed().values()) for task in list(self.tasks.readable()))
        written = sum(task.restore() for task in list(self.tasks.readable()))
        self.project()
        return written

    def project(self) -> None:
        """See ForeignWriters.project."""
        if self.shared.frozen():
            return
        self.list_is_outdated()
        self._project()

    def list_is_outdated(self) -> None:
        """Note that the global file must be written again, with the next commit at the latest."""
        self._projection.mark()
        self._next_try = 0.0
