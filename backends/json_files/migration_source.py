"""The store as the source of a move: documents are frozen, archived, removed and brought back.

A document's frozen text is the one whose hash its journal holds; it is recorded nowhere else. The
read-only mode is only a hint to legacy programs: what they write anyway is found and kept in
``.registry/conflicts``.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TypedDict, cast

import orjson

from backends.files import open_regular
from backends.json_files.document.archive import Archive, Member
from backends.json_files.document.text import content_hash
from backends.json_files.journal.intent import pending_numbers
from backends.json_files.legacy.layout import DOCUMENT, frozen_without_record, named_task
from backends.json_files.store import JsonFilesStore
from backends.json_files.task.frozen_task import FrozenTask
from backends.json_files.task.replica import Now, ReplicaTask
from backends.json_files.task.workspace_state import as_recorded
from registry_api.capabilities import LateWrite
from registry_api.errors import Busy, CorruptDocument, RegistryError, TaskNotFound
from registry_api.records import Change, Commit, Finding, Head, ProgressEntry, TaskSnapshot
from registry_api.workspace import make_folder

__all__ = ["JsonMigrationSource"]

Counted = Callable[[int, int], None]
_USUAL_MODE = 0o644


class _Before(TypedDict):
    """The documents before the freeze.

    ``modes``: unusual modes, "/" is the global file's. ``strangers``: the hashes of documents that
    no task was read from, which are not late writes.
    """

    modes: dict[str, int]
    strangers: dict[str, str]


class JsonMigrationSource(JsonFilesStore):
    """The store as a migration source and as a replica; see MigrationSource and Replica."""

    task_class = FrozenTask

    def _frozen_tasks(self) -> Iterator[FrozenTask]:
        """Yield every task that has, or had, a document; nothing is read."""
        names = set(self._shared.layout.tasks())
        names |= {p.name.removesuffix(".journal") for p in self._journals()}
        for name in sorted(names):
            yield self._frozen(name)

    def _frozen(self, name: str) -> FrozenTask:
        """Return a task, mostly to check its document: this does not reload an evicted task."""
        task = self._tasks.get(name) or self._task(name)
        assert isinstance(task, FrozenTask)
        return task

    def _replica(self, name: str) -> FrozenTask:
        task = self._task(name)
        assert isinstance(task, FrozenTask)
        return task

    # -- as a replica ------------------------------------------------------------------------

    def apply(self, change: Change) -> Commit:
        """See Replica.apply."""
        task = self._replica(change.changeset.task_id)
        replayed = not task.follows([change])
        if not replayed:
            self.apply_all([change])
        return task.commit_of(change, replayed=replayed)

    def apply_all(self, changes: Sequence[Change]) -> None:
        """See Replica.apply_all; a refusal comes before anything is written."""
        groups: dict[str, list[Change]] = {}
        for change in changes:
            groups.setdefault(change.changeset.task_id, []).append(change)
        for name, group in groups.items():
            self._replica(name).follows(group)
        self._follow(changes)
        for name, group in groups.items():
            self._replica(name).apply_all(group)

    def _follow(self, changes: Sequence[Change]) -> None:
        """Move the feed counter past the numbers of changes, before these are written.

        A process that finishes an interrupted write no longer knows the numbers.
        """
        if changes:
            newest = max((c.cursor for c in changes), key=lambda c: c.number)
            self._shared.numbers.follow(newest.feed_id, newest.number)

    def replace(
        self,
        snapshot: TaskSnapshot,
        histories: Iterable[ProgressEntry | Finding],
        *,
        feed: tuple[Change, ...] = (),
    ) -> None:
        """See Replica.replace."""
        self._follow(feed)
        self._replica(snapshot.task.task_id).replace_with(snapshot, histories, feed)

    # -- freezing ----------------------------------------------------------------------------

    @property
    def _before(self) -> Path:
        return self._shared.folder("json") / "before_freeze.json"

    def _known_before(self) -> _Before:
        try:
            return cast(_Before, orjson.loads(self._before.read_bytes()))
        except (OSError, orjson.JSONDecodeError):
            return {"modes": {}, "strangers": {}}

    @property
    def _global_base(self) -> Path:
        return self._shared.folder("json") / "global.base"

    def moved(self, seen: Mapping[str, Head]) -> dict[str, Head]:
        """See MigrationSource.moved."""
        self.settle()
        out = {}
        with as_recorded():
            for name in self._present():
                head, known = self._frozen(name).stands(settle=False), seen.get(name)
                if head is not known and head != known and head.revision:
                    out[name] = head
        return out

    def settle(self) -> None:
        """See MigrationSource.settle."""
        failed: RegistryError | None = None
        for name in pending_numbers(self._intents):
            try:
                self._frozen(name).current()
            except TaskNotFound:  # an interrupted creation was taken back
                continue
            except Busy as error:  # may succeed next time, unlike the other errors
                failed = error
            except RegistryError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def as_recorded(self) -> AbstractContextManager[None]:
        """See MigrationSource.as_recorded."""
        return as_recorded()

    def prepare_freeze(self) -> None:
        """See MigrationSource.prepare_freeze."""
        modes, strangers = dict[str, int](), dict[str, str]()
        for task in self._frozen_tasks():
            mode = task.mode()
            if mode is not None and mode != _USUAL_MODE:
                modes[task.task_id] = mode
            stranger = task.stranger()
            if stranger is not None:
                strangers[task.task_id] = stranger
            task.keep_template()
            task.remove_empty_intent()
        mode = _mode_of(self._shared.layout.global_file)
        if mode is not None:
            modes["/"] = mode
        before: _Before = {"modes": modes, "strangers": strangers}
        self._shared.replace_file(self._before, orjson.dumps(before))

    def freeze(self, seen: Mapping[str, Head]) -> dict[str, Head]:
        """See MigrationSource.freeze."""
        self.settle()
        moved = {}
        self._shared.freezing.add(self._shared.epoch())
        for name in self._present():
            head, known = self._frozen(name).freeze(), seen.get(name)
            if head is not known and head != known and head.revision:
                moved[name] = head
        self._freeze_global()
        return moved

    def _present(self) -> list[str]:
        """Return the tasks that have a document; names not seen before are checked first."""
        new = set[str]()
        with os.scandir(self._shared.layout.workspace) as entries:
            names = [e.name for e in entries if e.name[0] != "." and not e.is_symlink()]
        if any(name not in self._tasks for name in names):
            new = set(self._shared.layout.tasks()) - self._tasks.keys()
        return sorted({n for n in names if n in self._tasks} | new)

    def sweep(self) -> dict[str, Head]:
        """See MigrationSource.sweep."""
        moved = {}
        for name in self._present():
            head = self._frozen(name).sweep()
            if head is not None:
                moved[name] = head
        return moved

    def keep_frozen(self) -> None:
        """See MigrationSource.keep_frozen."""
        for name in self._present():
            ReplicaTask.set_writable(self._shared.layout.document(name), writable=False)

    def frozen_documents(self) -> int:
        """See MigrationSource.frozen_documents."""
        if not self._before.exists():
            return frozen_without_record(self._shared.layout)
        modes = self._known_before()["modes"]
        found = ((name, self._frozen(name).mode()) for name in self._shared.layout.tasks())
        return sum(
            mode is not None and not mode & 0o200 and bool(modes.get(name, _USUAL_MODE) & 0o200)
            for name, mode in found
        )

    def thaw(self) -> None:
        """See MigrationSource.thaw."""
        modes = self._known_before()["modes"]
        for name in self._present():
            mode = modes.get(name, _USUAL_MODE)
            ReplicaTask.set_writable(self._shared.layout.document(name), writable=True, mode=mode)
        path = self._shared.layout.global_file
        ReplicaTask.set_writable(path, writable=True, mode=modes.get("/", _USUAL_MODE))
        self._shared.freezing.clear()
        self._projection.mark()  # its content is from before the cut-over
        self._next_try = 0.0

    def _freeze_global(self) -> None:
        path = self._shared.layout.global_file
        with suppress(OSError):
            data = _read(path)
            if data is not None:
                self._shared.replace_file(self._global_base, data)
                ReplicaTask.set_writable(path, writable=False)

    # -- late writes -------------------------------------------------------------------------

    def late_writes(self, now: Now) -> tuple[LateWrite, ...]:
        """See MigrationSource.late_writes."""
        out, strangers = [], self._known_before()["strangers"]
        for name in self._shared.layout.tasks():
            with suppress(RegistryError, OSError):
                if self._is_copy(name):
                    continue
                found = self._frozen(name).look(now, stranger=strangers.get(name))
                if found is not None:
                    out.append(found)
        found = self._global_late_write()
        return (*out, *([found] if found else ()))

    def _is_copy(self, name: str) -> bool:
        """Return whether a folder holds another task's frozen document: it was moved or copied."""
        task = self._frozen(name)
        task.journal.refresh()
        if not task.journal.is_empty:
            return False
        data = task.text()
        named = None if data is None else named_task(data)
        if named is None or named == name or data is None:
            return False
        original = self._frozen(named)
        original.journal.refresh()
        return original.journal.hash == content_hash(data)

    def _global_late_write(self) -> LateWrite | None:
        data = _read(self._shared.layout.global_file)
        if data is None or data == _read(self._global_base):
            return None
        return self._keep_global(data)

    def _keep_global(self, data: bytes) -> LateWrite | None:
        name = f"GLOBAL_REGISTRY.straggler-{content_hash(data)[:12]}.json"
        kept = self._shared.folder("conflicts") / name
        if kept.with_suffix(".report").exists():
            return None
        self._shared.replace_file(kept, data)
        changes = ("the legacy list of tasks was written after the cut-over",)
        report = {"task_id": "", "at": self._shared.now().isoformat(), "changes": changes}
        self._shared.replace_file(kept.with_suffix(".report"), orjson.dumps(report))
        return LateWrite(task_id="", kept=str(kept), changes=changes)

    def kept_late_writes(self) -> tuple[str, ...]:
        """See MigrationSource.kept_late_writes."""
        return tuple(
            str(p)
            for p in sorted((self._shared.layout.state / "conflicts").glob("*straggler-*.report"))
        )

    def frozen_differences(self) -> tuple[str, ...]:
        """See MigrationSource.frozen_differences."""
        return tuple(
            f"{self._shared.layout.document(task.task_id)}: {what}"
            for task in self._frozen_tasks()
            if (what := task.difference()) is not None
        )

    def holders(self) -> tuple[str, ...]:
        """See MigrationSource.holders."""
        paths = [self._shared.layout.document(n) for n in self._shared.layout.tasks()]
        paths.append(self._shared.layout.global_file)
        return tuple(f"{who}: {path}" for who, path in _open_elsewhere(paths))

    # -- removal -----------------------------------------------------------------------------

    def _archives(self) -> Path:
        return self._shared.folder("archive")

    def archive(self, *, progress: Counted | None = None) -> str:
        """See MigrationSource.archive."""
        layout = self._shared.layout
        tasks = [t for t in self._frozen_tasks() if t.is_archived()]
        members = [Member(f"{t.task_id}/{layout.document(t.task_id).name}", t.text) for t in tasks]
        if layout.global_file.exists():
            members.append(
                Member("registry/GLOBAL_REGISTRY.json", lambda: _read(layout.global_file))
            )
        name = f"json-{self._shared.now():%Y%m%dT%H%M%S%f}.tar"
        archive = Archive(self._archives() / name, sync=self._shared.sync)
        digest = archive.write(members, progress=progress)
        self._shared.sync_folder(self._archives())
        archive.check(digest)
        return f"{name} {digest}"

    def check_archive(self, archive: str) -> None:
        """See MigrationSource.check_archive."""
        self._manifest(archive)

    def _manifest(self, archive: str) -> dict[str, str]:
        name, _, digest = archive.partition(" ")
        return Archive(self._archives() / name, sync=self._shared.sync).check(digest)

    def retire(
        self,
        archive: str,
        *,
        wait: float,
        patience: float,
        now: Now,
        progress: Counted | None = None,
    ) -> tuple[LateWrite, ...]:
        """See MigrationSource.retire."""
        manifest = self._manifest(archive)
        retired = self._shared.folder("retired")
        late_writes = list(self.late_writes(now))
        for path in manifest:
            self._set_aside(path, retired)
        aside = {path: retired / path.replace("/", "!") for path in manifest}
        held = self._wait_until_released(aside.values(), wait, patience, progress)
        for path, place in aside.items():
            data = None if place in held else _read(place)
            if data is None:
                continue
            if content_hash(data) != manifest[path]:
                late_write = self._keep_late(path, data, now)
                late_writes += [late_write] if late_write else []
            place.unlink()
        self._shared.sync_folder(retired)
        return tuple(late_writes)

    def _set_aside(self, path: str, retired: Path) -> None:
        """Move a document where legacy programs do not find it, under its lock; its inode stays."""
        there = self._shared.layout.workspace / path
        place = retired / path.replace("/", "!")
        if place.exists() or not there.exists():
            return
        task_id = path.partition("/")[0]
        if task_id == "registry":
            there.rename(place)
        else:
            self._frozen(task_id).move_to(place)

    def retiring(self) -> int:
        """See MigrationSource.retiring."""
        folder = self._shared.layout.state / "retired"
        return sum(1 for _ in folder.iterdir()) if folder.exists() else 0

    @staticmethod
    def _wait_until_released(
        paths: Iterable[Path], wait: float, patience: float, progress: Counted | None
    ) -> set[Path]:
        """Wait until the files were moved ``wait`` seconds ago and nobody has them open.

        Waits at most ``patience`` seconds; returns the files that must not be removed yet.
        """
        start = time.monotonic()
        # Renaming a file sets its ctime.
        ages = {p: time.time() - p.stat().st_ctime for p in paths if p.exists()}
        while True:
            passed = time.monotonic() - start
            held = {p for p, age in ages.items() if age + passed < wait}
            held |= {path for _, path in _open_elsewhere(ages.keys() - held)}
            if not held or passed >= patience:
                return held
            if progress is not None:
                progress(min(int(passed), int(wait)), int(wait))
            time.sleep(max(0.0, min(0.5, patience - passed)))

    def _keep_late(self, path: str, data: bytes, now: Now) -> LateWrite | None:
        """Keep what was written to a document after it was moved away."""
        task_id = path.partition("/")[0]
        if task_id == "registry":
            return self._keep_global(data)
        return self._frozen(task_id).put_aside(data, now)

    def reinstate(self, archive: str | None) -> None:
        """See MigrationSource.reinstate."""
        retired = self._shared.layout.state / "retired"
        aside = {p.name.partition("!")[0]: p for p in retired.glob(f"*!{DOCUMENT}")}
        for name, path in aside.items():
            self._frozen(name).reinstate(path)
        if archive is not None:
            with suppress(CorruptDocument):  # then the templates or the records are used
                self._take_back(archive)
        for task in self._frozen_tasks():
            task.reinstate(None)
        path, base = self._shared.layout.global_file, _read(self._global_base)
        if base is not None and not path.exists():
            make_folder(path.parent, parents=True)
            fresh = path.with_name(f".{path.name}.back")
            self._shared.write_file(fresh, base, mode=0o644)
            ReplicaTask.set_writable(fresh, writable=False)
            fresh.rename(path)
            self._shared.sync_folder(path.parent)
        (retired / "registry!GLOBAL_REGISTRY.json").unlink(missing_ok=True)

    def _take_back(self, archive: str) -> None:
        """Restore the archive's documents; those that no task was read from are kept only there."""
        name, _, digest = archive.partition(" ")
        modes = self._known_before()["modes"]
        for path, data in Archive(self._archives() / name, sync=self._shared.sync).read(digest):
            task_id, _, file = path.partition("/")
            if file == DOCUMENT:
                self._frozen(task_id).take_back(data, mode=modes.get(task_id, _USUAL_MODE))


def _mode_of(path: Path) -> int | None:
    try:
        found = path.lstat().st_mode
    except OSError:
        return None
    return stat.S_IMODE(found) if stat.S_ISREG(found) else None


def _read(path: Path) -> bytes | None:
    try:
        with open(open_regular(path), "rb") as file:  # noqa: PTH123  (an open descriptor)
            return file.read()
    except OSError:
        return None


def _open_elsewhere(paths: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    """Yield (``pid (name)``, path) of the files that other processes have open (Linux)."""
    wanted = {}
    for path in paths:
        with suppress(OSError):
            found = path.lstat()
            wanted[found.st_dev, found.st_ino] = path
    for process in Path("/proc").glob("[0-9]*") if wanted else ():
        if process.name == str(os.getpid()):
            continue
        with suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with suppress(OSError):
                    found = descriptor.stat()
                    there = wanted.get((found.st_dev, found.st_ino))
                    if there is not None:
                        name = (process / "comm").read_text().strip()
                        yield f"{process.name} ({name})", there
