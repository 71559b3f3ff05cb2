"""The logs of one task: read what others appended; append our lines and take them back."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from backends.files import open_regular
from backends.json_files.journal.intent import AppendedLine
from backends.json_files.journal.journal import Journal
from backends.json_files.journal.lines import History
from backends.json_files.task.workspace_state import Shared
from backends.jsonl.append import append_line, open_log
from backends.jsonl.lines import encode_line, without_id
from backends.jsonl.reader import Identity, Log, find_logs, identify, log_name, read_lines
from registry_api.records import HISTORIES, KINDS, Changeset, Kind, record_key

__all__ = ["TaskLogs"]

_TAIL = 1 << 16
_UNKNOWN = "00000000-0000-0000-0000-000000000000"


class TaskLogs:
    """The logs of one task; used under the task's lock."""

    def __init__(self, shared: Shared, task_id: str) -> None:
        self._shared = shared
        self._task_id = task_id
        self._folder = shared.layout.folder(task_id)
        self._identity: Identity = {}
        self._unread: dict[str, _Behind] = {}

    def unread(
        self, journal: Journal, lines: tuple[AppendedLine, ...] | None = None
    ) -> tuple[list[History], dict[str, int]]:
        """Return what others appended since the logs were last read, and how far they are now read.

        With ``lines`` only the logs that these go to are read. Lines whose record the journal has
        are left out: our own lines that lie after the part that was read, since another program
        appended at the same moment or moved the log, and the lines of a truncated log.
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
        """Return whether a log that was read is gone, or shorter now: its lines may have moved."""
        sizes = {log.generation: log.size for log in self._logs(None)}
        return any(sizes.get(generation, 0) < upto for generation, upto in journal.logs.items())

    @staticmethod
    def _is_cut(log: Log, start: int) -> bool:
        """Return whether a log was truncated or edited since it was read."""
        if log.size < start:
            return True
        try:
            with open(open_regular(log.place), "rb") as file:  # noqa: PTH123  (an open descriptor)
                return start > 0 and os.pread(file.fileno(), 1, start - 1) != b"\n"
        except OSError:
            return False  # moved meanwhile: the reader opens it again and reports it

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
        """Return whether the length of any log differs from what the journal has read of it."""
        read = journal.logs
        return any(log.size != read.get(log.generation, 0) for log in self._logs(None))

    def keys_behind(self, read: Mapping[str, int]) -> set[tuple[Kind, str]]:
        """Return the ids of all lines that are not read; ``read``: how far each log is."""
        return {key for lines in self._behind(read).values() for _, key in lines.found}

    def known_upto(self, read: Mapping[str, int], keys: set[tuple[Kind, str]]) -> dict[str, int]:
        """Return, per log, how far its unread lines have no other ids than these.

        Logs whose first unread line has another id are left out.
        """
        out: dict[str, int] = {}
        for generation, lines in self._behind(read).items():
            for end, key in lines.found:
                if key not in keys:
                    break
                out[generation] = end
        return out

    def _behind(self, read: Mapping[str, int]) -> dict[str, _Behind]:
        """Return, per log, the lines that are not read.

        Each line is parsed only once: a rollback asks again for every few hundred changes.
        """
        out: dict[str, _Behind] = {}
        for log in self._logs(None):
            upto = read.get(log.generation, 0)
            lines = self._unread.get(log.generation)
            if lines is None or log.size < lines.upto or upto < lines.start:
                lines = _Behind(start=upto, upto=upto)
            for end, record in self._lines(log, lines.upto):
                lines.found.append((end, (log.kind, record_key(record))))
                lines.upto = end
            while lines.found and lines.found[0][0] <= upto:
                lines.found.popleft()
            lines.start = max(lines.start, upto)
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
        """Return the log lines of the records, each with its offset, following the lines ``after``.

        A torn line of another program is first ended with a newline, so that ours is a line of its
        own. ``changeset`` None: it is no longer known.
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
        """Return how far the logs are read once these lines are in them, and whether that is all.

        It is not all if another program appended at the same moment: its log stays unread from
        there.
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
        """Return whether the line follows the part that was read, or a torn line ended by ours."""
        try:
            with open(open_regular(path), "rb") as file:  # noqa: PTH123  (an open descriptor)
                file.seek(known)
                between = file.read(line.offset - known)
                return b"\n" not in between and file.read(len(line.data)) == line.data
        except OSError:
            return False

    def append(self, lines: tuple[AppendedLine, ...], *, again: bool = False) -> None:
        """Append the lines durably; ``again``: only those in no log yet. Raises OSError."""
        for line in lines:
            if again and self._is_anywhere(line):
                continue
            fd = open_log(str(self._folder), line.path, made=self._shared.sync_folder)
            try:
                append_line(fd, line.data, end_torn=again)
                self._shared.sync(fd)
            finally:
                os.close(fd)

    def _is_anywhere(self, line: AppendedLine) -> bool:
        """Return whether a line is in its log, or in the one that another program moved it to."""
        wanted = line.data.strip()
        for path in self._places(line):
            try:
                with open(open_regular(path), "rb") as file:  # noqa: PTH123  (an open descriptor, or hot path)
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
        """Take lines back, complete or torn, by overwriting them with blanks.

        Logs are never truncated, since others append without a lock. Lines in archived logs are
        taken back too: they would be read as another program's, and the changeset would be refused
        when it is sent again, because its entry's id exists.
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
    """Return how many bytes of a line a failed write left at the end of a log."""
    return len(data) if data and line.startswith(data) else 0


@dataclass(slots=True)
class _Behind:
    """A log's lines between the offsets ``start`` and ``upto``: (end offset, id) of each."""

    start: int
    upto: int
    found: deque[tuple[int, tuple[Kind, str]]] = field(default_factory=deque)


class _Known:
    """The history records that a journal holds; read on first use."""

    def __init__(self, journal: Journal, anything_gone: Callable[[], bool]) -> None:
        self._journal = journal
        self._anything_gone = anything_gone
        self._contents: Counter[History] | None = None

    def holds(self, record: History, *, cut: bool, new: bool) -> bool:
        """Return whether the journal has the record of a line, by its id or else by its content.

        A foreign line's id depends on its place. So content is compared where the line may have
        moved: in a log that was ``cut``, or in a ``new`` one while another is gone. Each record in
        the journal counts for one such line.
        """
        if (KINDS[type(record)], record_key(record)) in self._journal.history_ids():
            return True
        if not ((cut or new) and record.foreign and self._journal.logs):
            return False
        if self._contents is None:
            kinds = HISTORIES if cut or self._anything_gone() else ()
            self._contents = Counter(
                without_id(r) for k in kinds for r in self._journal.histories(k) if r.foreign
            )
        content = without_id(record)
        self._contents[content] -= 1
        return self._contents[content] >= 0
