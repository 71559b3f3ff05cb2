"""The contract: what every store does, and what it may declare to do besides.

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
9. Thread-safe; with MULTI_PROCESS, several processes may open one store.
10. With PERSISTENT, what ``commit`` returned survives ``kill -9``; with DURABLE, power loss too.
11. Ids: letters, digits, ``._-``, no leading dot, at most 128; case counts.
12. Agents are keyed by (task, agent).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from registry_api.changeset import Change, Changeset, Commit, FeedCursor, Limits
from registry_api.models import Finding, Kind, ProgressEntry, Record
from registry_api.query import ALL, ALL_RECORDS, Page, RecordQuery, Refs, TaskQuery
from registry_api.renamed import renamed
from registry_api.snapshot import Head, RegistryCounts, TaskSnapshot, TaskSummary

__all__ = [
    "CONTRACT_VERSION",
    "Capability",
    "LateWrite",
    "Legacy",
    "Logged",
    "MigrationSource",
    "MoveTarget",
    "Reconciled",
    "RegistryStore",
    "Replica",
    "StoreInfo",
]

CONTRACT_VERSION = "1.0"


class Capability(StrEnum):
    """What a store declares; an undeclared capability is never used or tested."""

    MULTI_PROCESS = "multi_process"
    PERSISTENT = "persistent"
    DURABLE = "durable"
    MOVE_TARGET = "move_target"
    MIGRATION_SOURCE = "movable"
    MOVABLE = MIGRATION_SOURCE  # its name in version 0.1
    LOGGED = "logged"  # writes the lines of progress and findings itself


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreInfo:
    """What a store says of itself: declared, never sniffed."""

    name: str
    location: str = ""
    contract_version: str = CONTRACT_VERSION
    capabilities: frozenset[Capability] = frozenset()
    limits: Limits = field(default_factory=Limits)


class RegistryStore(Protocol):
    """A registry of tasks. Methods raise only errors of ``registry_api.errors``."""

    @property
    def info(self) -> StoreInfo:
        """Name, contract version, capabilities and limits."""

    def load(self, task_id: str, *, only: Refs | None = None) -> TaskSnapshot:
        """Return one task at one revision, never torn; raises TaskNotFound."""

    def head(self, task_id: str) -> Head:
        """Return where a task stands, cheaply; revision 0 where there is none."""

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
        """Return true counts of the whole registry."""

    def changes(
        self, after: FeedCursor | None = None, *, task_id: str | None = None, limit: int = 100
    ) -> tuple[Change, ...]:
        """Return the next changes after a cursor, oldest first; None starts at the oldest kept.

        Raises CursorExpired when changes after the cursor are no longer kept, or the cursor is of
        another feed.
        """

    def close(self) -> None:
        """Release everything; a second close does nothing, any other call then is StoreClosed."""


class Replica(Protocol):
    """A store that can be brought, revision by revision, to where another one stands."""

    def apply(self, change: Change) -> Commit:
        """Apply a change of the other, keeping id, digest, lineage, revision, time and number.

        Raises NotNext unless the task is at (lineage, revision - 1); a change already applied is
        answered as a replay. An append whose very record is there already, since ``replace``
        streamed it, is done; RecordExists where another record has its id.
        """

    def apply_all(self, changes: Sequence[Change]) -> None:
        """Apply several changes, of one task or more: all, or none and NotNext.

        The changes of each task are in order.
        """

    def replace(
        self,
        snapshot: TaskSnapshot,
        histories: Iterable[ProgressEntry | Finding],
        *,
        feed: tuple[Change, ...] = (),
    ) -> None:
        """Set a whole task to the snapshot's revision.

        ``histories`` is streamed; ``feed`` is the tail of the task's feed, whose ids are known
        afterwards. Does nothing where the task already stands at or past that revision of its
        lineage.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class LateWrite:
    """What a program outside the contract wrote after the cut-over: nobody's truth, but kept.

    ``kept`` is the path of its bytes below ``.registry/conflicts``; ``changes`` say what it
    changed, a line each.
    """

    task_id: str
    kept: str
    changes: tuple[str, ...] = ()


