"""The journal of a task: its feed, its replay table and the hash of its document, in one file.

They share one file, so that a crash cannot make them disagree. The journal holds every record: the
logs are an export and an inbox; deleting them loses nothing. Lines are written under the task's
lock (lines.py has their format).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import orjson

from backends.json_files.journal.changes import kept_changes
from backends.json_files.journal.file import JournalFile, KnownIds
from backends.json_files.journal.lines import History
from backends.json_files.journal.reader import read_afresh, read_from_base, read_on
from backends.json_files.journal.recent_states import RecentStates
from backends.json_files.journal.state import JournalState, Stand, head_of
from registry_api.records import Change, Head, Kind, TaskState
from registry_api.workspace import ForkSafeLock

__all__ = ["Journal"]

_LONG_TAIL = 2**20  # after so many bytes appended by others, reading each line takes too long


class Journal:
    """One task's journal, read up to ``size``; ``refresh`` reads what others appended."""

    __slots__ = ("_evicted", "_head", "_known", "_lock", "file", "task_id")

    def __init__(self, path: Path, task_id: str) -> None:
        self.task_id = task_id
        self.file = JournalFile(path)
        self._known = JournalState()
        self._head = Head()
        self._evicted = False
        self._lock = ForkSafeLock()

    # -- what is known -----------------------------------------------------------------------

    @property
    def path(self) -> Path:
        """The path of the file."""
        return self.file.path

    @property
    def known(self) -> JournalState:
        """What was read of the file; another object after it was read afresh."""
        return self._known

    @property
    def inode(self) -> int:
        """The inode of the file that was read, -1 without one."""
        return self._known.inode

    @property
    def size(self) -> int:
        """How far the file is read, in bytes."""
        return self._known.size

    @property
    def is_empty(self) -> bool:
        """Whether the journal, as far as it was read, holds no task."""
        return not self._known.lineage

    @property
    def lineage(self) -> str:
        """The task's lineage, empty without a task."""
        return self._known.lineage

    @property
    def revision(self) -> int:
        """The task's revision."""
        return self._known.revision

    @property
    def number(self) -> int:
        """The feed number of the newest change."""
        return self._known.number

    @property
    def chain(self) -> str:
        """The chain at the task's revision, empty if it is not known."""
        return self._known.chain

    @property
    def hash(self) -> str:
        """The hash of the document that belongs to the state."""
        return self._known.hash

    @property
    def is_synced(self) -> bool:
        """Whether the document with this hash is on disk."""
        return self._known.is_synced

    @property
    def counts(self) -> dict[Kind, int]:
        """How many history records the task has, by kind."""
        return self._known.counts

    @property
    def floor(self) -> int:
        """The feed number up to which changes are no longer served."""
        return self._known.floor

    @property
    def expired_before(self) -> datetime | None:
        """The latest time in the id of a change that is no longer known."""
        return self._known.expired_before

    @property
    def state(self) -> TaskState | None:
        """The current state, None without a task; reloaded if it was evicted.

        Used under the task's lock, during which a task is never evicted.
        """
        self._reload()
        return self._known.held

    @property
    def foreign_agents(self) -> set[str]:
        """The agents that other programs created; used under the task's lock."""
        self._reload()
        return self._known.foreign_agents

    @property
    def logs(self) -> dict[str, int]:
        """How far each generation of a log is read, in bytes."""
        while (found := self._known.logs) is None:
            self._reload()
        return found

    @property
    def recent(self) -> RecentStates:
        """The states of the last 15 minutes: a legacy program may have read any of them.

        Most callers never need them, so the journal is read from its newest base; the first use
        of this property reads it from an older base. Used under the task's lock.
        """
        with self._lock:
            if self._evicted or not self._known.reaches_back:
                self._become(read_afresh(self.file, self._known, reaches_back=True))
            return self._known.recent

    def present(self) -> Stand | None:
        """Return the task's state and revision, None without a task. Needs no lock."""
        while True:
            stand, evicted = self._known.stand, self._evicted
            if stand is not None or not evicted:
                return stand
            self._reload()  # another thread may evict it again at once

    def head(self) -> Head:
        """Return the task's head; the same object as long as it does not change."""
        stand, head = self._known.stand, self._head
        # The revision first: it nearly always tells. The chain tells of a journal that was restored
        # from a backup and has come to the same revision by other changes.
        if stand is not None and (head.revision, head.chain, head.number, head.lineage) != (
            stand.revision,
            stand.chain,
            stand.number,
            stand.lineage,
        ):
            head = self._head = head_of(stand)
        return head

    def known_ids(self) -> KnownIds:
        """Return (revision, feed number, digest) by changeset id; read once per process."""
        ids = self._known.ids
        if ids is None:
            with self._lock:  # or what is appended meanwhile would be missing
                known = self._known
                ids = known.ids
                if ids is None:
                    ids = self.file.changeset_ids(0, known.size, floor=known.floor)
                    known.ids = ids
        return ids

    def history_ids(self) -> set[tuple[Kind, str]]:
        """Return the ids of the task's progress entries and findings, read once per process."""
        ids = self._known.entry_ids
        if ids is None:
            with self._lock:  # see known_ids
                known = self._known
                ids = known.entry_ids
                if ids is None:
                    ids = known.entry_ids = self.file.history_ids(0, known.size)
        return ids

    def histories(self, kind: Kind) -> Iterator[History]:
        """Yield the task's history records of one kind in the order of their commits, streaming."""
        return self.file.histories(kind, self._known.size)

    def changes(self, feed_id: str, *, after: int, below: int) -> Iterator[Change]:
        """Yield the kept changes whose feed number is between the bounds, oldest first."""
        return kept_changes(self.file, self._known, feed_id, after=after, below=below)

    # -- eviction ----------------------------------------------------------------------------

    def weight(self) -> int:
        """Return roughly how many records it holds in memory."""
        return self._known.weight()

    def evict(self) -> None:
        """Drop what can be reloaded: nobody has used the task for a while."""
        if self._lock.acquire(timeout=0):
            try:
                self.head()
                self._evicted = self._evicted or self._known.stand is not None
                self._known.evict()
            finally:
                self._lock.release()

    def _reload(self) -> None:
        if self._evicted:
            with self._lock:
                if self._evicted:
                    self._become(read_afresh(self.file, self._known))

    # -- reading -----------------------------------------------------------------------------

    def refresh(self) -> None:
        """Read what was appended since; start again if the file was replaced.

        Takes a lock of its own, since callers may not hold the task's: a thread that follows the
        feed must not apply a line that the thread which has just written it applies as well.
        """
        with self._lock:
            self._refresh()

    def _refresh(self) -> None:
        known = self._known
        try:
            found = self.path.stat()
        except FileNotFoundError:
            if known.inode != -1:
                self._become(JournalState())
            return
        replaced = found.st_ino != known.inode or found.st_size < known.size
        if replaced or (self._evicted and found.st_size > known.size):
            self._become(read_afresh(self.file, known))
        elif found.st_size > known.size + _LONG_TAIL:
            self._become(read_from_base(self.file, known))
        elif found.st_size > known.size:
            read_on(self.file, known)

    def _become(self, fresh: JournalState) -> None:
        """Take over what was read afresh; readers see the old state or the new one."""
        self._known = fresh
        if not fresh.lineage:
            self._head = Head()
        self._evicted = False

    def extend(self, data: bytes, write: Callable[[bytes, int], int]) -> None:
        """Append complete lines with ``write(data, offset) -> inode``, and apply them."""
        with self._lock:
            self._reload()
            known = self._known
            known.inode = write(data, known.size)
            known.reaches_back = known.reaches_back or not known.size
            for raw in data.splitlines(keepends=True):
                known.take(orjson.loads(raw), offset=known.size, length=len(raw))
                known.size += len(raw)
