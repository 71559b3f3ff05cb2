"""Detect foreign edits of a task's document and absorb them: merged, never over our changes."""

from __future__ import annotations

import os
import time
from dataclasses import replace

from backends.json_files.document.stamp import stamp_of
from backends.json_files.document.text import content_hash, read_document, text_over
from backends.json_files.legacy.handovers import read_handovers
from backends.json_files.merge import Merge, differing, merge, nearest
from backends.json_files.task.foreign_lines import ForeignLines
from backends.json_files.task.recovery import Recovery
from backends.json_files.task.task_files import TaskFiles
from backends.json_files.task.write_ahead import WriteAhead
from registry_api.errors import CorruptDocument, Unavailable
from registry_api.records import HISTORIES, Kind, Op, Put, TaskState, json_text

__all__ = ["ForeignEdits"]

_PENDING = 15.0
_LATE_FLUSH = 0.2


class ForeignEdits:
    """Absorbs foreign edits, adopts new documents, restores torn ones; used under the locks."""

    __slots__ = ("_files", "_lines", "_recovery", "_write_ahead")

    def __init__(
        self, files: TaskFiles, lines: ForeignLines, write_ahead: WriteAhead, recovery: Recovery
    ) -> None:
        self._files = files
        self._lines = lines
        self._write_ahead = write_ahead
        self._recovery = recovery

    def settle(self, fd: int, *, thorough: bool = False) -> None:
        """Settle a pending intent and absorb foreign edits: the journal then has the state.

        ``thorough`` reads the logs even if the document did not change.
        """
        journal, document = self._files.journal, self._files.document
        journal.refresh()
        if self._files.intent.exists():
            self._recovery.settle(fd, read_document(fd), self._write_ahead.finish)
        stamp = stamp_of(fd)
        if not document.is_proven(stamp):
            data = read_document(fd)
            found = document.hash_of(data)
            if journal.is_empty:
                self._adopt(data, found)
            elif found != journal.hash:
                self._absorb(fd, data, found)
                thorough = True
            if found == journal.hash:
                # The stamp from before the read: a program without our lock may have written since.
                document.prove(stamp, found)
        if thorough:
            self._lines.absorb()

    def _adopt(self, data: bytes, found: str) -> None:
        """Adopt a task that was never seen before: its records, then its histories."""
        files, document = self._files, self._files.document
        try:
            value = document.parse(data)
        except CorruptDocument as error:
            age = time.time() - document.path.stat().st_mtime
            if age < _PENDING:
                raise Unavailable(
                    f"{error.message} (changed {age:.0f} s ago, perhaps still being written)",
                    next_step="Try again in a few seconds",
                ) from None
            raise
        state = document.decode(value)
        folder = files.shared.layout.folder(files.task_id)
        for handover in read_handovers(folder, state, times=files.shared.times, problems=[]):
            state.handovers.setdefault(handover.handover_id, handover)
        ops: list[Op] = [
            Put(record) for kind in Kind if kind not in HISTORIES for record in state.records(kind)
        ]
        document.keep_template(data)
        self._lines.commit(ops, expected=0, before="", after=found)
        document.know(found, value, data)
        self._lines.absorb()
        self._keep_adopted(state, found)
        # Later readers of the task need not read its histories.
        files.journal_writer.rebase(len(data))

    def _keep_adopted(self, adopted: TaskState, found: str) -> None:
        """Keep the status that the document states: our lines in a log are older."""
        journal = self._files.journal
        state = journal.state
        assert state is not None
        ops: list[Op] = []
        for key, agent in adopted.agents.items():
            now = state.agents[key]
            if (now.status, now.progress) != (agent.status, agent.progress):
                seen = max((m for m in (now.last_update, agent.last_update) if m), default=None)
                ops.append(Put(replace(agent, last_update=seen)))
        if ops:
            self._lines.commit(ops, expected=journal.revision, before=found, after=found)

    def _absorb(self, fd: int, data: bytes, found: str) -> None:
        """Absorb a foreign edit of the document."""
        journal, document = self._files.journal, self._files.document
        data, found = self._whole(fd, data, found)
        ours = journal.state
        assert ours is not None
        try:
            value = document.parse(data)
        except CorruptDocument:
            self._restore(fd, data)
            return
        theirs = document.decode(value)
        if not differing(ours, theirs):
            writer = self._files.journal_writer
            writer.append(writer.same_line(found, self._files.shared.now(), logs={}))
            document.keep_template(data)
            document.know(found, value, data)
            return
        merged = self._merge(ours, theirs)
        after = ours.copy()
        for op in merged.ops:
            after.apply(op, known=lambda *_: False)
        document.keep_template(data)
        if merged.conflicts:
            self._keep_conflict(data, merged)
        if not differing(after, theirs):
            self._lines.commit(
                merged.ops, expected=journal.revision, before=journal.hash, after=found
            )
            document.know(found, value, data)
            return
        document.encode(theirs, document.without_file_handovers(after, theirs), value)
        written = text_over(data, value)
        change = self._lines.changeset(
            merged.ops or [Put(after.task)],
            expected=journal.revision,
            before=found,
            after=content_hash(written),
        )
        self._write_ahead.write(fd, change, before=found, old=data, data=written)
        document.know(journal.hash, value, written)

    def _merge(self, ours: TaskState, theirs: TaskState) -> Merge:
        journal = self._files.journal
        recent = journal.recent
        states = [(r.state, r.touched) for r in recent.newest_first()]
        return merge(
            nearest(theirs, states or [(ours, frozenset())]),
            ours,
            theirs,
            foreign_agents=journal.foreign_agents,
            sure=recent.is_whole(self._files.shared.now()),
        )

    def _whole(self, fd: int, data: bytes, found: str) -> tuple[bytes, str]:
        """Reread a torn document for 0.2 s: some legacy programs unlock before their last flush."""
        deadline = time.monotonic() + _LATE_FLUSH
        while self._files.document.try_decode(data) is None and time.monotonic() < deadline:
            if time.time_ns() - os.fstat(fd).st_mtime_ns > _LATE_FLUSH * 1e9:
                break
            time.sleep(0.005)
            data = read_document(fd)
            found = content_hash(data)
        return data, found

    def _restore(self, fd: int, data: bytes) -> None:
        """Restore a document that another program tore from our records; quarantine its bytes."""
        if data:
            self._files.shared.keep("quarantine", f"{self._files.task_id}.json", data)
        self._files.document.rebuild(fd)

    def _keep_conflict(self, data: bytes, merged: Merge) -> None:
        files = self._files
        name = f"{files.task_id}.{files.journal.revision}"
        files.shared.keep("conflicts", f"{name}.json", data)
        report = {
            "task_id": files.task_id,
            "revision": files.journal.revision,
            "at": files.shared.now().isoformat(),
            "conflicts": merged.conflicts,
            "fields": merged.fields,
            "fields_left_out": merged.fields_left_out,
        }
        files.shared.keep("conflicts", f"{name}.report", json_text.dump(report, indent=True))