class MigrationSource(Replica, Protocol):
    """Capability MIGRATION_SOURCE: a store over files that programs outside the contract may edit.

    It can be given up as the source of a move, and brought back: as a Replica of the store that
    took over, while it is frozen.
    """

    def absorb(self) -> tuple[tuple[str, Head], ...]:
        """Take in what they wrote, in documents and logs; return where every task stands."""

    def moved(self, seen: Mapping[str, Head]) -> dict[str, Head]:
        """Return where those tasks stand that moved since ``seen``, as recorded: what killed
        writers left is settled, what others wrote is left for ``absorb``. Quick: behind a gate.
        """

    def settle(self) -> None:
        """Finish or take back what killed writers left; called while no process of ours writes.

        Raises Busy, or CorruptDocument or Unavailable where a task cannot be settled. Once the
        phase has changed, the next operation drops an intent that is left.
        """

    def as_recorded(self) -> AbstractContextManager[None]:
        """Within this context reads of this thread answer from the record and take in nothing from
        documents: a switch behind the gate must not wait for other programs.
        """

    def prepare_freeze(self) -> None:
        """Keep, beside the writers, what a thaw and the way back will need."""

    def freeze(self, seen: Mapping[str, Head]) -> dict[str, Head]:
        """Make every document read-only, each settled and under its lock; while nobody of ours
        writes. Returns where those tasks stand that moved since ``seen``. Raises Busy.
        """

    def sweep(self) -> dict[str, Head]:
        """Look at every frozen document again and take in what was written while they were frozen
        one by one; returns where the tasks stand that moved.
        """

    def keep_frozen(self) -> None:
        """Make read-only again what a death left open while it was brought forward."""

    def frozen_documents(self) -> int:
        """Return how many documents are read-only that were not before they were frozen."""

    def thaw(self) -> None:
        """Let other programs write the documents again; also after a freeze that died half-way."""

    def restore(self, *, dry_run: bool = False) -> int:
        """Write documents and lines again that somebody removed; return how many. Nothing while the
        store is frozen. ``dry_run``: only count them.
        """

    def project(self) -> None:
        """Bring the other programs' list of all tasks up to date, as far as it can be at once."""

    def late_writes(self, now: Callable[[str], TaskSnapshot | None]) -> tuple[LateWrite, ...]:
        """Put aside what others wrote to frozen documents, or made anew, since it was last looked;
        the frozen text is restored. ``now`` tells where a task stands in the store that took over.
        """

    def kept_late_writes(self) -> tuple[str, ...]:
        """Return the reports of stragglers that nobody has dealt with yet; changes nothing."""

    def frozen_differences(self) -> tuple[str, ...]:
        """Return what of the frozen documents, or of their archive, is not what it was."""

    def holders(self) -> tuple[str, ...]:
        """Return which other processes have a document open: ``pid (name): path``."""

    def archive(self, *, progress: Callable[[int, int], None] | None = None) -> str:
        """Put all documents into a new archive, durably, and read it back; returns its name and
        SHA-256, parted by a blank. Raises CorruptDocument where it does not read back as written.
        """

    def check_archive(self, archive: str) -> None:
        """Read an archive back; raises CorruptDocument where it is not what was recorded."""

    def retire(
        self,
        archive: str,
        *,
        wait: float,
        patience: float,
        now: Callable[[str], TaskSnapshot | None],
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[LateWrite, ...]:
        """Remove the archived documents: aside first, then for good when they have lain there for
        ``wait`` seconds and nobody has them open; what was written to them meanwhile is put aside.

        Idempotent. What cannot be removed within ``patience`` seconds is left for the next call.
        """

    def retiring(self) -> int:
        """Return how many removed documents lie aside, not removed for good."""

    def reinstate(self, archive: str | None) -> None:
        """Put the documents back that are not there, frozen, byte for byte as far as they, their
        templates or the archive remain, else from the records. Idempotent.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """How many lines of the logs were taken in, and how many missing ones were written; of a move,
    how many tasks were brought up to date.
    """

    taken: int = 0
    written: int = 0
    caught_up: int = 0

    def to_dict(self) -> dict[str, int]:
        """Return the counts under the keys of ``reconcile --json``."""
        return {"healed": self.caught_up, "taken": self.taken, "written": self.written}


class Logged(Protocol):
    """A store with append-only logs beside it, which other programs read and append to."""

    def reconcile(self, *, dry_run: bool = False) -> Reconciled:
        """Take in what others appended, each line once, and write the lines that are missing.

        ``dry_run``: only count them.
        """


class Legacy(Protocol):
    """What a store over an older system's files can say of that system."""

    def stored_counts(self) -> Mapping[str, int]:
        """Return the counters that the older system stored, by their names there."""

    def problems(self) -> tuple[str, ...]:
        """Return, a line each, what in the files could not be taken, with file and position."""

    def frozen_documents(self) -> int:
        """Return how many documents a cut-over made read-only."""

    def merged(self) -> str | None:
        """Return what shows that the state of two registries was merged into one, None: nothing."""

    def unreadable(self) -> Mapping[str, str]:
        """Return per file that no task could be made of what is wrong with it: a move leaves it."""

    def legacy_state(self) -> datetime | None:
        """Return when the older system's own database was last written, None without one."""

    def legacy_state_summary(self) -> str | None:
        """Return where that database is and what it counts, None without one."""


class MoveTarget(Replica, Protocol):
    """Capability MOVE_TARGET: a store that can be the target of a move.

    ``apply_all`` is one transaction, as ``replace`` is.
    """

    def read_stamp(self, name: str) -> str | None:
        """Return a text kept for the move (epoch, phase, lineage of the source), or None."""

    def write_stamp(self, name: str, value: str) -> None:
        """Keep a text for the move, durably."""


def __getattr__(name: str) -> object:
    return renamed(__name__, name)
