"""The logs of one task: what others appended, and lines of ours, appended and taken back."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from backends.files import open_regular
from backends.json_files.intent import AppendedLine
from backends.json_files.journal import Journal
from backends.json_files.shared import Shared
from backends.jsonl.lines import Line, encode_line
from backends.jsonl.reader import Identity, Log, find_logs, identify, read_lines
from registry_api.changeset import Changeset
from registry_api.models import KINDS, Finding, Kind, ProgressEntry, record_key

__all__ = ["TaskLogs"]

_PLACES = {
    Kind.PROGRESS: ("progress", "_progress.jsonl"),
    Kind.FINDING: ("findings", "_findings.jsonl"),
}
_ENTRY_ID = re.compile(rb'"entry_id":\s*"([A-Za-z0-9_-][A-Za-z0-9._-]*)"')
_TAIL = 1 << 16


class TaskLogs:
    """Used under the task's lock, except ``read``, which only needs the offsets read under it."""

    def __init__(self, shared: Shared, task_id: str) -> None:
        self._shared = shared
        self._task_id = task_id
        self._folder = shared.layout.folder(task_id)
        self._identity: Identity = {}

    def unread(
        self, journal: Journal, lines: tuple[AppendedLine, ...] | None = None
    ) -> tuple[list[ProgressEntry | Finding], dict[str, int]]:
        """Return what others appended since the journal last looked, and how far that reads.

        With ``lines`` only the logs are looked at that these go to. A line whose id the journal
        knows is no news: one of ours that another program's append had moved.
        """
        records: list[ProgressEntry | Finding] = []
        offsets: dict[str, int] = {}
        for log in self._logs(lines):
            start = journal.logs.get(log.generation, 0)
            if log.size <= start:
                continue
            for end, line in self._lines(log, start, None):
                offsets[log.generation] = end
                kind, key = KINDS[type(line.record)], record_key(line.record)
                if line.changeset is None or (kind, key) not in self.ids(journal):
                    records.append(line.record)
        return records, offsets

    def _logs(self, lines: tuple[AppendedLine, ...] | None) -> list[Log]:
        if lines is None:
            return find_logs(self._folder, [], known=self._identity)
        places = {line.path: line.kind for line in lines}
        found = [
            identify(kind, self._folder / path, [], known=self._identity)
            for path, kind in places.items()
        ]
        return [log for log in found if log is not None]

    def _lines(self, log: Log, start: int, stop: int | None) -> Iterator[tuple[int, Line]]:
        return read_lines(
            log,
            task_id=self._task_id,
            times=self._shared.times,
            problems=[],
            start=start,
            stop=stop,
        )

    def grown(self, journal: Journal) -> bool:
        """Whether any log is longer than what the journal knows of it."""
        return any(log.size > journal.logs.get(log.generation, 0) for log in self._logs(None))

    def read(self, kind: Kind, offsets: dict[str, int]) -> Iterator[ProgressEntry | Finding]:
        """Yield the records of one kind up to the offsets, streaming."""
        for log in self._logs(None):
            stop = offsets.get(log.generation, 0)
            if log.kind is kind and stop:
                for _, line in self._lines(log, 0, stop):
                    yield line.record

    def ids(self, journal: Journal) -> set[tuple[Kind, str]]:
        """Return the ids of the task's history records of ours; read from the logs once."""
        if journal.entry_ids is None:
            journal.entry_ids = self._ids_in_logs(journal.logs)
        return journal.entry_ids

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

    # -- lines of ours -----------------------------------------------------------------------

    def plan(
        self, changeset: Changeset, records: list[ProgressEntry | Finding]
    ) -> tuple[AppendedLine, ...]:
        """Return the lines that the records become, each with its place.

        A torn line of another program is ended with a newline first, so that ours stands alone.
        """
        ends: dict[str, int] = {}
        out = []
        for record in records:
            kind = Kind.PROGRESS if isinstance(record, ProgressEntry) else Kind.FINDING
            folder, suffix = _PLACES[kind]
            name = f"{folder}/{record.agent_id}{suffix}"
            data = encode_line(record, changeset=str(changeset.id), times=self._shared.times)
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
            log = identify(line.kind, path, [], known=self._identity)
            assert log is not None
            known = out.get(log.generation, journal.logs.get(log.generation, 0))
            with open(open_regular(path), "rb") as file:  # noqa: PTH123  (an open descriptor)
                file.seek(known)
                between = file.read(line.offset - known)
                there = file.read(len(line.data))
            # What lies between may only be a torn line, which ours ended with a newline.
            if line.offset >= known and b"\n" not in between and there == line.data:
                out[log.generation] = line.offset + len(line.data)
            else:
                whole = False
        return out, whole

    def append(self, lines: tuple[AppendedLine, ...]) -> None:
        """Append what is not there yet, durably; raises OSError."""
        for line in lines:
            path = self._folder / line.path
            if not path.parent.is_dir():
                path.parent.mkdir(parents=True, exist_ok=True)
                self._shared.sync_folder(self._folder)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(path, flags, 0o644)
            try:
                if not self._is_there(fd, line):
                    os.write(fd, line.data)
                    self._shared.sync(fd)
            finally:
                os.close(fd)

    @staticmethod
    def _is_there(fd: int, line: AppendedLine) -> bool:
        size = os.fstat(fd).st_size
        if size <= line.offset:
            return False
        start = max(0, min(line.offset, size - _TAIL))
        data = os.pread(fd, size - start, start)
        return line.data.strip() in data

    def remove(self, lines: tuple[AppendedLine, ...]) -> None:
        """Take lines back: cut off at the end, blanked where another program wrote behind them."""
        for line in reversed(lines):
            try:
                fd = open_regular(self._folder / line.path, os.O_RDWR)
            except FileNotFoundError:
                continue
            try:
                size = os.fstat(fd).st_size
                data = os.pread(fd, max(0, size - line.offset), line.offset)
                place = data.find(line.data)
                if place < 0:
                    torn = data if line.data.startswith(data) else b""
                    if torn:
                        os.ftruncate(fd, line.offset)
                elif line.offset + place + len(line.data) == size:
                    os.ftruncate(fd, line.offset + place)
                else:
                    blank = b" " * (len(line.data) - 1) + b"\n"
                    os.pwrite(fd, blank, line.offset + place)
                self._shared.sync(fd)
            finally:
                os.close(fd)
