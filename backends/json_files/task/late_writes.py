"""Late writes to the frozen document of one task: kept in ``.registry/conflicts``, then undone."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress

from backends.json_files.document.mode import READ_ONLY
from backends.json_files.document.patch import Patch
from backends.json_files.document.stamp import stamp_of, stat_stamp
from backends.json_files.document.text import content_hash, read_document
from backends.json_files.document.writer import write_in_place
from backends.json_files.merge import compared, merge
from backends.json_files.task.recovery import Finish, Recovery
from backends.json_files.task.task_files import TaskFiles
from registry_api.capabilities import LateWrite
from registry_api.records import KINDS, Op, Put, TaskSnapshot, TaskState, json_text, record_key

__all__ = ["LateWrites", "Now"]

Now = Callable[[str], TaskSnapshot | None]  # a task's state in the store that took over


class LateWrites:
    """Keeps and undoes what other programs write to a frozen document."""

    __slots__ = ("_files", "_finish", "_recovery")

    def __init__(self, files: TaskFiles, recovery: Recovery, finish: Finish) -> None:
        self._files = files
        self._recovery = recovery
        self._finish = finish

    def look(self, now: Now, *, stranger: str | None = None) -> LateWrite | None:
        """Keep a late write to the frozen document, or a document created late; None: nothing.

        ``stranger``: the hash of a document from before the freeze that no task was read from.
        """
        files, document, journal = self._files, self._files.document, self._files.journal
        stamp = stat_stamp(document.path)
        if stamp is None or document.is_proven(stamp):
            return None
        journal.refresh()
        with suppress(FileNotFoundError), files.locked_for_reading() as fd:
            stamp, found = stamp_of(fd), content_hash(read_document(fd))
            if journal.is_empty and (found == stranger or self._is_template(found)):
                return None
            # An interrupted rollback left it writable.
            is_open = os.fstat(fd).st_mode & ~READ_ONLY
            if not journal.is_empty and found == journal.hash and not is_open:
                document.prove(stamp, found)
                return None
        with (
            suppress(FileNotFoundError),
            files.held() as deadline,
            files.opened(deadline) as fd,
        ):
            found_late = self.guard(fd, now, self._finish)
            os.fchmod(fd, stat.S_IMODE(os.fstat(fd).st_mode) & READ_ONLY)
            return found_late
        return None

    def guard(self, fd: int, now: Now | None, finish: Finish) -> LateWrite | None:
        """Under its locks: settle what a kill left, keep a late write, restore the frozen text."""
        document, journal = self._files.document, self._files.journal
        journal.refresh()
        if self._files.intent.exists():
            self._recovery.settle(fd, read_document(fd), finish)
        stamp = stamp_of(fd)
        if document.is_proven(stamp):
            return None
        data = read_document(fd)
        found = content_hash(data)
        if not journal.is_empty and found == journal.hash:
            document.prove(stamp, found)
            return None
        lost = journal.is_empty and self._is_template(found)
        late_write = None if lost else self.keep(data, now)
        if not journal.is_empty:
            self._restore_frozen(fd)
            document.prove(stamp_of(fd), journal.hash)
        return late_write

    def settle_missing(self, fd: int, finish: Finish) -> None:
        """Settle what a kill left of a document that was missing and has just been created."""
        self._files.journal.refresh()
        if self._files.intent.exists():
            self._recovery.settle(fd, b"", finish)

    def _is_template(self, found: str) -> bool:
        """Return whether the document is as before the freeze, though its journal was lost."""
        template = self._files.document.template()
        return template is not None and content_hash(template) == found

    def keep(self, data: bytes, now: Now | None) -> LateWrite | None:
        """Keep a late write's bytes, once, with what it changed compared with the current state."""
        files, shared = self._files, self._files.shared
        name = f"{files.task_id}.straggler-{content_hash(data)[:12]}"
        path = shared.folder("conflicts") / f"{name}.json"
        if path.with_suffix(".report").exists() or not data:
            return None
        current = now(files.task_id) if now is not None else None
        frozen, theirs = files.journal.state, files.document.try_decode(data)
        changes, fields, left_out = _three_way(frozen, theirs, current), list[dict[str, str]](), 0
        if frozen is not None and theirs is not None:
            fields, left_out = compared(frozen, TaskState.of(current) if current else None, theirs)
        shared.replace_file(path, data)  # atomically; again while its report is missing
        report = {
            "task_id": files.task_id,
            "at": shared.now().isoformat(),
            "what": "written by another program after the cut-over",
            "revision": None if current is None else current.revision,
            "changes": list(changes),
            "fields": fields,
            "fields_left_out": left_out,
        }
        shared.replace_file(path.with_suffix(".report"), json_text.dump(report, indent=True))
        return LateWrite(task_id=files.task_id, kept=str(path), changes=changes)

    def _restore_frozen(self, fd: int) -> None:
        document = self._files.document
        frozen = document.template() or b""
        if content_hash(frozen) == self._files.journal.hash:
            write_in_place(fd, Patch.whole(frozen), sync=self._files.shared.sync)
        else:
            document.rebuild(fd)


def _three_way(
    frozen: TaskState | None, theirs: TaskState | None, now: TaskSnapshot | None
) -> tuple[str, ...]:
    """Describe what a late write changed in the frozen text, and its conflicts with ``now``."""
    if theirs is None:
        return ("it does not parse as a registry",)
    if frozen is None:
        return (f"a new registry with {len(theirs.agents)} agent(s)",)
    found = merge(frozen, frozen, theirs, foreign_agents=set())
    against = merge(frozen, TaskState.of(now), theirs, foreign_agents=set()) if now else None
    lines = [f"changed {_named(op)}" for op in found.ops] + found.conflicts
    if against is not None:
        lines += [f"against the current state: {c}" for c in against.conflicts]
    return tuple(lines)


def _named(op: Op) -> str:
    if isinstance(op, Put):
        return f"{KINDS[type(op.record)]} {record_key(op.record)}"
    return f"{op.kind} {op.key}"
