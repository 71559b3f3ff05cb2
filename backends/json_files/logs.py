"""The logs of one task: what others appended, and lines of ours, appended and taken back."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from backends.files import open_regular
from backends.json_files.intent import AppendedLine
from backends.json_files.journal import Journal
from backends.json_files.shared import Shared
from backends.jsonl.append import append_line, open_log
from backends.jsonl.lines import Line, encode_line
from backends.jsonl.reader import Identity, Log, find_logs, identify, log_name, read_lines
from registry_api.changeset import Changeset
from registry_api.errors import Unavailable
from registry_api.models import KINDS, Finding, Kind, ProgressEntry, record_key

__all__ = ["TaskLogs"]

# Side by side at the end of a line of ours, as encode_line writes them; nowhere else.
_ENTRY_ID = re.compile(rb'"entry_id":"([A-Za-z0-9_-][A-Za-z0-9._-]*)","changeset":"[0-9a-f-]{36}"')
_TAIL = 1 << 16
_UNKNOWN = "00000000-0000-0000-0000-000000000000"


class TaskLogs:
    """Used under the task's lock, except ``read``, which only needs the offsets read under it."""

    def __init__(self, shared: Shared, task_id: str) -> None:
        self._shared = shared
        self._task_id = task_id
        self._folder = shared.layout.folder(task_id)
        self._identity: Identity = {}
        self._found: tuple[bytes, list[Log]] = b"", []

    def unread(
        self, journal: Journal, lines: tuple[AppendedLine, ...] | None = None
    ) -> tuple[list[ProgressEntry | Finding], dict[str, int]]:
        """Return what others appended since the journal last looked, and how far that reads.

        With ``lines`` only the logs are looked at that these go to. A line that the journal knows,
        by its id or its changeset's, is no news: one of ours that another program's append, or its
        move of the log, had put behind what was read.
        """
        records: list[ProgressEntry | Finding] = []
        offsets: dict[str, int] = {}
        for log in self._logs(lines):
            start = journal.logs.get(log.generation, 0)
            if log.size <= start:
                continue
            for end, line in self._lines(log, start, None):
                offsets[log.generation] = end
                if not self._is_journaled(line, journal):
                    records.append(line.record)
        return records, offsets

    def _is_journaled(self, line: Line, journal: Journal) -> bool:
        key = KINDS[type(line.record)], record_key(line.record)
        known = self.ids(journal)
        if line.changeset is None:
            return key in known
        # The ids were read as far as the logs were: a line that was journaled since may lie behind.
        if key not in known and line.changeset in map(str, journal.known_ids()):
            known.add(key)
        return key in known

    def _logs(self, lines: tuple[AppendedLine, ...] | None) -> list[Log]:
        if lines is None:
            return find_logs(self._folder, [], known=self._identity)
        places = {line.path: line.kind for line in lines}
        found = [
            identify(kind, f"{self._folder}/{path}", [], known=self._identity)
            for path, kind in places.items()
        ]
        return [log for log in found if log is not None]

    def _open(self, log: Log) -> int | None:
        """Open a log that was found, also where it was moved since: its lines must not miss."""
        try:
            return open_regular(log.place)
        except FileNotFoundError:
            for other in self._logs(None):
                if (other.kind, other.generation) == (log.kind, log.generation):
                    return open_regular(other.place)
            raise Unavailable(
                f"{log.place} was taken away while it was read", next_step="Try again"
            ) from None
        except OSError:
            return None  # tried again, and named, by who reads

    def _lines(
        self, log: Log, start: int, stop: int | None, *, opened: int | None = None
    ) -> Iterator[tuple[int, Line]]:
        return read_lines(
            log,
            opened=opened,
            task_id=self._task_id,
            times=self._shared.times,
            problems=[],
            start=start,
            stop=stop,
        )

    def grown(self, journal: Journal) -> bool:
        """Whether any log is longer than what the journal knows of it."""
        read = journal.logs
        return any(log.size > read.get(log.generation, 0) for log in self._logs(None))

    def read(
        self, kind: Kind, offsets: dict[str, int], *, unchanged: bytes | None
    ) -> Iterator[ProgressEntry | Finding]:
        """Yield the records of one kind up to the offsets, streaming; each of ours once.

        The logs are not looked for again where ``unchanged`` is what it was.
        """
        seen, (before, logs) = set[str](), self._found
        if unchanged is None or unchanged != before:
            logs = self._logs(None)
            if unchanged is not None:
                self._found = unchanged, logs
        for log in logs:
            stop = offsets.get(log.generation, 0)
            if log.kind is kind and stop:
                for _, line in self._lines(log, 0, stop, opened=self._open(log)):
                    if line.changeset is not None:
                        key = record_key(line.record)
                        if key in seen:
                            continue
                        seen.add(key)
                    yield line.record

    def ids(self, journal: Journal) -> set[tuple[Kind, str]]:
        """Return the ids of the task's history records: those of ours, and what other programs
        appended and was journaled. Read from the logs and the journal once.

        A record that came back from another store may lie behind what the journal has read of the
        logs: lines are not in the order of the commits.
        """
        ids = journal.entry_ids
        if ids is None:
            ids = journal.entry_ids = self._ids_in_logs(journal.logs) | journal.history_ids()
        return ids

    def _ids_in_logs(self, offsets: dict[str, int]) -> set[tuple[Kind, str]]:
        """Search the logs up to the offsets for the key of ids, which only lines of ours have."""
        out = set[tuple[Kind, str]]()
        for log in self._logs(None):
            stop = offsets.get(log.generation, 0)
            if stop:
                with open(open_regular(log.path), "rb") as file:  # noqa: PTH123
                    data = file.read(stop)
                out |= {(log.kind, m.decode()) for m in _ENTRY_ID.findall(data)}
        return out

    def keys_behind(self, journal: Journal) -> set[tuple[Kind, str]]:
        """Return the ids of all lines behind what the journal has read."""
        return {
            (log.kind, record_key(line.record))
            for log in self._logs(None)
            for _, line in self._lines(log, journal.logs.get(log.generation, 0), None)
        }

    def known_upto(self, journal: Journal, keys: set[tuple[Kind, str]]) -> dict[str, int]:
        """Return how far each log holds nothing but lines with these ids, where that is further
        than the journal has read.
        """
        out: dict[str, int] = {}
        for log in self._logs(None):
            for end, line in self._lines(log, journal.logs.get(log.generation, 0), None):
                if (log.kind, record_key(line.record)) not in keys:
                    break
                out[log.generation] = end
        return out

    # -- lines of ours -----------------------------------------------------------------------

    def plan(
        self,
        changeset: Changeset | None,
        records: list[ProgressEntry | Finding],
        *,
        after: tuple[AppendedLine, ...] = (),
    ) -> tuple[AppendedLine, ...]:
        """Return the lines that the records become, each with its place, behind those ``after``.

        A torn line of another program is ended with a newline first, so that ours stands alone.
        No changeset: it is not known any more.
        """
        ends = {line.path: line.offset + len(line.data) for line in after}
        said = str(changeset.id) if changeset else _UNKNOWN
        out = []
        for record in records:
            kind = KINDS[type(record)]
            name = log_name(record)
            data = encode_line(record, changeset=said, times=self._shared.times)
            if name not in ends:
                ends[name], torn = self._end(name)
                data = b"\n" + data if torn else data
            out.append(AppendedLine(kind=kind, path=name, offset=ends[name], data=data))
            ends[name] += len(data)
        return tuple(out)

    def _end(self, name: str) -> tuple[int, bool]:
        try:
            fd = open_regular(self._folder / name)
        except FileNotFoundError:
            return 0, False
        try:
            size = os.fstat(fd).st_size
            return size, size > 0 and os.pread(fd, 1, size - 1) != b"\n"
        finally:
            os.close(fd)

    def offsets_after(
        self, journal: Journal, lines: tuple[AppendedLine, ...]
    ) -> tuple[dict[str, int], bool]:
        """Return how far the logs are read once these lines are in them, and whether all are.

        Not where another program appended at the same moment: what lies behind is then unread.
        """
        out: dict[str, int] = {}
        whole = True
        for line in lines:
            path = self._folder / line.path
            log = identify(line.kind, str(path), [], known=self._identity)
            known = out.get(log.generation, journal.logs.get(log.generation, 0)) if log else 0
            if log is None or line.offset < known or not self._follows(path, known, line):
                whole = False
            else:
                out[log.generation] = line.offset + len(line.data)
        return out, whole

    @staticmethod
    def _follows(path: Path, known: int, line: AppendedLine) -> bool:
        """Whether between what was read and the line lies at most a torn line, ended by ours."""
        try:
            with open(open_regular(path), "rb") as file:  # noqa: PTH123  (an open descriptor)
                file.seek(known)
                between = file.read(line.offset - known)
                return b"\n" not in between and file.read(len(line.data)) == line.data
        except OSError:
            return False

    def append(self, lines: tuple[AppendedLine, ...], *, again: bool = False) -> None:
        """Append the lines durably; ``again``: those that are in no log yet. Raises OSError."""
        for line in lines:
            if again and self._is_anywhere(line):
                continue
            fd = open_log(str(self._folder), line.path, made=self._shared.sync_folder)
            try:
                append_line(fd, line.data, mend=again)
                self._shared.sync(fd)
            finally:
                os.close(fd)

    def _is_anywhere(self, line: AppendedLine) -> bool:
        """Whether a line is in its log, or in the one that another program moved it to."""
        wanted = line.data.strip()
        for path in self._places(line):
            try:
                with open(open_regular(path), "rb") as file:  # noqa: PTH123
                    size = os.fstat(file.fileno()).st_size
                    file.seek(max(0, min(line.offset, size - _TAIL)))
                    if wanted in file.read():
                        return True
            except OSError:
                continue
        return False

    def _places(self, line: AppendedLine) -> tuple[Path, Path]:
        """Return where a line may be: in its log, or where another program moved that to."""
        return self._folder / line.path, self._folder / "archive" / Path(line.path).name

    def remove(self, lines: tuple[AppendedLine, ...]) -> None:
        """Take lines back, whole or torn: blanked, never cut off, since others append unlocked.

        In an archived log too: left there, the line would be read as another program's, and the
        changeset refused when it comes again, its entry's id being taken.
        """
        for line in reversed(lines):
            for path in self._places(line):
                try:
                    fd = open_regular(path, os.O_RDWR)
                except OSError:
                    continue
                try:
                    self._blank(fd, line)
                finally:
                    os.close(fd)

    def _blank(self, fd: int, line: AppendedLine) -> None:
        size = os.fstat(fd).st_size
        data = os.pread(fd, max(0, size - line.offset), line.offset)
        place = data.find(line.data)
        length = len(line.data)
        if place < 0:
            place, length = 0, _common(data, line.data)
        if length:
            blank = b" " * (length - 1) + b"\n"
            os.pwrite(fd, blank, line.offset + place)
            self._shared.sync(fd)


def _common(data: bytes, line: bytes) -> int:
    """How much of a line a failed write left at the very end of a log."""
    return len(data) if data and line.startswith(data) else 0
