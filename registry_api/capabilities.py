"""What a store may offer besides the contract: optional protocols, found by their methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Protocol, TypeGuard, TypeVar

from registry_api.records.changeset import Change, Commit
from registry_api.records.models import History
from registry_api.records.snapshot import Head, TaskSnapshot
from registry_api.roles import RoleStamp

__all__ = [
    "Compactable",
    "Compacted",
    "ForeignWriters",
    "LateWrite",
    "Legacy",
    "Logged",
    "MigrationSource",
    "MoveTarget",
    "Reconciled",
    "Replica",
    "Stamps",
    "find_capability",
    "provides",
]

P = TypeVar("P")


def provides(store: object, protocol: Callable[..., P]) -> TypeGuard[P]:
    """Return whether an object has every method of an optional protocol.

    Checked by attribute, including those that ``__getattr__`` forwards: ``isinstance`` of a
    runtime-checkable protocol ignores ``__getattr__`` since Python 3.12. A class that is not a
    protocol is checked by isinstance.
    """
    assert isinstance(protocol, type)  # not annotated so: mypy accepts no protocol as a type
    if not getattr(protocol, "_is_protocol", False):
        return isinstance(store, protocol)
    return all(hasattr(store, name) for name in _members(protocol))


@cache
def _members(protocol: type) -> frozenset[str]:
    protocols = [c for c in protocol.__mro__ if getattr(c, "_is_protocol", False)]
    return frozenset(n for c in protocols for n in vars(c) if not n.startswith("_"))


def find_capability(store: object, protocol: Callable[..., P]) -> P | None:
    """Return the store, or the nearest one it wraps (``inner``), that provides an optional
    protocol, or None.
    """
    found: object = store
    while found is not None:
        if provides(found, protocol):
            return found
        found = getattr(found, "inner", None)
    return None


class Replica(Protocol):
    """A store that can be brought, revision by revision, to the state of another store."""

    def apply(self, change: Change) -> Commit:
        """Apply a change of the other store, keeping id, digest, lineage, revision, time, number.

        Raises NotNext unless the task is at (lineage, revision - 1); a change already applied is
        answered as a replay. An append whose exact record is stored already, since ``replace``
        streamed it, counts as done; raises RecordExists if another record has its id.
        """

    def apply_all(self, changes: Sequence[Change]) -> None:
        """Apply several changes, of one task or more: all, or none, raising NotNext.

        The changes of each task are in order.
        """

    def replace(
        self,
        snapshot: TaskSnapshot,
        histories: Iterable[History],
        *,
        feed: tuple[Change, ...] = (),
    ) -> None:
        """Set a whole task to the snapshot's revision.

        ``histories`` is streamed; ``feed`` is the tail of the task's feed, whose ids are known
        afterwards. Does nothing if the task is already at or past that revision of its lineage.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class LateWrite:
    """A write by a legacy program to a frozen source, kept in ``.registry/conflicts``.

    ``kept`` is the path of its bytes there; ``changes`` describe what it changed, a line each.
    """

    task_id: str
    kept: str
    changes: tuple[str, ...] = ()


