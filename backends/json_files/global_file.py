"""GLOBAL_REGISTRY.json for the legacy programs: the actual counts, written into their file.

The store never reads its data back from it. Legacy programs that find the file empty or torn create
it again, EMPTY. So it is created with its content, is extended with blanks after its text, and
every rewrite is one write within its length. A reader without a lock can still hit that one write,
as it can hit a legacy write; ``was_emptied`` detects that the file was created again. A wait for
its lock takes at most 100 ms; after that the file stays as it is, marked as out of date, and the
next commit updates it.
"""

from __future__ import annotations

import fcntl
import os
import random
import time
from pathlib import Path
from typing import Any

from backends.files import open_regular
from backends.json_files.document.patch import same_behind, same_in_front
from backends.json_files.document.writer import pwrite_all
from backends.json_files.task.workspace_state import Shared
from registry_api.records import RegistryCounts, TaskSnapshot, json_text
from registry_api.workspace import make_folder, make_whole, open_owned

__all__ = ["Projection"]

_PATIENCE = 0.1
_ROOM = 4096  # blanks kept ready for the next entries
_SMALL = 4096  # bytes; a smaller file is read by a process that has not read it yet


class Projection:
    """The legacy global file, kept up to date with the registry; never fails its caller."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._mark = shared.folder("json") / "global.stale"
        self._place = str(shared.layout.global_file)
        self._written: tuple[bytes, Any] = (b"", None)
        self._seen: tuple[int, int, int] | None = None
        self._least = _SMALL  # bytes; a shorter text lacks tasks
        self._listed: set[str] = set()

    def is_stale(self) -> bool:
        """Return whether an earlier update failed, or there is no file yet."""
        return self._mark.exists() or not os.path.exists(self._place)  # noqa: PTH110  (hot path)

    def mark(self) -> None:
        """Note, before a change, that the file will be out of date."""
        os.close(open_owned(self._mark, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC))

    def was_emptied(self) -> bool:
        """Return whether a legacy program has created the file again, without its entries.

        Fast: the file is only read if it is smaller than the text last seen in it.
        """
        try:
            found = os.stat(self._place)  # noqa: PTH116  (asked by every operation)
        except OSError:
            return False
        stamp = found.st_ino, found.st_size, found.st_mtime_ns
        if stamp == self._seen:
            return False
        self._seen = stamp
        if found.st_size >= self._least:
            return False
        try:
            with open(open_regular(self._place), "rb") as file:  # noqa: PTH123  (a descriptor)
                text = file.read().rstrip()
                listed = json_text.parse(text).get("tasks")
        except (OSError, ValueError, AttributeError):
            return False  # gone, or being written
        if not isinstance(listed, dict):
            return False  # another program's format: left alone, reported by `status`
        self._least = len(text)
        return not listed or not self._listed <= set(listed)

    def update(self, counts: RegistryCounts, tasks: list[TaskSnapshot]) -> bool:
        """Write the counts and the entries of some tasks; return whether that succeeded."""
        path = self._shared.layout.global_file
        try:
            make_folder(path.parent, parents=True)
            try:
                fd = open_regular(path, os.O_RDWR)
            except FileNotFoundError:
                self._make(path)
                fd = open_regular(path, os.O_RDWR)
            try:
                if not _locked(fd):
                    return False
                self._rewrite(fd, counts, tasks)
            finally:
                fcntl.flock(fd, fcntl.LOCK_UN)  # explicitly: a forked child may hold a descriptor
                os.close(fd)
        except (OSError, ValueError):
            return False  # global.stale stays: the next change tries again
        self._mark.unlink(missing_ok=True)
        return True

    def _make(self, path: Path) -> None:
        """Create the file together with its first text."""
        make_whole(path, json_text.dump(self._empty(), indent=True), mode=0o644)

    def _rewrite(self, fd: int, counts: RegistryCounts, tasks: list[TaskSnapshot]) -> None:
        old = os.pread(fd, os.fstat(fd).st_size, 0)
        text = old.rstrip()
        value: Any = self._parsed(text) if text else self._empty()
        if not isinstance(value, dict):
            raise ValueError("the global file is not an object")  # left alone, see status
        value |= {
            "total_tasks": counts.total_tasks,
            "active_tasks": counts.active_tasks,
            "total_agents_spawned": counts.total_agents,
            "active_agents": counts.active_agents,
        }
        for snapshot in tasks:
            self._entries(value, snapshot)
        new = json_text.dump(value, indent=True)
        self._written = new, value
        listed = value.get("tasks")
        self._least, self._listed = len(new), set(listed) if isinstance(listed, dict) else set()
        if new != text:
            if len(new) > len(old):
                # A full disk fails here, after the text, where blanks do no harm.
                pwrite_all(fd, b" " * (len(new) + _ROOM - len(old)), len(old))
            padded = new.ljust(len(old))
            start, end = same_in_front(old, padded), len(padded)
            if len(old) == end:
                end -= same_behind(old, padded, start)
            pwrite_all(fd, padded[start:end], start)
            self._shared.sync(fd)

    def _parsed(self, data: bytes) -> Any:
        """Parse the file; our own last text is remembered, not parsed again."""
        written, value = self._written
        return value if data == written else json_text.parse(data)

    def _empty(self) -> dict[str, Any]:
        now = self._shared.times.write(self._shared.now())
        return {
            "created_at": now,
            "total_tasks": 0,
            "active_tasks": 0,
            "total_agents_spawned": 0,
            "active_agents": 0,
            "max_concurrent_agents": 20,
            "tasks": {},
            "agents": {},
        }

    def _entries(self, value: dict[str, Any], snapshot: TaskSnapshot) -> None:
        task, write = snapshot.task, self._shared.times.write
        tasks, agents = value.setdefault("tasks", {}), value.setdefault("agents", {})
        if not isinstance(tasks, dict) or not isinstance(agents, dict):
            return
        if task.task_id not in tasks:
            tasks[task.task_id] = {
                "description": task.description,
                "created_at": write(task.created_at),
                "workspace": task.workspace,
                "workspace_base": task.workspace_base,
            }
        entry = tasks[task.task_id]
        if isinstance(entry, dict):
            entry["status"] = snapshot.status.value
        for agent in snapshot.agents:
            if agent.agent_id not in agents:
                agents[agent.agent_id] = {
                    "task_id": task.task_id,
                    "type": agent.type,
                    "parent": agent.parent,
                    "started_at": write(agent.started_at) if agent.started_at else None,
                }
                if agent.tmux_session is not None:  # present: the agent is running
                    agents[agent.agent_id]["tmux_session"] = agent.tmux_session
            entry = agents[agent.agent_id]
            # If two tasks have the same agent id, the entry stays that of the first one.
            if isinstance(entry, dict) and entry.get("task_id") == task.task_id:
                entry["status"] = agent.status.value


def _locked(fd: int) -> bool:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(random.uniform(0.0005, 0.001))
        else:
            return True
