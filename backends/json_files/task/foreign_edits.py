"""Detect foreign edits of a task's document and absorb them: merged, never over our changes."""

from __future__ import annotations

import os
import time
from dataclasses import replace

from backends.json_files.document.stamp import stamp_of
from backends.json_files.document.text import content_hash, read_document, text_over
from backends.json_files.legacy.handovers import read_handovers
from backends.json_files.legacy.layout import load_document
from backends.json_files.legacy.lens.document import encode
from backends.json_files.merge import differing, merge, nearest
from backends.json_files.task.write_ahead import WriteAhead
from registry_api.errors import CorruptDocument, Unavailable
from registry_api.records import HISTORIES, Kind, Op, Put, TaskState, json_text

__all__ = ["Foreign"]

_PENDING = 15.0
_LATE_FLUSH = 0.2


class Foreign(WriteAhead):
    """A task that detects and absorbs foreign edits, adopts new documents, restores torn ones."""

    def _settle(self, fd: int, *, thorough: bool = False) -> None:
        """Resolve a pending intent and absorb foreign edits: the journal then has the state.

        ``thorough`` reads the logs even if the document did not change.
        """
        self.journal.refresh()
        if self._intent.exists():
            self._resolve(fd, read_document(fd))
        stamp = stamp_of(fd)
        if not self._is_proven(stamp):
            data = read_document(fd)
            found = self._hash_of(data)
            if self.journal.is_empty:
                self._adopt(data, found)
            elif found != self.journal.hash:
                self._absorb(fd, data, found)
                thorough = True
            if found == self.journal.hash:
                # The stamp from before the read: a program without our lock may have written since.
                self._proven = (stamp, found)
        if thorough:
            self._absorb_logs()

    def _adopt(self, data: bytes, found: str) -> None:
        """Adopt a task that was never seen before: its records, then its histories."""
        try:
            document = load_document(data, path=self._document, task_id=self.task_id)
        except CorruptDocument as error:
            age = time.time() - self._document.stat().st_mtime
            if age < _PENDING:
                raise Unavailable(
                    f"{error.message} (changed {age:.0f} s ago, perhaps still being written)",
                    next_step="Try again in a few seconds",
                ) from None
            raise
        state = self._decode(document)
        folder = self._shared.layout.folder(self.task_id)
        for handover in read_handovers(folder, state, times=self._shared.times, problems=[]):
            state.handovers.setdefault(handover.handover_id, handover)
        ops: list[Op] = [
            Put(record) for kind in Kind if kind not in HISTORIES for record in state.records(kind)
        ]
        self._shared.replace_file(self._base, data)
        self._commit_foreign(ops, expected=0, before="", after=found)
        self._know(found, document, data)
        self._absorb_logs()
        self._keep_adopted(state, found)
        self.journal.rebase(len(data))  # later readers of the task need not read its histories

    def _keep_adopted(self, adopted: TaskState, found: str) -> None:
        """Keep the status that the document states: our lines in a log are older."""
        state = self.journal.state
        assert state is not None
        ops: list[Op] = []
        for key, agent in adopted.agents.items():
            now = state.agents[key]
            if (now.status, now.progress) != (agent.status, agent.progress):
                seen = max((m for m in (now.last_update, agent.last_update) if m), default=None)
                ops.append(Put(replace(agent, last_update=seen)))
        if ops:
            self._commit_foreign(ops, expected=self.journal.revision, before=found, after=found)

    def _absorb(self, fd: int, data: bytes, found: str) -> None:
        """Absorb a foreign edit of the document."""
        data, found = self._whole(fd, data, found)
        ours = self.journal.state
        assert ours is not None
        try:
            document = load_document(data, path=self._document, task_id=self.task_id)
        except CorruptDocument:
            self._restore(fd, data)
            return
        theirs = self._decode(document)
        if not differing(ours, theirs):
            self.journal.append(self.journal.same_line(found, self._shared.now(), logs={}))
            self._shared.replace_file(self._base, data)
            self._know(found, document, data)
            return
        recent = [(r.state, r.touched) for r in reversed(self.journal.recent)]
        base = nearest(theirs, recent or [(ours, frozenset())])
        merged = merge(
            base,
            ours,
            theirs,
            foreign_agents=self.journal.foreign_agents,
            sure=self.journal.is_whole(self._shared.now()),
        )
        after = ours.copy()
        for op in merged.ops:
            after.apply(op, known=lambda *_: False)
        self._shared.replace_file(self._base, data)
        if merged.conflicts:
            self._keep_conflict(data, merged.conflicts)
        if not differing(after, theirs):
            before = self.journal.hash
            self._commit_foreign(
                merged.ops, expected=self.journal.revision, before=before, after=found
            )
            self._know(found, document, data)
            return
        encode(
            theirs, self._without_file_handovers(after, theirs), document, times=self._shared.times
        )
        written = text_over(data, document)
        change = self._foreign_changeset(
            merged.ops or [Put(after.task)],
            expected=self.journal.revision,
            before=found,
            after=content_hash(written),
        )
        self._write(fd, change, before=found, old=data, data=written)
        self._know(self.journal.hash, document, written)

    def _whole(self, fd: int, data: bytes, found: str) -> tuple[bytes, str]:
        """Reread a torn document for 0.2 s: some legacy programs unlock before their last flush."""
        deadline = time.monotonic() + _LATE_FLUSH
        while self._try_decode(data) is None and time.monotonic() < deadline:
            if time.time_ns() - os.fstat(fd).st_mtime_ns > _LATE_FLUSH * 1e9:
                break
            time.sleep(0.005)
            data = read_document(fd)
            found = content_hash(data)
        return data, found

    def _restore(self, fd: int, data: bytes) -> None:
        """Restore a document that another program tore from our records; quarantine its bytes."""
        if data:
            self._shared.keep("quarantine", f"{self.task_id}.json", data)
        self._rebuild(fd)

    def _keep_conflict(self, data: bytes, conflicts: list[str]) -> None:
        name = f"{self.task_id}.{self.journal.revision}"
        self._shared.keep("conflicts", f"{name}.json", data)
        report = {
            "task_id": self.task_id,
            "revision": self.journal.revision,
            "at": self._shared.now().isoformat(),
            "conflicts": conflicts,
        }
        self._shared.keep("conflicts", f"{name}.report", json_text.dump(report, indent=True))
