"""The logs of one task: what others appended, and lines of ours, appended and taken back."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from backends.files import open_regular
from backends.json_files.intent import AppendedLine
from backends.json_files.journal import Journal
from backends.json_files.removed import History
from backends.json_files.shared import Shared
from backends.jsonl.append import append_line, open_log
from backends.jsonl.lines import encode_line, without_id
from backends.jsonl.reader import Identity, Log, find_logs, identify, log_name, read_lines
from registry_api.changeset import Changeset
from registry_api.models import KINDS, Kind, record_key

__all__ = ["TaskLogs"]

_TAIL = 1 << 16
_UNKNOWN = "00000000-0000-0000-0000-000000000000"


class TaskLogs:
    """Used under the task's lock."""

    def __init__(self, shared: Shared, task_id: str) -> None:
        self._shared = shared
        self._task_id = task_id
        self._folder = shared.layout.folder(task_id)
        self._identity: Identity = {}
        self._unread: dict[str, _Behind] = {}

    def unread(
        self, journal: Journal, lines: tuple[AppendedLine, ...] | None = None
    ) -> tuple[list[History], dict[str, int]]:
        """Return what others appended since the journal last looked, and how far that reads.

        With ``lines`` only the logs are looked at that these go to. A line that the journal knows
        is no news: one of ours that another program's append, or its move of the log, had put
        behind what was read; and what is left of a log that somebody cut short.
        """
        records: list[History] = []
        offsets: dict[str, int] = {}
        known = _Known(journal, lambda: self._is_anything_gone(journal))
        for log in self._logs(lines):
            start = journal.logs.get(log.generation, 0)
            if log.size == start:
                continue
            cut = self._is_cut(log, start)
            for end, record in self._lines(log, 0 if cut else start):
                offsets[log.generation] = end
                if not known.holds(record, cut=cut, new=not start):
                    records.append(record)
            if cut:
                offsets.setdefault(log.generation, 0)
        return records, offsets

    def _is_anything_gone(self, journal: Journal) -> bool:
        """Whether a log that was read is gone, or shorter now: its lines may have moved."""
        sizes = {log.generation: log.size for log in self._logs(None)}
        return any(sizes.get(generation, 0) < upto for generation, upto in journal.logs.items())

    @staticmethod
    def _is_cut(log: Log, start: int) -> bool:
        """Whether a log does not hold what was read of it: it was cut short since, or edited."""
        if log.size < start:
            return True
        try:
            with open(open_regular(log.place), "rb") as file:  # noqa: PTH123  (an open descriptor)
                return start > 0 and os.pread(file.fileno(), 1, start - 1) != b"\n"
        except OSError:
            return False  # moved meanwhile: looked at again, and named, by who reads

    def _logs(self, lines: tuple[AppendedLine, ...] | None) -> list[Log]:
        if lines is None:
            return find_logs(self._folder, [], known=self._identity)
        places = {line.path: line.kind for line in lines}
        found = [
            identify(kind, f"{self._folder}/{path}", [], known=self._identity)
            for path, kind in places.items()
        ]
        return [log for log in found if log is not None]

    def _lines(self, log: Log, start: int) -> Iterator[tuple[int, History]]:
        return read_lines(
            log,
            task_id=self._task_id,
            times=self._shared.times,
            problems=[],
            start=start,
        )

    def grown(self, journal: Journal) -> bool:
        """Whether any log is not as long as what the journal knows of it."""
        read = journal.logs
        return any(log.size != read.get(log.generation, 0) for log in self._logs(None))

    def keys_behind(self, journal: Journal) -> set[tuple[Kind, str]]:
        """Return the ids of all lines behind what the journal has read."""
        return {key for lines in self._behind(journal).values() for _, key in lines.found}

    def known_upto(self, journal: Journal, keys: set[tuple[Kind, str]]) -> dict[str, int]:
        """Return how far each log holds nothing but lines with these ids, where that is further
        than the journal has read.
        """
        out: dict[str, int] = {}
        for generation, lines in self._behind(journal).items():
            for end, key in lines.found:
                if key not in keys:
                    break
                out[generation] = end
        return out

    def _behind(self, journal: Journal) -> dict[str, _Behind]:
        """Return per log the lines behind what the journal has read, each line read once: the way
        back asks for every few hundred changes.
        """
        out: dict[str, _Behind] = {}
        for log in self._logs(None):
            read = journal.logs.get(log.generation, 0)
            lines = self._unread.get(log.generation)
            if lines is None or log.size < lines.upto or read < lines.start:
                lines = _Behind(start=read, upto=read)
            for end, record in self._lines(log, lines.upto):
                lines.found.append((end, (log.kind, record_key(record))))
                lines.upto = end
            while lines.found and lines.found[0][0] <= read:
                lines.found.popleft()
            lines.start = max(lines.start, read)
            out[log.generation] = lines
        self._unread = out
        return out

    # -- lines of ours -----------------------------------------------------------------------

    def plan(
        self,
        changeset: Changeset | None,
        records: list[History],
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


@dataclass(slots=True)
class _Behind:
    """A log's lines behind a byte, as far as they were read: (end offset, id)."""

    start: int
    upto: int
    found: deque[tuple[int, tuple[Kind, str]]] = field(default_factory=deque)


class _Known:
    """What a journal holds of the histories; read when it is first asked."""

    def __init__(self, journal: Journal, anything_gone: Callable[[], bool]) -> None:
        self._journal = journal
        self._anything_gone = anything_gone
        self._contents: Counter[History] | None = None

    def holds(self, record: History, *, cut: bool, new: bool) -> bool:
        """Whether a line's record is in the journal, by its id; or by what it says, once for each
        such record, where it may have moved, since a foreign line's id follows from its place: in a
        log that was ``cut``, or in a ``new`` one while another is gone.
        """
        if (KINDS[type(record)], record_key(record)) in self._journal.history_ids():
            return True
        if not ((cut or new) and record.foreign and self._journal.logs):
            return False
        if self._contents is None:
            kinds = (Kind.PROGRESS, Kind.FINDING) if cut or self._anything_gone() else ()
            self._contents = Counter(
                without_id(r) for k in kinds for r in self._journal.histories(k) if r.foreign
            )
        content = without_id(record)
        self._contents[content] -= 1
        return self._contents[content] >= 0
