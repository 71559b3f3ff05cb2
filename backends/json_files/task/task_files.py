"""The files of one task, and the locks under which they are used."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from backends.files import open_inside
from backends.json_files.journal.intent import IntentFile
from backends.json_files.journal.journal import Journal
from backends.json_files.journal.writer import JournalWriter
from backends.json_files.lazy import lazy
from backends.json_files.task.document_file import DocumentFile
from backends.json_files.task.logs import TaskLogs
from backends.json_files.task.task_lock import TaskLock, lock_document
from backends.json_files.task.workspace_state import Shared
from registry_api.errors import RegistryError, Unavailable
from registry_api.workspace import make_folder, patience

__all__ = ["FOLDERS", "TaskFiles"]

FOLDERS = ("progress", "findings", "logs", "")  # of a task; the last is the task's own


class TaskFiles:
    """Journal, document, intent, logs and lock of one task."""

    def __init__(self, shared: Shared, task_id: str) -> None:
        self.task_id = task_id
        self.shared = shared
        path = shared.folder("json") / f"{task_id}.journal"
        self.journal = Journal(path, task_id)
        self.journal_writer = JournalWriter(self.journal, shared.sync, shared.sync_folder)
        self.document = DocumentFile(shared, self.journal, self.journal_writer)
        # The journal's inode and the lengths of the logs when the journal last had all lines. Kept
        # when the task is evicted: without it each look at quiet logs would read the journal again.
        self.quiet: tuple[int, bytes] | None = None

    # Created on first use, dropped when the task is evicted.

    @lazy
    def lock(self) -> TaskLock:
        """The lock of the task and of its document."""
        path, shared = self.journal.path.with_suffix(".lock"), self.shared
        return TaskLock(
            path, self.document.path, timeout=shared.timeout, read_only=shared.is_read_only
        )

    @lazy
    def intent(self) -> IntentFile:
        """What a write is about to do."""
        path, shared = self.shared.folder("intents") / self.task_id, self.shared
        return IntentFile(path, sync=shared.sync, sync_folder=shared.sync_folder)

    @lazy
    def logs(self) -> TaskLogs:
        """The logs of progress and findings."""
        return TaskLogs(self.shared, self.task_id)

    def draw_number(self) -> int:
        """Draw a feed number, reserved in the intent while nobody else can draw one."""
        numbers = self.shared.numbers
        with numbers.locked():
            number = numbers.draw()
            self.intent.reserve(number)
        return number

    @contextmanager
    def held(self) -> Iterator[float]:
        """Hold the task's lock; gives the monotonic deadline for waits inside. Raises Busy."""
        while True:
            lock = self.lock
            with lock.held() as deadline:
                # While this thread waited, another one may have dropped the lock and a third made
                # its successor: an eviction would not see that this thread works on the task.
                if lock is self.lock:
                    yield deadline
                    return

    def evict(self) -> bool:
        """Drop what can be reloaded, unless another thread works on the task; return whether."""
        lock = self.lock
        with lock.idle() as idle:
            if not idle or lock is not self.lock:
                return False
            self.journal.evict()
            for name in ("lock", "intent", "logs"):
                self.__dict__.pop(name, None)
            return True

    def close(self) -> None:
        """Close the descriptors."""
        self.lock.close()

    # -- the document, locked ----------------------------------------------------------------

    @contextmanager
    def opened(self, deadline: float) -> Iterator[int]:
        """Lock the document, under the side lock; raise errors of the file system as typed ones.

        Raises FileNotFoundError if there is none.
        """
        try:
            with self.lock.document(deadline) as fd:
                yield fd
        except (FileNotFoundError, RegistryError):
            raise
        except OSError as error:
            raise self.typed(error) from error

    @contextmanager
    def created(self, deadline: float) -> Iterator[int]:
        """Create the document and lock it; raises FileExistsError."""
        with self.lock.document(deadline, create=True) as fd:
            self.shared.sync_folder(self.document.path.parent)
            yield fd

    @contextmanager
    def locked_for_reading(self) -> Iterator[int]:
        """Lock the document alone, as legacy programs do; raises Busy, OSError."""
        path = self.document.path
        fd = open_inside(path)
        try:
            lock_document(fd, path, time.monotonic() + patience(self.shared.timeout))
            yield fd
        finally:
            os.close(fd)

    def make_folders(self) -> None:
        """Make the folders of the task durably; a link in place of its folder is refused."""
        parent = self.document.path.parent
        if parent.is_symlink():
            raise Unavailable(
                f"{parent} is a link", next_step="Move it away; links are not followed"
            )
        for name in reversed(FOLDERS):
            make_folder(parent / name, parents=True)
        self.shared.sync_folder(self.shared.layout.workspace)

    def typed(self, error: OSError) -> Exception:
        """Return an error of the file system as Unavailable; a typed one as it is."""
        if isinstance(error, RegistryError):
            return error
        return Unavailable(
            f"{self.document.path}: {error.strerror or error}", next_step="Check the file"
        )