class MigrationSource(Replica, Protocol):
    """Capability MIGRATION_SOURCE: a store that a move can leave, and take back.

    While another store is the writer of record it is fenced; for a rollback it becomes a Replica of
    that store. A store that keeps a role stamp (``Stamps``) is fenced by it.
    """

    def moved(self, seen: Mapping[str, Head]) -> dict[str, Head]:
        """Return the heads of the tasks that changed since ``seen``.

        Fast, since it runs while the gate is held. Foreign edits are left for ``absorb``; the
        writes of killed processes are settled.
        """

    def fence(self, stamp: RoleStamp, seen: Mapping[str, Head]) -> dict[str, Head]:
        """Refuse every commit from now on, durably; return the heads of the tasks that changed
        since ``seen``, as they are behind the fence.

        Called while no process of ours writes: a process that by-passes the gate is refused by the
        fence. Raises Busy.
        """

    def unfence(self, stamp: RoleStamp) -> None:
        """Accept commits again; also after an interrupted ``fence``."""

    def archive(self, *, progress: Callable[[int, int], None] | None = None) -> str:
        """Write a copy of the fenced store to a new archive, durably, and read it back.

        Returns its name and SHA-256, separated by a blank. Raises CorruptDocument if it does not
        read back as written.
        """

    def check_archive(self, archive: str) -> None:
        """Read an archive back; raises CorruptDocument if it is not what was recorded."""

    def retire(
        self,
        archive: str,
        *,
        wait: float,
        patience: float,
        now: Callable[[str], TaskSnapshot | None],
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[LateWrite, ...]:
        """Remove what was archived; return the late writes to it, which are kept.

        Files are renamed first and deleted when ``wait`` seconds have passed and no process has
        them open. Idempotent. Those that cannot be deleted within ``patience`` seconds are left for
        the next call. ``now`` returns a task's state in the store that took over. The store may be
        closed afterwards.
        """

    def retiring(self) -> int:
        """Return how many removed files are pending deletion."""

    def reinstate(self, archive: str | None) -> None:
        """Put the removed store back, fenced. Idempotent.

        From what was removed, or the archive. Where neither can be used, a rollback fills the store
        from the one that took over.
        """


class ForeignWriters(Protocol):
    """A store over files that programs outside the contract edit, also while it is fenced."""

    def absorb(self) -> tuple[tuple[str, Head], ...]:
        """Absorb foreign edits of documents and logs; return the head of every task."""

    def settle(self) -> None:
        """Finish or undo the writes of killed processes; called while no process of ours writes.

        Raises Busy, or CorruptDocument or Unavailable if a task cannot be settled. Once the phase
        has changed, the next operation drops a remaining intent.
        """

    def as_recorded(self) -> AbstractContextManager[None]:
        """Return a context in which this thread's reads do not absorb foreign edits.

        They answer from what is recorded: a switch that holds the gate must not wait for other
        programs, nor for log lines of commits, which are complete then.
        """

    def prepare_fence(self) -> None:
        """Save, while writers continue, what ``unfence`` and a rollback will need."""

    def sweep(self) -> dict[str, Head]:
        """Read every fenced document again; return the heads of the tasks that changed.

        Absorbs the write of a legacy program that waited for a document's lock while other
        documents were being fenced.
        """

    def keep_fenced(self) -> None:
        """Make documents read-only that an interrupted update of a fenced store left writable."""

    def frozen_documents(self) -> int:
        """Return how many documents are read-only that were writable before the cut-over."""

    def restore(self, *, dry_run: bool = False) -> int:
        """Write removed documents and log lines again; return how many.

        Does nothing while the store is fenced. ``dry_run``: only count them.
        """

    def project(self) -> None:
        """Update the legacy programs' list of all tasks, as far as possible without waiting."""

    def late_writes(self, now: Callable[[str], TaskSnapshot | None]) -> tuple[LateWrite, ...]:
        """Keep new late writes in ``.registry/conflicts``, restore the fenced text, return reports.

        A document that is created while the store is fenced is a late write too. ``now`` returns a
        task's state in the store that took over.
        """

    def kept_late_writes(self) -> tuple[str, ...]:
        """Return the reports of late writes that nobody has dealt with yet; changes nothing."""

    def frozen_differences(self) -> tuple[str, ...]:
        """Return where the fenced documents, or their archive, differ from what was recorded."""

    def holders(self) -> tuple[str, ...]:
        """Return which other processes have a document open: ``pid (name): path``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """The counts of a reconcile: log lines ``taken`` (imported), missing log lines ``written``;
    of a move, tasks that caught up.
    """

    taken: int = 0
    written: int = 0
    caught_up: int = 0

    def to_dict(self) -> dict[str, int]:
        """Return the counts under the keys of ``reconcile --json``."""
        return {"healed": self.caught_up, "taken": self.taken, "written": self.written}


class Logged(Protocol):
    """A store that also keeps append-only logs, which other programs read and append to."""

    def reconcile(self, *, dry_run: bool = False) -> Reconciled:
        """Import the lines that others appended, each once, and write the lines that are missing.

        ``dry_run``: only count them.
        """


class Legacy(Protocol):
    """What a store over a legacy system's files can report about that system."""

    def stored_counts(self) -> Mapping[str, int]:
        """Return the counters that the legacy system stored, by their names there."""

    def problems(self) -> tuple[str, ...]:
        """Return a line, with file and position, for each part of the files that is unreadable."""

    def frozen_documents(self) -> int:
        """Return how many documents a cut-over made read-only."""

    def merged(self) -> str | None:
        """Return the evidence that two registries were merged into one, None if there is none."""

    def unreadable(self) -> Mapping[str, str]:
        """Return what is wrong with each file that is unreadable as a task: a move skips it."""

    def legacy_state(self) -> datetime | None:
        """Return when the legacy system's own database was last written, None without one."""

    def legacy_state_summary(self) -> str | None:
        """Return where that database is and what it counts, None without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compacted:
    """What was compacted: ``lines`` of the feed were dropped.

    ``after``: the feed number to go on after, None if there is no older line left. ``newest``: the
    feed's last number.
    """

    lines: int
    after: int | None
    newest: int


class Compactable(Protocol):
    """A store that drops expired feed lines also of tasks that are no longer written."""

    def compact(self, after: int = 0, *, dry_run: bool = False) -> Compacted:
        """Drop feed lines after a feed number that are past their retention, for a moment.

        As if their task was written now: never its newest line; older cursors are expired then, and
        older ids refused. In short transactions, while others write, and for no longer than
        ``registry_api.authoring.COMPACTING`` but for the last of them: callers may hold a lock.
        ``dry_run``: only count them.
        Raises BackendMismatch if the store is not the writer of record, ReadOnly, Unavailable (Busy
        included) or OutcomeUnknown.
        """


class Stamps(Protocol):
    """A store that keeps texts for a move: its role (``registry_api.roles``), epoch and phase.

    It checks its role in each transaction that writes: ``commit`` calls ``check_commit``;
    ``apply``, ``apply_all`` and ``replace`` call ``check_replication``.
    """

    def read_stamp(self, name: str) -> str | None:
        """Return a text kept for the move, or None."""

    def write_stamp(self, name: str, value: str) -> None:
        """Store a text for the move, durably."""


class MoveTarget(Replica, Stamps, Protocol):
    """Capability MOVE_TARGET: a store that can be the target of a move.

    ``apply_all`` is one transaction, as ``replace`` is.
    """
