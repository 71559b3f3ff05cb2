"""The store in a relational database: the contract, implemented on rows."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType, TracebackType
from typing import Any

import orjson

from backends.sql.engine import Engine, Retirement
from backends.sql.feed_reader import FeedPage, read_settled
from backends.sql.replays import find_replay
from backends.sql.rows import TABLES, codec
from backends.sql.write_transaction import (
    Execute,
    Feed,
    TaskRow,
    Writing,
    lone_report,
    read_task_row,
    time_of_line,
    write_counts,
)
from registry_api.authoring import (
    COMPACT_BATCH,
    COMPACT_LINES,
    KEEP,
    KEEP_CHANGES,
    TRIM_BATCH,
    FeedLine,
    check_fresh,
    check_next,
    compact_part,
    cursor_expired,
    forgotten_by,
    own_changes,
    page_key,
)
from registry_api.capabilities import Compacted, LateWrite
from registry_api.errors import (
    Conflict,
    InvalidQuery,
    NotNext,
    ReadOnly,
    RegistryError,
    TaskNotFound,
)
from registry_api.records import (
    ALL,
    ALL_RECORDS,
    HISTORIES,
    SAFE_INT,
    AgentStatus,
    Change,
    Changeset,
    Commit,
    FeedCursor,
    Head,
    History,
    Kind,
    Page,
    PageKey,
    Record,
    RecordQuery,
    Refs,
    RegistryCounts,
    TaskQuery,
    TaskSnapshot,
    TaskState,
    TaskStatus,
    TaskSummary,
    agent_status,
    chain_of,
    changeset_from,
    check_limit,
    check_query,
    check_tasks,
    commit_of,
    created_at,
    dump_changeset,
    is_id,
    make_cursor,
    next_chain,
    read_cursor,
    stamp,
    unstamp,
    validate_changeset,
)
from registry_api.roles import ROLE, RoleStamp, check_commit, check_replication
from registry_api.store import Capability, StoreInfo
from registry_api.workspace import patience

__all__ = ["SqlStore"]

_CAPABILITIES = frozenset(
    {
        Capability.MULTI_PROCESS,
        Capability.PERSISTENT,
        Capability.MOVE_TARGET,
        Capability.MIGRATION_SOURCE,
    }
)

_NO_TASK = "-"  # what is asked for in place of an id that no task can have
_PATIENCE = 5.0  # seconds for which a reader of the feed waits for open transactions

_APART = frozenset({Kind.TASK, Kind.AGENT, *HISTORIES})  # loaded separately


class _NewFeed(Exception):
    """A change is of a feed that must be adopted first."""


class _Replayed(Exception):
    """The task has a feed line of this changeset already."""


class _Session:
    """A transaction of the engine in which named statements run."""

    __slots__ = ("_bind", "_transaction")

    def __init__(
        self, transaction: AbstractContextManager[Any], bind: Callable[[Any], Execute]
    ) -> None:
        self._transaction, self._bind = transaction, bind

    def __enter__(self) -> Execute:
        return self._bind(self._transaction.__enter__())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._transaction.__exit__(kind, error, trace)


class SqlStore:
    """A registry in a relational database; ``sql`` holds the driver SQL of its engine."""

    def __init__(
        self,
        engine: Engine,
        *,
        name: str,
        retirement: Retirement,
        statements: Mapping[str, str],
        fragments: Mapping[str, Mapping[str, Any]],
        now: Callable[[], datetime],
        durable: bool,
        read_only: bool,
        capabilities: frozenset[Capability] = frozenset(),
    ) -> None:
        """``capabilities``: those that only some databases have."""
        self._engine = engine
        self._retirement = retirement
        self._statements = statements
        self._fragments = fragments
        self._now = now
        self._read_only = read_only
        self._oldest: dict[str, datetime] = {}
        self._accepted: tuple[str | None] | None = None  # the role stamp that was last accepted
        self._final = "", 0  # the feed, and up to which number its gaps stay gaps
        capabilities |= _CAPABILITIES
        if durable:
            capabilities |= {Capability.DURABLE}
        self.info = StoreInfo(
            name=name,
            location=engine.location,
            capabilities=capabilities,
            schema=engine.schema,
        )

    # -- transactions ------------------------------------------------------------------------

    def _bind(self, connection: Any) -> Execute:
        return self._engine.bind(connection, self._statements)

    def _reading(self, *, once: bool = False) -> _Session:
        return _Session(self._engine.reading(once=once), self._bind)

    def _writing(self, *task_ids: str, alone: bool = False, slow: bool = False) -> _Session:
        if self._read_only:
            raise ReadOnly(
                "the store was opened for reading only", next_step="Open it without read_only"
            )
        return _Session(self._engine.writing(*task_ids, alone=alone, slow=slow), self._bind)

    # -- one task ----------------------------------------------------------------------------

    def load(self, task_id: str, *, only: Refs | None = None) -> TaskSnapshot:
        """See RegistryStore.load."""
        refs = only or Refs()
        if not is_id(task_id):
            raise _not_found(task_id)
        with self._reading() as execute:
            of_task = self._rows(execute, "load_task_row", task_id=task_id)
            reads = {
                kind: [self._rows(execute, f"load_{name}", task_id=task_id)]
                for kind, name in TABLES.items()
                if kind in refs.kinds and kind not in _APART
            }
            if Kind.AGENT in refs.kinds:
                reads[Kind.AGENT] = self._of(execute, "load_agents", "load_agent", task_id, refs)
            if Kind.PROGRESS in refs.kinds:
                names = "load_latest", "load_latest_of"
                reads[Kind.PROGRESS] = self._of(execute, *names, task_id, refs)
            if not (rows := of_task()):
                raise _not_found(task_id)
            (row,) = rows
            parts = {kind: [row for read in some for row in read()] for kind, some in reads.items()}
        *task, lineage, revision, updated_at, chain = row
        found: dict[Kind, tuple[Any, ...]] = {
            kind: tuple(map(codec(kind).read, parts.get(kind, ()))) for kind in Kind
        }
        return TaskSnapshot(
            lineage=lineage,
            revision=revision,
            updated_at=unstamp(updated_at),
            task=codec(Kind.TASK).read(task),
            phases=found[Kind.PHASE],
            agents=found[Kind.AGENT],
            reviews=found[Kind.REVIEW],
            verdicts=found[Kind.VERDICT],
            handovers=found[Kind.HANDOVER],
            latest=found[Kind.PROGRESS],
            partial=only is not None,
            chain=chain_of(chain, revision),
        )

    def head(self, task_id: str) -> Head:
        """See RegistryStore.head."""
        if not is_id(task_id):
            return Head()
        with self._reading(once=True) as execute:
            row = execute("head", task_id=task_id).fetchone()
        if row is None:
            return Head()
        return _head(row)

    def commit(self, changeset: Changeset) -> Commit:
        """See RegistryStore.commit."""
        changeset, digest, text = validate_changeset(changeset, self.info.limits)
        told = self._commit_report(changeset, digest, text)
        if told is not None:
            return told
        try:
            with self._writing(changeset.task_id) as execute:
                task = read_task_row(execute, changeset.task_id)
                feed = task.feed or self._feed(execute)
                check_commit(feed.role)
                self._accepted = (feed.role,)
                refused = self._refusal(changeset, task)
                if refused is not None:
                    before = self._find_replay(execute, changeset, digest)
                else:
                    number = self._engine.next_number(execute, feed)
                    change = Change(
                        cursor=FeedCursor(feed_id=feed.feed_id, number=number or 0),
                        lineage=task.lineage or str(uuid.uuid4()),
                        revision=task.revision + 1,
                        changeset=changeset,
                        digest=digest,
                        chain=next_chain(task.chain, task.revision + 1, digest),
                    )
                    line = _add_change(execute, change, text, number)
                    writing = self._of_task(execute, changeset.task_id, task)
                    writing.later(lambda: _require_new(line))
                    oldest = self._apply(writing, task, change)
                    write_counts(execute, writing.counted)
        except _Replayed:
            return self._replay(changeset, digest)
        if refused is not None:
            if before is None:
                raise refused
            return before
        self._note_oldest(changeset.task_id, oldest)
        if number is None:
            cursor = FeedCursor(feed_id=feed.feed_id, number=line.fetchone()[0])
            change = replace(change, cursor=cursor)
        return commit_of(change)

    def _commit_report(self, changeset: Changeset, digest: str, text: str) -> Commit | None:
        """Commit a report in one statement; None if it is to be committed as any other."""
        entry = lone_report(changeset) if self._engine.reports else None
        if entry is None or self._read_only or not self._accepted:
            return None
        now = self._now()
        if not self._keeps_young(changeset.task_id, now) or not _is_fresh(changeset, now):
            return None
        created = created_at(changeset.id)
        done = self._engine.report(
            changeset.task_id,
            {
                **codec(Kind.PROGRESS).write(entry),
                "said": agent_status(entry.status).value,
                "role": self._accepted[0],
                "changeset_id": str(changeset.id),
                "digest": digest,
                "at": stamp(changeset.at),
                "changeset": text,
                "created": stamp(created) if created else "",
                "keep": KEEP_CHANGES,
                "batch": TRIM_BATCH,
            },
        )
        if done is None:
            return None
        lineage, revision, number, feed_id, chain = done
        return Commit(
            task_id=changeset.task_id,
            changeset_id=changeset.id,
            lineage=lineage,
            revision=revision,
            cursor=FeedCursor(feed_id=feed_id, number=number),
            chain=chain,
        )

    def _keeps_young(self, task_id: str, now: datetime) -> bool:
        """Return whether the task's oldest feed line is known to be within the retention."""
        kept = self._oldest.get(task_id)
        return kept is not None and kept >= now - KEEP

    def _replay(self, changeset: Changeset, digest: str) -> Commit:
        with self._writing(changeset.task_id) as execute:
            before = self._find_replay(execute, changeset, digest)
        assert before is not None
        return before

    def _find_replay(self, execute: Execute, changeset: Changeset, digest: str) -> Commit | None:
        """Return the earlier commit; it is as durable as any once this transaction is committed.

        It may not have been: perhaps its caller was told that the outcome is unknown.
        """
        before = find_replay(execute, changeset, digest)
        if before is not None:
            self._engine.write_something(execute)
        return before

    def _refusal(self, changeset: Changeset, task: TaskRow) -> RegistryError | None:
        """Return the error with which a changeset is refused that was not committed before."""
        try:
            check_fresh(changeset, task.expired_before, now=self._now())
        except RegistryError as error:
            return error
        if changeset.expected is None and task.revision == 0:
            return _not_found(changeset.task_id)
        if changeset.expected is not None and changeset.expected != task.revision:
            return Conflict(changeset.task_id, expected=changeset.expected, actual=task.revision)
        return None

    def _apply(self, writing: Writing, task: TaskRow, change: Change) -> datetime | None:
        """Write a change whose feed line is added.

        Returns the time of the task's oldest feed line, None if it was not read.
        """
        changeset = change.changeset
        if task.revision == 0:
            writing.create(TaskState.created_by(changeset).task, lineage=change.lineage)
        for op in changeset.ops:
            writing.apply(op)
        writing.finish(revision=change.revision, chain=change.chain, at=changeset.at)
        now = self._now()
        young = self._keeps_young(changeset.task_id, now)
        few = change.revision <= KEEP_CHANGES or change.revision % TRIM_BATCH
        return None if young and few else writing.trim(now - KEEP, now).oldest

    def compact(self, after: int = 0, *, dry_run: bool = False) -> Compacted:
        """See Compactable.compact."""
        now = self._now()
        oldest = now - KEEP
        with self._reading() as execute:
            newest = self._feed(execute).last
            rows = execute("feed_ages", number=after, limit=COMPACT_LINES).fetchall()
        lines = [
            FeedLine(
                number, task_id, time_of_line(changeset_id, at, now), is_newest=not is_followed
            )
            for number, task_id, changeset_id, at, is_followed in rows
        ]
        return compact_part(
            lines,
            lambda task_id: self._drop_expired(task_id, oldest, now),
            oldest=oldest,
            newest=newest,
            dry_run=dry_run,
        )

    def _drop_expired(self, task_id: str, oldest: datetime, now: datetime) -> int:
        with self._writing(task_id) as execute:
            task = read_task_row(execute, task_id)
            check_commit((task.feed or self._feed(execute)).role)
            trimmed = self._of_task(execute, task_id, task).trim(oldest, now, most=COMPACT_BATCH)
        self._note_oldest(task_id, trimmed.oldest)
        return trimmed.lines

    def _of_task(
        self, execute: Execute, task_id: str, task: TaskRow, *, again: bool = False
    ) -> Writing:
        return Writing(
            execute,
            task_id,
            task,
            again=again,
            shard=self._engine.counter_of(task_id),
            pipelined=self._engine.pipelined,
        )

    def _rows(self, execute: Execute, name: str, /, **parameters: Any) -> Callable[[], list[Any]]:
        """Run a statement; return a function that returns its rows, read as late as possible."""
        answer = execute(name, **parameters)
        if self._engine.pipelined:
            later: Callable[[], list[Any]] = answer.fetchall
            return later
        rows = answer.fetchall()
        return lambda: rows

    def _of(
        self, execute: Execute, every: str, one: str, task_id: str, refs: Refs
    ) -> list[Callable[[], list[Any]]]:
        """Read the rows of all agents, or only of the agents asked for.

        Those are read by key, so that the cost of a report does not grow with the number of agents.
        """
        if refs.agent_ids is None:
            return [self._rows(execute, every, task_id=task_id)]
        agents = sorted(filter(is_id, refs.agent_ids))
        return [self._rows(execute, one, task_id=task_id, agent_id=agent) for agent in agents]

    def _note_oldest(self, task_id: str, oldest: datetime | None) -> None:
        if oldest is not None:
            if len(self._oldest) > 10_000:
                self._oldest.clear()
            self._oldest[task_id] = oldest

    @staticmethod
    def _feed(execute: Execute) -> Feed:
        return Feed.of(execute("feed_state").fetchone())

    # -- the registry ------------------------------------------------------------------------

    def list_tasks(
        self, query: TaskQuery = ALL, *, after: str | None = None, limit: int = 100
    ) -> Page[TaskSummary]:
        """See RegistryStore.list_tasks."""
        query = check_tasks(query)
        filters = {
            "status": query.status.value if query.status else None,
            "since": stamp(query.since) if query.since else None,
            "until": stamp(query.until) if query.until else None,
            "text": query.text,
        }
        rows = self._page(Kind.TASK, filters, after, limit, newest_first=query.newest_first)
        items = tuple(map(_summary, rows))
        return _page_of(items, limit, lambda t: (stamp(t.created_at), t.task_id, ""))

    def list_records(
        self,
        kind: Kind,
        query: RecordQuery = ALL_RECORDS,
        *,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[Record]:
        """See RegistryStore.list_records."""
        query = check_query(kind, query)
        filters = {
            "task_id": query.task_id,
            "agent_id": query.agent_id,
            "phase_index": query.phase_index,
            "status": query.status.value if query.status else None,
            "active": None if query.active is None else int(query.active),
            "severity": query.severity,
            "since": stamp(query.since) if query.since else None,
            "text": query.text,
        }
        rows = self._page(kind, filters, after, limit, newest_first=query.newest_first)
        items: tuple[Record, ...] = tuple(map(codec(kind).read, rows))
        return _page_of(items, limit, lambda r: page_key(kind, r))

    def _page(
        self,
        kind: Kind,
        filters: dict[str, Any],
        after: str | None,
        limit: int,
        *,
        newest_first: bool,
    ) -> list[Any]:
        check_limit(limit)
        start = read_cursor(after, kind)
        parts = self._fragments[kind.value]
        direction = "newest" if newest_first else "oldest"
        given = {name: value for name, value in filters.items() if value is not None}
        where = [f"({parts['where'][name]})" for name in given]
        if start is not None:
            # Within one task the order has no task id, so that the task's index can serve it.
            inside = "_in_task" if "task_id" in given and kind is not Kind.TASK else ""
            where.append(parts["after"][direction + inside])
            given |= {f"after_{n}": value for n, value in enumerate(start)}
        text = parts["select"] + (f" WHERE {' AND '.join(where)}" if where else "")
        text += f" ORDER BY {parts['order'][direction]} {parts['limit']}"
        with self._engine.reading(once=True) as connection:
            rows: list[Any] = connection.execute(text, given | {"limit": limit + 1}).fetchall()
        return rows

    def counts(self) -> RegistryCounts:
        """See RegistryStore.counts."""
        with self._reading(once=True) as execute:
            rows = execute("counts").fetchall()
        found = Counter[tuple[str, str]]()
        for kind, status, n in rows:
            found[kind.partition("/")[0], status] += n
        counts = [(kind, status, n) for (kind, status), n in found.items() if n]
        tasks = {TaskStatus(s): n for kind, s, n in counts if kind == "status"}
        agents = {AgentStatus(s): n for kind, s, n in counts if kind == "agent"}
        records = {Kind(kind): n for kind, s, n in counts if s == ""}
        if agents:
            records[Kind.AGENT] = sum(agents.values())
        return RegistryCounts(
            tasks=MappingProxyType(tasks),
            agents=MappingProxyType(agents),
            records=MappingProxyType(records),
        )

    def changes(
        self, after: FeedCursor | None = None, *, task_id: str | None = None, limit: int = 100
    ) -> tuple[Change, ...]:
        """See RegistryStore.changes."""
        check_limit(limit)
        if after is not None and not 0 <= after.number <= SAFE_INT:
            raise InvalidQuery(f"{after.number} is not a feed number")
        if task_id is not None and not is_id(task_id):
            task_id = _NO_TASK

        def read() -> FeedPage:
            return self._read_feed(after, task_id, limit)

        if task_id is not None:  # the commits of one task are one after the other
            page = read()
        else:
            deadline = time.monotonic() + patience(_PATIENCE)
            page, self._final = read_settled(
                read, self._engine.open_writers, deadline=deadline, final=self._final
            )
        return tuple(_change(page.feed_id, row) for row in page.rows)

    def _read_feed(self, after: FeedCursor | None, task_id: str | None, limit: int) -> FeedPage:
        with self._reading() as execute:
            of_task = self._rows(execute, "task_floor", task_id=task_id) if task_id else None
            feed_id, floor, *_ = self._feed(execute)
            if of_task is not None:
                floor = next((row[0] for row in of_task()), 0)
            if after is not None and after.feed_id != feed_id:
                raise cursor_expired("it belongs to another feed")
            if after is not None and after.number < floor:
                raise cursor_expired("those changes were dropped")
            # Tasks without new changes may still have lines below the floor. A read starts above
            # it, so that every cursor it returns can be resumed from.
            start = after.number if after else floor
            if task_id is None:
                rows = execute("changes", number=start, limit=limit).fetchall()
            else:
                rows = execute(
                    "task_changes", task_id=task_id, number=start, limit=limit
                ).fetchall()
        return FeedPage(feed_id, start, rows)

    def close(self) -> None:
        """See RegistryStore.close."""
        self._engine.close()

    # -- a move's target ---------------------------------------------------------------------

    def apply(self, change: Change) -> Commit:
        """See MoveTarget.apply."""
        return self._replicate([change])[0]

    def _replicate(self, changes: Sequence[Change]) -> list[Commit]:
        tasks = [change.changeset.task_id for change in changes]
        with suppress(_NewFeed), self._writing(*tasks) as execute:
            return self._apply_in_turn(execute, changes)
        self._adopt_feed(changes[0].cursor.feed_id)
        with self._writing(*tasks) as execute:
            return self._apply_in_turn(execute, changes)

    def _apply_in_turn(self, execute: Execute, changes: Sequence[Change]) -> list[Commit]:
        counted = dict[tuple[str, str], int]()
        commits = [self._apply_next(execute, change, counted) for change in changes]
        write_counts(execute, counted)
        return commits

    def _apply_next(
        self, execute: Execute, change: Change, counted: dict[tuple[str, str], int]
    ) -> Commit:
        changeset = change.changeset
        task = read_task_row(execute, changeset.task_id)
        feed = task.feed or self._feed(execute)
        check_replication(feed.role)
        try:
            check_next(change, lineage=task.lineage, revision=task.revision, chain=task.chain)
        except NotNext:
            before = self._find_replay(execute, changeset, change.digest)
            if before is None:
                raise
            return before
        if feed.feed_id != change.cursor.feed_id:
            raise _NewFeed
        text = dump_changeset(changeset).decode()
        if not _add_change(execute, change, text, change.cursor.number).rowcount:
            before = self._find_replay(execute, changeset, change.digest)
            assert before is not None
            return before
        writing = self._of_task(execute, changeset.task_id, task, again=True)
        writing.counted = counted
        self._apply(writing, task, change)
        return commit_of(change)

    def apply_all(self, changes: Sequence[Change]) -> None:
        """See MoveTarget.apply_all."""
        if changes:
            self._replicate(changes)

    def _adopt_feed(self, feed_id: str) -> None:
        """Continue the source's feed.

        Lines of an earlier feed of the source are dropped: their numbers have no meaning in the new
        feed, and the source knows their ids.
        """
        with self._writing(alone=True) as execute:
            known = self._feed(execute)
            check_replication(known.role)
            if known.feed_id == feed_id:
                return
            if known.last and not _one(execute("read_meta", name="stamp.mirrored"), ""):
                raise own_changes()
            execute("drop_whole_feed")
            for name, value in (
                ("feed_id", feed_id),
                ("stamp.mirrored", "yes"),  # its contents are copies of the source's
                ("feed_floor", "0"),
                ("last_number", "0"),
            ):
                execute("write_meta", name=name, value=value)

    def replace(
        self,
        snapshot: TaskSnapshot,
        histories: Iterable[History],
        *,
        feed: tuple[Change, ...] = (),
    ) -> None:
        """See MoveTarget.replace."""
        task_id = snapshot.task.task_id
        if feed:
            self._check_feed(feed[-1].cursor.feed_id)
        with self._writing(task_id, slow=True) as execute:
            known = self._feed(execute)
            check_replication(known.role)
            old = read_task_row(execute, task_id)
            if old.lineage == snapshot.lineage and old.revision >= snapshot.revision:
                return
            writing = self._of_task(execute, task_id, old)
            self._clear(execute, writing)
            writing.create(snapshot.task, lineage=snapshot.lineage)
            writing.fill(snapshot, histories)
            writing.finish(revision=snapshot.revision, chain=snapshot.chain, at=snapshot.updated_at)
            for change in feed:
                text = dump_changeset(change.changeset).decode()
                _add_change(execute, change, text, change.cursor.number)
            writing.set_expired(
                *forgotten_by(feed, last_number=known.last, updated_at=snapshot.updated_at)
            )
            # Lines were dropped: their numbers must not be used again.
            execute("raise_meta", name="last_number", value=str(known.last))
            write_counts(execute, writing.counted)

    def _check_feed(self, feed_id: str) -> None:
        """Adopt the feed of a source unless it was adopted before."""
        with self._reading(once=True) as execute:
            known = self._feed(execute)
        check_replication(known.role)
        if known.feed_id != feed_id:
            self._adopt_feed(feed_id)

    def _clear(self, execute: Execute, writing: Writing) -> None:
        if writing.task.revision:
            writing.uncount()
            for name in TABLES.values():
                execute(f"drop_all_{name}", task_id=writing.task_id)
            execute("drop_latest", task_id=writing.task_id)
            execute("drop_feed", task_id=writing.task_id)

    def read_stamp(self, name: str) -> str | None:
        """See MoveTarget.read_stamp."""
        with self._reading(once=True) as execute:
            row = execute("read_meta", name=f"stamp.{name}").fetchone()
        return None if row is None else str(row[0])

    def write_stamp(self, name: str, value: str) -> None:
        """See MoveTarget.write_stamp."""
        with self._writing(alone=name == ROLE) as execute:
            execute("write_meta", name=f"stamp.{name}", value=value)

    # -- a move's source ---------------------------------------------------------------------

    def moved(self, seen: Mapping[str, Head]) -> dict[str, Head]:
        """See MigrationSource.moved."""
        out: dict[str, Head] = {}
        with self._reading() as execute:
            for task_id, lineage, revision, chain in execute("positions").fetchall():
                here = Head(lineage=lineage, revision=revision, chain=chain_of(chain, revision))
                known = seen.get(task_id)
                if known is None or not known.is_level(here):
                    out[task_id] = _head(execute("head", task_id=task_id).fetchone())
        return out

    def fence(self, stamp: RoleStamp, seen: Mapping[str, Head]) -> dict[str, Head]:
        """See MigrationSource.fence."""
        self.write_stamp(ROLE, stamp.dump())
        return self.moved(seen)

    def unfence(self, stamp: RoleStamp) -> None:
        """See MigrationSource.unfence."""
        self.write_stamp(ROLE, stamp.dump())

    def archive(self, *, progress: Callable[[int, int], None] | None = None) -> str:
        """See MigrationSource.archive."""
        return self._retirement.archive(progress=progress)

    def check_archive(self, archive: str) -> None:
        """See MigrationSource.check_archive."""
        self._retirement.check(archive)

    def retire(
        self,
        archive: str,
        *,
        wait: float,
        patience: float,
        now: Callable[[str], TaskSnapshot | None],
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[LateWrite, ...]:
        """See MigrationSource.retire: closes the store."""
        self._retirement.retire(archive, wait=wait, patience=patience, progress=progress)
        return ()

    def retiring(self) -> int:
        """See MigrationSource.retiring."""
        return self._retirement.retiring()

    def reinstate(self, archive: str | None) -> None:
        """See MigrationSource.reinstate."""
        self._retirement.reinstate(archive)


def _one(cursor: Any, default: str) -> str:
    row = cursor.fetchone()
    return default if row is None else str(row[0])


def _head(row: Any) -> Head:
    lineage, revision, newest, floor, chain = row
    return Head(
        lineage=lineage,
        revision=revision,
        number=newest or floor,
        chain=chain_of(chain, revision),
    )


def _not_found(task_id: str) -> TaskNotFound:
    return TaskNotFound(f"there is no task {task_id!r}", next_step="list_tasks shows all tasks")


def _add_change(execute: Execute, change: Change, text: str, number: int | None) -> Any:
    """Add the feed line; returns the answer, whose row count is 0 if its changeset was there."""
    return execute(
        "add_change",
        number=number,
        task_id=change.changeset.task_id,
        lineage=change.lineage,
        revision=change.revision,
        changeset_id=str(change.changeset.id),
        digest=change.digest,
        chain=change.chain,
        at=stamp(change.changeset.at),
        changeset=text,
    )


def _is_fresh(changeset: Changeset, now: datetime) -> bool:
    """Return whether the time in a changeset's id is not in the future."""
    try:
        check_fresh(changeset, None, now=now)
    except RegistryError:
        return False
    return True


def _require_new(line: Any) -> None:
    if not line.rowcount:
        raise _Replayed


def _change(feed_id: str, row: Any) -> Change:
    number, lineage, revision, digest, chain, changeset = row
    return Change(
        cursor=FeedCursor(feed_id=feed_id, number=number),
        lineage=lineage,
        revision=revision,
        changeset=changeset_from(orjson.loads(changeset)),
        digest=digest,
        chain=chain,
    )


def _summary(row: Any) -> TaskSummary:
    return TaskSummary(
        task_id=row[0],
        description=row[1],
        status=TaskStatus(row[2]),
        recorded_status=TaskStatus(row[3]),
        priority=row[4],
        created_at=unstamp(row[5]),
        updated_at=unstamp(row[6]),
        revision=row[7],
        phases=row[8],
        current_phase_index=row[9],
        agents=row[10],
        active_agents=row[11],
    )


def _page_of(items: tuple[Any, ...], limit: int, key: Callable[[Any], PageKey]) -> Page[Any]:
    page = items[:limit]
    return Page(items=page, next=make_cursor(key(page[-1])) if len(items) > limit else None)
