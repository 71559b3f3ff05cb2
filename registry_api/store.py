"""The contract: what every store does, and the optional capabilities that it may declare.

Semantics, each checked by ``contract_tests``:

1. Revisions of a task are gapless; ``load`` equals the state after exactly that revision.
2. A refused commit changes nothing, not even the feed.
3. The same changeset again returns the same commit, ``replayed``; the same id with other content is
   IdempotencyMismatch. Ids are known per task, as long as their feed line; an unknown id no younger
   than the task's forgotten ones is ChangesetExpired.
4. Counts are functions of the records.
5. Of two commits with the same ``expected`` exactly one wins.
6. The feed is ordered and, per task, gapless; every commit is in it; it resumes from any cursor.
7. Pages are keyset pages, stable under concurrent inserts, in the order of ``query.SORT``.
8. Aware timestamps in, UTC microseconds out; any Unicode but U+0000 and lone surrogates.
9. Thread-safe; with MULTI_PROCESS, several processes may open one store, with MULTI_HOST on several
   hosts: a write of the role stamp then waits for every write that is under way.
10. With PERSISTENT, what ``commit`` returned survives ``kill -9``; with DURABLE, power loss too.
11. Ids: letters, digits, ``._-``, no leading dot, at most 128; case counts.
12. Agents are keyed by (task, agent).
13. A chain stands for all changes of a task up to a revision (``records.next_chain``); it is equal
    in every store that applied the same changes. A store of contract 1.0 has none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from registry_api.records.changeset import Change, Changeset, Commit, FeedCursor, Limits
from registry_api.records.models import Kind, Record
from registry_api.records.query import ALL, ALL_RECORDS, Page, RecordQuery, Refs, TaskQuery
from registry_api.records.snapshot import Head, RegistryCounts, TaskSnapshot, TaskSummary
from registry_api.renamed import renamed

__all__ = ["CONTRACT_VERSION", "Capability", "RegistryStore", "StoreInfo"]

CONTRACT_VERSION = "1.1"


class Capability(StrEnum):
    """What a store declares; an undeclared capability is never used or tested."""

    MULTI_PROCESS = "multi_process"
    MULTI_HOST = "multi_host"  # processes of several hosts may open it, each with its own workspace
    PERSISTENT = "persistent"
    DURABLE = "durable"
    MOVE_TARGET = "move_target"
    MIGRATION_SOURCE = "movable"
    MOVABLE = MIGRATION_SOURCE  # its name in version 0.1
    LEASES = "leases"  # all processes that use it share its leases, on whatever host they run
    LOGGED = "logged"  # writes the lines of progress and findings itself


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreInfo:
    """A store's description of itself: declared, never probed."""

    name: str
    location: str = ""
    contract_version: str = CONTRACT_VERSION
    capabilities: frozenset[Capability] = frozenset()
    limits: Limits = field(default_factory=Limits)
    schema: str = ""  # the version of its tables, if it has tables


class RegistryStore(Protocol):
    """A registry of tasks. Methods raise only errors of ``registry_api.errors``."""

    @property
    def info(self) -> StoreInfo:
        """Name, contract version, capabilities and limits."""

    def load(self, task_id: str, *, only: Refs | None = None) -> TaskSnapshot:
        """Return one task at one revision, never torn; raises TaskNotFound."""

    def head(self, task_id: str) -> Head:
        """Return a task's lineage and revision, cheaply; revision 0 if there is no such task."""

    def commit(self, changeset: Changeset) -> Commit:
        """Apply one change atomically and durably; idempotent by its id.

        Raises InvalidChangeset, TaskNotFound, Conflict, RecordExists, IdempotencyMismatch,
        ChangesetExpired (nothing happened), Unavailable (nothing happened, retry) or OutcomeUnknown
        (retry the same changeset).
        """

    def list_tasks(
        self, query: TaskQuery = ALL, *, after: str | None = None, limit: int = 100
    ) -> Page[TaskSummary]:
        """Page the tasks by (created_at, task id); ``limit`` is 1…1000."""

    def list_records(
        self,
        kind: Kind,
        query: RecordQuery = ALL_RECORDS,
        *,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[Record]:
        """Page the records of one kind by (sort field, task id, key); ``limit`` is 1…1000."""

    def counts(self) -> RegistryCounts:
        """Return the actual counts of the whole registry."""

    def changes(
        self, after: FeedCursor | None = None, *, task_id: str | None = None, limit: int = 100
    ) -> tuple[Change, ...]:
        """Return the next changes after a cursor, oldest first.

        None starts at the oldest from which no line of any task, or of ``task_id``, is missing.
        Raises CursorExpired when changes after the cursor are no longer kept, or the cursor is of
        another feed.
        """

    def close(self) -> None:
        """Release everything; a second close does nothing, any other call raises StoreClosed."""


if not TYPE_CHECKING:  # else a misspelt name would pass

    def __getattr__(name: str) -> object:
        return renamed(__name__, name)
