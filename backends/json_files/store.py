"""The store: the contract over the legacy files, which legacy programs write as well."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, KeysView, Mapping
from contextlib import suppress
from datetime import datetime
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from backends.json_files.global_file import Projection
from backends.json_files.journal.feed_counter import FeedNumbers
from backends.json_files.journal.intent import pending_numbers
from backends.json_files.journal.journal import Journal
from backends.json_files.journal.lines import highest_number
from backends.json_files.journal.state import Stand
from backends.json_files.legacy.layout import Layout
from backends.json_files.read_only_store import JsonView
from backends.json_files.task.task import Task
from backends.json_files.task.task_cache import TaskCache
from backends.json_files.task.workspace_state import Shared
from backends.jsonl.times import Times
from registry_api.authoring import cursor_expired, select_records, select_tasks
from registry_api.errors import (
    Busy,
    Conflict,
    CorruptDocument,
    RegistryError,
    StoreClosed,
    TaskNotFound,
    Unavailable,
)
from registry_api.records import (
    ALL,
    ALL_RECORDS,
    HISTORIES,
    AgentStatus,
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
    TaskStatus,
    TaskSummary,
    check_limit,
    check_query,
    is_id,
    validate_changeset,
)
from registry_api.store import Capability, StoreInfo
from registry_api.workspace import ForkSafeLock, at_most, make_folder, make_state_folder

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
        frozen: Callable[[], bool] = lambda: False,
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
            frozen=frozen,
        )
        self._intents = self.shared.folder("intents")
        self._projection = Projection(self.shared)
        self._tasks: dict[str, Task] = {}
        self._task_cache = TaskCache()
        self._lines: dict[str, _Line] = {}
        self._lock = ForkSafeLock()
        self._next_try = 0.0
        self._closed = False
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

    def task(self, task_id: str) -> Task:
        """Return a task, there or not; raises TaskNotFound if it cannot be one, StoreClosed."""
        if self._closed:
            raise StoreClosed("the store is closed", next_step="Open it again")
        if not is_id(task_id):
            raise TaskNotFound(
                f"{task_id!r} is not a task id", next_step="list_tasks shows the ids"
            )
        with self._lock:
            task = self._tasks.get(task_id)
            if task is None:
                task = self._tasks[task_id] = Task(self.shared, task_id)
            self._task_cache.ask_for(task)
            return task

    def held_task(self, task_id: str) -> Task:
        """As ``task``, but a task that is evicted stays so: mostly its document is checked."""
        return self._tasks.get(task_id) or self.task(task_id)

    def held_names(self) -> KeysView[str]:
        """Return the ids of the tasks that this process has seen."""
        return self._tasks.keys()

    def all_tasks(self) -> Iterator[Task]:
        """Yield every task that has, or had, a document; nothing is read."""
        for name in self._names():
            yield self.held_task(name)

    def _names(self) -> list[str]:
        names = set(self.shared.layout.tasks())
        names |= {p.name.removesuffix(".journal") for p in self._journals()}
        return sorted(names)

    def _is_link(self, task_id: str) -> bool:
        folder = f"{self.shared.layout.workspace}/{task_id}"
        return os.path.islink(folder)  # noqa: PTH114  (hot path)

    def _existing(self, task_id: str) -> Task:
        """Return a task that has any file; raises TaskNotFound for others, creating no files."""
        if self._closed or not is_id(task_id):
            return self.task(task_id)
        known = task_id in self._tasks
        layout = self.shared.layout
        if self._is_link(task_id):
            raise TaskNotFound(
                f"the folder of task {task_id} is a link, not followed", next_step="Move it away"
            )
        if known or layout.document(task_id).exists():
            return self.task(task_id)
        if (layout.state / "json" / f"{task_id}.journal").exists():
            return self.task(task_id)
        if (self._intents / task_id).exists():
            return self.task(task_id)
        raise TaskNotFound(f"there is no task {task_id}", next_step="list_tasks shows the ids")

    # -- one task ----------------------------------------------------------------------------

    def load(self, task_id: str, *, only: Refs | None = None) -> TaskSnapshot:
        """See RegistryStore.load."""
        self._restore_list()
        return _snapshot(_stand(self._existing(task_id).current()), only)

    def head(self, task_id: str) -> Head:
        """See RegistryStore.head."""
        self._restore_list()
        try:
            task = self._tasks.get(task_id)
            # The usual case, and fast. An unfinished write of a killed writer was not acknowledged.
            if task is not None and not self._closed and task.is_unchanged():
                return task.journal.head()
            return self._existing(task_id).current().head()
        except TaskNotFound:
            return Head()

    def commit(self, changeset: Changeset) -> Commit:
        """See RegistryStore.commit."""
        self._restore_list()
        change = validate_changeset(changeset, self.info.limits)
        task_id = change.changeset.task_id
        try:
            task = self.task(task_id) if changeset.expected == 0 else self._existing(task_id)
        except TaskNotFound as error:
            if self._is_link(task_id):
                raise Unavailable(error.message, next_step="Move it away, then try again") from None
            if changeset.expected is None:
                raise
            raise Conflict(task_id, expected=changeset.expected, actual=0) from None
        commit, moved = task.commit(change)
        if moved or (time.monotonic() > self._next_try and self._projection.is_stale()):
            self._project(task_id)
        return commit

    def _restore_list(self) -> None:
        """Restore the global file if a legacy program has created it again, empty."""
        if self._projection.was_emptied() and not self._closed and not self.shared.frozen():
            self._project()

    def _project(self, task_id: str | None = None) -> None:
        """Bring the global file up to date; if that fails, a later commit tries again."""
        with suppress(RegistryError, OSError), at_most(_COUNTING):
            behind = self._projection.is_stale()
            self._projection.mark()
            if task_id is not None and not behind:
                snapshots = [_snapshot(_stand(self.task(task_id).current()))]
            else:  # an earlier update failed, and its task is not known
                snapshots = [_snapshot(_stand(task.journal)) for task in self._all()]
            if self._projection.update(self.counts(), snapshots):
                return
        self._next_try = time.monotonic() + 1.0

    # -- the registry ------------------------------------------------------------------------

    def _all(self) -> Iterator[Task]:
        """Yield every readable task, settled; ``problems`` reports the others."""
        if self._closed:
            raise StoreClosed("the store is closed", next_step="Open it again")
        for name in self._names():
            task = self.task(name)
            try:
                task.current()
            except Busy:
                raise
            except (TaskNotFound, CorruptDocument, Unavailable):
                # The document cannot be read now; what was committed before is in the journal.
                task.journal.refresh()
                if task.journal.is_empty:
                    continue
            yield task

    def _journals(self) -> Iterator[Path]:
        return (self.shared.layout.state / "json").glob("*.journal")

    def _summarised(self) -> Iterator[_Line]:
        """Yield the summary line of every task, made again only if the task changed."""
        for task in self._all():
            line = self._lines.get(task.task_id)
            if line is None or line.head != task.journal.head():
                line = self._lines[task.task_id] = _line(_stand(task.journal))
            yield line

    def list_tasks(
        self, query: TaskQuery = ALL, *, after: str | None = None, limit: int = 100
    ) -> Page[TaskSummary]:
        """See RegistryStore.list_tasks."""
        self._restore_list()
        summaries = (line.summary for line in self._summarised())
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
        self._restore_list()
        query = check_query(kind, query)
        check_limit(limit)
        records = self._records(kind, query.task_id)
        return select_records(kind, records, query, after=after, limit=limit)

    def _records(self, kind: Kind, task_id: str | None) -> Iterator[Record]:
        if task_id is None:
            tasks = self._all()
        else:
            try:
                task = self._existing(task_id)
                task.current()
            except TaskNotFound:
                return
            tasks = iter([task])
        for task in tasks:
            if kind in HISTORIES:
                yield from task.histories(kind)
            else:
                yield from _stand(task.journal).state.records(kind)

    def counts(self) -> RegistryCounts:
        """See RegistryStore.counts."""
        self._restore_list()
        tasks, agents = Counter[TaskStatus](), Counter[AgentStatus]()
        records = Counter[Kind]()
        for line in self._summarised():
            tasks[line.summary.status] += 1
            agents.update(line.agents)
            records.update(line.records)
            records.update(self._tasks[line.summary.task_id].journal.counts)
        return RegistryCounts(
            tasks=MappingProxyType(dict(tasks)),
            agents=MappingProxyType(dict(agents)),
            records=MappingProxyType({k: n for k, n in records.items() if n}),
        )

    def changes(
        self, after: FeedCursor | None = None, *, task_id: str | None = None, limit: int = 100
    ) -> tuple[Change, ...]:
        """See RegistryStore.changes."""
        self._restore_list()
        check_limit(limit)
        if self._closed:
            raise StoreClosed("the store is closed", next_step="Open it again")
        if task_id is None:
            tasks = list(self._all())
            feed_id, below = self._settled_feed()
            for task in tasks:
                task.journal.refresh()  # every number below the bound is in a journal by now
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
            task = self._existing(task_id)
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
                self.task(name).current()
            except RegistryError:
                continue
        with self.shared.numbers.locked():
            feed_id, following = self.shared.numbers.peek()
            return feed_id, min([following, *pending_numbers(self._intents).values()])

    def close(self) -> None:
        """See RegistryStore.close."""
        self._closed = True
        for task in self._tasks.values():
            task.close()
        self.shared.numbers.close()

    def absorb(self) -> tuple[tuple[str, Head], ...]:
        """See MigrationSource.absorb."""
        out = []
        for task in self._all():
            task.absorb_logs(current=True)
            out.append((task.task_id, task.journal.head()))
        return tuple(out)

    # -- files for legacy programs -------------------------------------------------------------

    def restore(self, *, dry_run: bool = False) -> int:
        """See MigrationSource.restore."""
        if self.shared.frozen():
            return 0
        if dry_run:
            return sum(sum(task.removed().values()) for task in list(self._all()))
        written = sum(task.restore() for task in list(self._all()))
        self.project()
        return written

    def project(self) -> None:
        """See MigrationSource.project."""
        if self.shared.frozen():
            return
        self.list_is_outdated()
        self._project()

    def list_is_outdated(self) -> None:
        """Note that the global file must be written again, with the next commit at the latest."""
        self._projection.mark()
        self._next_try = 0.0

    # -- the legacy system -------------------------------------------------------------------

    def stored_counts(self) -> dict[str, int]:
        """See Legacy.stored_counts."""
        self._restore_list()
        return self._view().stored_counts()

    def problems(self) -> tuple[str, ...]:
        """See Legacy.problems."""
        kept = [
            f"{path}: kept bytes of another program ({folder})"
            for folder in ("conflicts", "quarantine")
            for path in sorted((self.shared.layout.state / folder).glob("*"))
        ]
        return (*self._view().problems(), *kept)

    def merged(self) -> str | None:
        """See Legacy.merged."""
        return self._view().merged()

    def unreadable(self) -> dict[str, str]:
        """See Legacy.unreadable."""
        return self._view().unreadable()

    def legacy_state(self) -> datetime | None:
        """See Legacy.legacy_state."""
        return self._view().legacy_state()

    def legacy_state_summary(self) -> str | None:
        """See Legacy.legacy_state_summary."""
        return self._view().legacy_state_summary()

    def _view(self) -> JsonView:
        return JsonView(self.shared.layout.workspace, times=self.shared.times)


class _Line(NamedTuple):
    """What lists and counts need of a task; agents by status, records by kind."""

    head: Head
    summary: TaskSummary
    agents: Mapping[AgentStatus, int]
    records: Mapping[Kind, int]


def _line(stand: Stand) -> _Line:
    snapshot = _snapshot(stand)
    return _Line(
        Head(lineage=stand.lineage, revision=stand.revision, number=stand.number),
        snapshot.summary(),
        Counter(a.status for a in snapshot.agents),
        {
            Kind.TASK: 1,
            Kind.PHASE: len(snapshot.phases),
            Kind.AGENT: len(snapshot.agents),
            Kind.REVIEW: len(snapshot.reviews),
            Kind.VERDICT: len(snapshot.verdicts),
            Kind.HANDOVER: len(snapshot.handovers),
        },
    )


def _stand(journal: Journal) -> Stand:
    stand = journal.present()
    if stand is None:  # another thread has just found that the journal is gone
        raise Unavailable(f"{journal.path} was replaced", next_step="Try again")
    return stand


def _snapshot(stand: Stand, only: Refs | None = None) -> TaskSnapshot:
    return stand.state.snapshot(stand.lineage, stand.revision, stand.updated_at, only=only)
